"""Simulated problems: the report and the exit code."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from email.message import Message
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightning_cifar.cli import main
from lightning_cifar.commands.doctor import checks, libraries
from lightning_cifar.commands.doctor.checks import Check, guarded
from lightning_cifar.data import sources
from lightning_cifar.ext import convolution


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty current folder, in which no library is loaded."""
    monkeypatch.setattr("lightning_cifar.commands.doctor.command.libraries", lambda root, base: iter(()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def named(found: Iterable[Check], name: str) -> list[Check]:
    return [check for check in found if check.name == name]


def set_versions(monkeypatch: pytest.MonkeyPatch, found: dict[str, str], asked: dict[str, list[str]]) -> None:
    """Replace the metadata of the installed packages."""

    def version(name: str) -> str:
        if name not in found:
            raise PackageNotFoundError(name)
        return found[name]

    def metadata(name: str) -> Message:
        message = Message()
        message["Requires-Python"] = ">=3.11"
        return message

    monkeypatch.setattr(checks, "version", version)
    monkeypatch.setattr(checks, "requires", asked.get)
    monkeypatch.setattr(checks, "metadata", metadata)


# ---------------------------------------------------------------- the command


def test_a_mismatched_pair_is_one_line_with_a_command_and_exit_code_1(
    quick: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"torchvision": ["numpy", "torch (==2.13.0)"], "lightning-cifar": ["torch>=2.11,<3"]}
    found = {"torch": "2.14.1+cpu", "torchvision": "0.28.0+cpu", "lightning-cifar": "1"}
    set_versions(monkeypatch, found, asked)
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith("fix "))
    assert lines[row : row + 3] == [
        "fix   pair: torch 2.14.1+cpu and torchvision 0.28.0+cpu are not compatible: this torchvision needs",
        "      torch ==2.13.0",
        "      > python -m pip install --force-reinstall 'torch==2.14.*' torchvision "
        "--index-url https://download.pytorch.org/whl/cpu",
    ]
    assert lines[-1].startswith("1 to fix, ")


def test_exit_code_0_without_anything_to_fix(
    quick: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_versions(monkeypatch, {"torch": "2.14.1", "torchvision": "0.29.1"}, {"torchvision": ["torch>=2.14.0"]})
    assert main(["doctor"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert "ok    pair: torch 2.14.1 and torchvision 0.29.1 are compatible\n" in output.out
    assert "\n0 to fix, " in output.out


def test_json_holds_the_same(quick: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(checks.os, "access", lambda path, mode: False)
    assert main(["doctor", "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["fixes"] == sum(each["level"] == "fix" for each in content["checks"])
    [found] = [each for each in content["checks"] if each["name"] == "disk"]
    assert found == {
        "name": "disk",
        "level": "fix",
        "text": "runs cannot be saved here: the current folder is not writable",
        "fix": "change to a folder that you can write to, or pass --run_dir or --out",
    }
    levels = [each["level"] for each in content["checks"]]
    assert levels == sorted(levels, key=["ok", "note", "fix"].index), "what is to be fixed comes last"


def test_texts_contain_no_control_characters_and_shorten_the_home_folder(
    quick: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def odd() -> Iterator[Check]:
        yield Check("disk", "ok", f"\x1b[31m {quick}/home/x {quick}/data")

    monkeypatch.setenv("HOME", f"{quick}/home")
    monkeypatch.chdir("/")
    monkeypatch.setattr(checks, "disk", odd)
    main(["doctor", "--json"])
    assert f" [31m ~/x {quick}/data" in [each["text"] for each in json.loads(capsys.readouterr().out)["checks"]]


@pytest.mark.parametrize(("word", "message"), [("--jsn", "Did you mean --json?"), ("everything", "everything")])
def test_a_wrong_option_is_one_line(word: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", word]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_check_that_fails_is_reported_and_the_others_go_on(
    quick: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Iterator[Check]:
        yield Check("processor", "ok", "half")
        raise OSError(5, "Input/output\nerror")

    monkeypatch.setattr(checks, "processor", broken)
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)  # as if packaging were missing
    assert main(["doctor"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "processor: half" in text
    assert "processor: the check failed (OSError: [Errno 5] Input/output error)" in text
    assert "packages: the check failed (ModuleNotFoundError" in text
    assert "disk: " in text


def test_a_guarded_check_survives_an_exit() -> None:
    def leaves() -> Iterator[Check]:
        raise SystemExit(3)
        yield

    [found] = guarded("x", leaves)
    assert (found.name, found.level) == ("x", "note")


# ---------------------------------------------------------------- a current folder from others


def test_nothing_in_the_current_folder_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither in this process nor in the one that loads the libraries, which are all checked."""
    code = f"open({str(tmp_path / 'canary')!r}, 'w').close()\n"
    for name in ("torch", "numpy", "json", "packaging", "selenium", "olefile", "sitecustomize", "lightning_cifar"):
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([".", str(Path(__file__).parents[1])]))
    assert main(["doctor", "--json"]) in (0, 1)
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)["checks"]}
    assert not (tmp_path / "canary").exists()
    assert {"convolutions", "gpu", "CIFAR10", "pair", "processor", "memory"} <= found.keys()
    assert found["import torch"]["level"] == found["import lightning"]["level"] == "ok"
    assert found["CIFAR10"]["level"] == "note"
    assert found["CIFAR10"]["text"].startswith("not in data: the provided configurations download it")
    assert found["CIFAR10"]["fix"].startswith("lightning-cifar fit --model LeNet --data CIFAR10DataModule --data.root")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
def test_a_fifo_in_place_of_a_file_does_not_block(small_cifar10: Path) -> None:
    (small_cifar10 / "test_batch").unlink()
    os.mkfifo(small_cifar10 / "test_batch")
    [found] = named(libraries.datasets(small_cifar10.parent, small_cifar10.parent), "CIFAR10")
    assert found.level == "fix"
    assert "test_batch" in found.text


def test_a_huge_file_is_not_read(small_cifar10: Path) -> None:
    with (small_cifar10 / "test_batch").open("wb") as file:
        file.truncate(1 << 40)  # sparse
    [found] = named(libraries.datasets(small_cifar10.parent, small_cifar10.parent), "CIFAR10")
    assert found.level == "fix"


@pytest.mark.parametrize("name", ["root", "folder", "file"])
def test_links_out_of_the_current_folder_are_not_followed(
    name: str, small_cifar10: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    link = here / {"root": "data", "folder": "data/cifar-10-batches-py", "file": "data/test_batch"}[name]
    link.parent.mkdir(parents=True)
    target = {"root": small_cifar10.parent, "folder": small_cifar10, "file": small_cifar10 / "test_batch"}[name]
    link.symlink_to(target)
    opened: list[Path] = []
    monkeypatch.setattr(libraries, "_md5", opened.append)
    [found] = named(libraries.datasets(here / "data", here), "CIFAR10")
    assert found.level == "note"
    assert "a link points outside" in found.text
    assert found.fix.startswith("lightning-cifar doctor --root ")
    assert opened == []


# ---------------------------------------------------------------- libraries that break

TORCH = """
class version: cuda = hip = None
class cuda: is_available = staticmethod(lambda: False)
class backends:
    class mps: is_available = staticmethod(lambda: False)
print("a library that prints")
"""


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a fake torch, from which the process imports first."""
    for name in ("torch", "torchvision", "lightning"):
        (tmp_path / name).mkdir()
    (tmp_path / "torch/__init__.py").write_text(TORCH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_a_damaged_torchvision_is_reported(fakes: Path) -> None:
    error = "operator torchvision::nms does not exist"
    (fakes / "torchvision/__init__.py").write_text(f"raise RuntimeError({error!r})")
    found = list(libraries.libraries(fakes, fakes))
    [check] = named(found, "import torchvision")
    assert check.level == "fix"
    assert f"cannot be imported (RuntimeError: {error})" in check.text
    assert check.fix.startswith("python -m pip install --force-reinstall 'torch==2.")
    assert named(found, "import torch")[0].level == "ok"
    assert not named(found, "import lightning"), "it would fail for the same reason"


def test_a_torch_that_cannot_be_imported(fakes: Path) -> None:
    (fakes / "torch/__init__.py").write_text("raise OSError('libtorch.so: cannot open shared object file')")
    found = list(libraries.libraries(fakes, fakes))
    assert named(found, "import torch")[0].level == "fix"
    assert named(found, "convolutions"), "they need no torch"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals")
@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL"),
        ("import os; os._exit(3)", "ended with exit code 3"),
        ("import time; time.sleep(600)", "did not end within 3 seconds"),
    ],
)
def test_a_library_that_ends_or_stops_the_process(fakes: Path, code: str, text: str) -> None:
    (fakes / "torchvision/__init__.py").write_text(code)
    found = list(libraries.libraries(fakes, fakes, longest=3 if "sleep" in code else 300))
    assert named(found, "import torch") or "sleep" in code, "what was reported before is kept"
    [check] = named(found, "libraries")
    assert check.level == "fix"
    assert text in check.text
    assert "loads torchvision" in check.text or "sleep" in code


# ---------------------------------------------------------------- packages


@pytest.mark.parametrize(
    ("torch_version", "vision", "asks", "level", "text"),
    [
        ("2.14.1", "0.29.1", "torch>=2.14.0", "ok", "are compatible"),
        ("2.14.1+cpu", "0.29.1+cpu", "torch==2.14.1", "ok", "are compatible"),
        ("2.14.1+cpu", "0.29.1", "torch>=2.14.0", "note", "are from different indexes"),
        ("2.15.0", "0.29.2", "torch>=2.14.0", "ok", "are compatible"),
        ("2.12.0", "0.29.1", "torch>=2.14.0", "fix", "are not compatible: this torchvision needs torch >=2.14.0"),
        ("2.14.1", "0.29.1", None, "ok", "are compatible"),
    ],
)
def test_pairs(
    torch_version: str, vision: str, asks: str | None, level: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_versions(monkeypatch, {"torch": torch_version, "torchvision": vision}, {"torchvision": [asks] if asks else []})
    [found] = checks.pair()
    assert found.level == level
    assert text in found.text
    assert bool(found.fix) == (level != "ok")


def test_versions_outside_of_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["torch>=2.11,<3", "rich>=13.9", "numpy>=2,<3", 'ray>=2.50; extra == "ray"', 'onnx>=1; extra == "export"']
    there = {"torch": "2.9.1", "numpy": "2.1.0", "ray": "2.1.0", "onnx": "1.18", "lightning-cifar": "1"}
    set_versions(monkeypatch, there, {"lightning-cifar": asked})
    found = [check for check in checks.packages() if check.level != "ok"]
    assert [(each.name, each.level, each.text) for each in found] == [
        ("packages", "fix", "torch is 2.9.1: <3,>=2.11 is needed"),
        ("packages", "fix", "rich is not installed: >=13.9 is needed"),
        ("extra ray", "note", "for studies on a cluster: ray missing, or with another version"),
    ]
    assert found[0].fix == "python -m pip install 'torch<3,>=2.11' torchvision"
    assert found[2].fix == "python -m pip install 'ray>=2.50'"


def test_the_python_version(monkeypatch: pytest.MonkeyPatch) -> None:
    set_versions(monkeypatch, {"lightning-cifar": "1"}, {})
    monkeypatch.setattr(checks.platform, "python_version", lambda: "3.10.2")
    [found] = named(checks.packages(), "packages")
    assert (found.level, found.text) == ("fix", "Python 3.10.2 does not work: >=3.11 is needed")


def test_a_checkout_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    set_versions(monkeypatch, {}, {})
    [found] = checks.packages()
    assert found.level == "note"
    assert "lightning-cifar is not installed" in found.text


def test_every_extra_of_the_project_is_known() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert checks.EXTRAS.keys() <= project["optional-dependencies"].keys()
    assert project["optional-dependencies"].keys() - checks.EXTRAS.keys() <= {"dev", "albumentations", "docs"}


def test_without_a_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: object())
    assert [check.level for check in checks.browser()] == ["note"]
    for name in ("chromium", "chromedriver"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert list(checks.browser()) == []


def test_the_compiled_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "instruction_set", lambda: "avx2")
    assert [check.level for check in libraries.convolutions()] == ["ok"]
    monkeypatch.setattr(convolution, "instruction_set", lambda: "")
    monkeypatch.setattr(convolution, "NOT_BUILT", "they were not compiled")
    [found] = libraries.convolutions()
    assert (found.level, found.text.partition(":")[0]) == ("note", "they were not compiled"), "NumPy takes their place"
    assert "pip install" in found.fix


# ---------------------------------------------------------------- devices and machine


@pytest.mark.parametrize(
    ("num_cards", "computes", "has_driver", "level", "text"),
    [
        (1, True, True, "ok", "cuda:0 is H, 80 GB"),
        (1, False, True, "fix", "a computation fails (no kernel image"),
        (0, True, True, "note", "finds no GPU"),
        (0, True, False, "ok", "training runs on the CPU"),
    ],
)
def test_gpus(
    num_cards: int, computes: bool, has_driver: bool, level: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ones(size: int, device: str) -> torch.Tensor:
        if not computes:
            raise RuntimeError("CUDA error: no kernel image is available".removeprefix("CUDA error: "))
        return torch.zeros(size)

    card = SimpleNamespace(name="H", total_memory=80 * 10**9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_cards)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: card)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch, "ones", ones)
    monkeypatch.setattr(libraries.shutil, "which", lambda name: name if has_driver else None)
    [found] = libraries.gpu()
    assert (found.level, text in found.text) == (level, True), found
    assert bool(found.fix) == (level != "ok")


def test_memory_counts_the_limit_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.os, "sysconf", {"SC_PHYS_PAGES": 2_000_000, "SC_PAGE_SIZE": 4000}.get)
    texts = {"/sys/fs/cgroup/memory.max": "max\n"}
    monkeypatch.setattr(checks, "_read", lambda path: texts.get(path, ""))
    assert list(checks.memory()) == [Check("memory", "ok", "8 GB")]
    texts["/sys/fs/cgroup/memory.max"] = "1000000000\n"
    [found] = checks.memory()
    assert (found.level, found.text.partition(":")[0]) == ("note", "1 GB")


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: SimpleNamespace(free=1e8))
    assert [check.level for check in checks.disk()] == ["fix"]


# ---------------------------------------------------------------- data


@pytest.fixture
def small_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with seven small files, whose checksums are accepted."""
    folder = tmp_path / "elsewhere" / sources.FOLDER
    folder.mkdir(parents=True)
    for name in sources.OFFICIAL_MD5:
        (folder / name).write_text(name)
        monkeypatch.setitem(sources.OFFICIAL_MD5, name, hashlib.md5(name.encode()).hexdigest())
    return folder


def cifar10(root: Path) -> Check:
    [found] = named(libraries.datasets(root, root), "CIFAR10")
    return found


def test_complete_data(small_cifar10: Path) -> None:
    root = small_cifar10.parent
    assert list(libraries.datasets(root, root)) == [
        Check("CIFAR10", "ok", f"complete in {root}, all checksums correct")
    ], "nothing is said of data sets that are not there"
    assert cifar10(small_cifar10).level == "ok", "the folder itself is found, too"


def test_a_missing_file_is_downloaded(small_cifar10: Path) -> None:
    (small_cifar10 / "data_batch_3").unlink()
    found = cifar10(small_cifar10.parent)
    assert (found.level, "data_batch_3 missing in" in found.text) == ("note", True)
    assert found.fix.endswith(f"--data.root {small_cifar10.parent} --data.download true --trainer.fast_dev_run true")


def test_a_damaged_file(small_cifar10: Path) -> None:
    (small_cifar10 / "test_batch").write_text("altered")
    found = cifar10(small_cifar10.parent)
    assert found.level == "fix"
    assert found.fix.startswith(f"rm {small_cifar10 / 'test_batch'} && lightning-cifar fit ")


def test_another_version_of_the_data_is_only_noted(small_cifar10: Path) -> None:
    for path in small_cifar10.iterdir():
        path.write_text("altered")
    found = cifar10(small_cifar10.parent)
    assert (found.level, "--data.verify false" in found.fix) == ("note", True)


def test_missing_data(tmp_path: Path) -> None:
    found = cifar10(tmp_path / "a b")
    assert (found.level, "the provided configurations download it" in found.text) == ("note", True)
    assert f"--data.root '{tmp_path / 'a b'}' --data.download true" in found.fix


def test_shipped_configurations_download_as_the_text_says() -> None:
    import yaml

    folder = Path(__file__).parents[1] / "configs"
    contents = [yaml.safe_load(path.read_text()) for path in folder.rglob("*.yaml")]
    sections = [content["data"] for content in contents if isinstance(content, dict) and "data" in content]
    cifar = [section["init_args"] for section in sections if "CIFAR10" in section.get("class_path", "")]
    assert cifar
    assert all(settings.get("download") is True for settings in cifar)


def test_incomplete_mnist(tmp_path: Path) -> None:
    (tmp_path / "MNIST/raw").mkdir(parents=True)
    (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte.gz").write_text("x")
    [found] = named(libraries.datasets(tmp_path, tmp_path), "MNIST")
    assert (found.level, "train-images" in found.text) == ("note", True)
    assert "MNISTDataModule" in found.fix


@pytest.mark.parametrize("name", ["t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte", "t10k-labels-idx1-ubyte.gz"])
def test_a_damaged_file_of_mnist(name: str, tmp_path: Path) -> None:
    """Check all usual names."""
    folder = tmp_path / "MNIST/raw"
    folder.mkdir(parents=True)
    for file in sources.MNIST.files:
        (folder / f"{file.name}.gz").write_text("x")
    (folder / "t10k-labels-idx1-ubyte.gz").rename(folder / name)
    [found] = named(libraries.datasets(tmp_path, tmp_path), "MNIST")
    assert "checksums of all files" in found.text, "all four are found and compared"


def test_an_archive_cut_short(tmp_path: Path) -> None:
    (tmp_path / sources.ARCHIVE).write_text("short")
    found = cifar10(tmp_path)
    assert found.level == "fix"
    assert found.fix.startswith("rm ")
