"""Each thing that can be wrong, simulated: what is told of it, and the exit code."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lightning_cifar.cli import main
from lightning_cifar.commands.doctor import datasets, environment, findings, machine, packages
from lightning_cifar.commands.doctor import library_checks as inside
from lightning_cifar.commands.doctor.findings import Fact, Finding, Told, guarded, redact
from lightning_cifar.commands.doctor.library_checks import Card, judge_convolutions, judge_cuda
from lightning_cifar.commands.doctor.library_process import broke_off, libraries
from lightning_cifar.errors import UsageError


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of one's own, in which the doctor loads no library."""
    monkeypatch.setattr("lightning_cifar.commands.doctor.library_process.libraries", lambda roots: iter(()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def of(told: Iterator[Told] | Sequence[Told], matter: str) -> list[Finding]:
    return [each for each in told if isinstance(each, Finding) and each.matter == matter]


def set_versions(monkeypatch: pytest.MonkeyPatch, found: dict[str, str], asked: dict[str, list[str]]) -> None:
    """Let the metadata of installed packages be these."""

    def version(name: str) -> str:
        if name not in found:
            raise PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(packages, "version", version)
    monkeypatch.setattr(packages, "requires", asked.get)


# ---------------------------------------------------------------- the command


def test_a_mismatched_pair_is_one_line_with_a_command_and_exit_code_1(
    quick: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"torchvision": ["numpy", "torch (==2.13.0)"], "lightning-cifar": ["torch>=2.11,<3"]}
    set_versions(monkeypatch, {"torch": "2.14.1+cpu", "torchvision": "0.28.0+cpu"}, asked)
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith("  fix "))
    assert lines[row : row + 3] == [
        "  fix   torchvision 0.28.0+cpu does not fit torch 2.14.1+cpu, since it asks for torch ==2.13.0: no",
        "        command that trains starts",
        "        > python -m pip install --force-reinstall 'torch==2.14.*' torchvision "
        "--index-url https://download.pytorch.org/whl/cpu",
    ]
    assert lines[-1].startswith("1 to fix, ")


def test_exit_code_0_without_anything_to_fix(
    quick: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_versions(monkeypatch, {"torch": "2.14.1", "torchvision": "0.29.1"}, {"torchvision": ["torch>=2.14.0"]})
    monkeypatch.setattr(machine, "memory_bytes", lambda: (16e9, 8e9))
    assert main(["doctor"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert "  ok    torch 2.14.1 and torchvision 0.29.1 are a pair\n" in output.out
    assert "\n0 to fix, " in output.out
    assert max(map(len, output.out.splitlines())) <= 100
    assert "\x1b" not in output.out, "colours are for terminals"


def test_json_holds_the_same(quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (quick / "runs").write_text("a file")
    assert main(["doctor", "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["facts"]["versions"]["python"].startswith("{}.{}.".format(*sys.version_info))
    assert content["facts"]["machine"]["cores"]
    assert content["fixes"] == sum(each["level"] == "fix" for each in content["findings"])
    [found] = [each for each in content["findings"] if each["matter"] == "runs"]
    assert found == {
        "matter": "runs",
        "level": "fix",
        "what": "runs is a file",
        "consequence": "runs cannot be written: each command needs --run_dir",
        "fix": "mv runs runs.old",
    }
    assert [each["level"] for each in content["findings"]] == sorted(
        (each["level"] for each in content["findings"]), key=["ok", "note", "fix"].index
    )


def test_a_terminal_that_cannot_show_a_name(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_CIFAR_FAULTS", "\N{LATIN SMALL LETTER A WITH DIAERESIS}")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    main(["doctor"])
    stream.flush()
    assert b"LIGHTNING_CIFAR_FAULTS=\\xe4 is set" in stream.buffer.getvalue()  # type: ignore[attr-defined]


def test_a_wrong_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--jsn"]) == 2
    assert "there is no option --jsn. Did you mean --json?" in capsys.readouterr().err


def test_the_whole_of_it_here_names_neither_user_nor_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "mallory"
    (home / "data").mkdir(parents=True)
    monkeypatch.chdir(home)
    for name, value in {"HOME": str(home), "USER": "mallory", "LIGHTNING_CIFAR_DATA": f"{home}/data"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(findings.platform, "node", lambda: "workstation-7.example.org")
    monkeypatch.setenv("LIGHTNING_CIFAR_FAULTS", "workstation-7 \x1b[31m")
    main(["doctor", "--json"])
    text = capsys.readouterr().out
    content = json.loads(text)
    for name in ("mallory", "workstation", str(tmp_path), "u001b"):
        assert name not in text
    assert content["facts"]["data"]["CIFAR10 in ~/data"] == "not there"
    assert content["facts"]["environment"]["LIGHTNING_CIFAR_FAULTS"] == "<host>  [31m"
    matters = {each["matter"]: each for each in content["findings"]}
    assert matters["import torch"]["level"] == matters["import lightning"]["level"] == "ok"
    assert {"convolutions", "cuda", "CIFAR10", "pair", "python"} <= matters.keys()
    assert matters["CIFAR10"]["level"] == "note"
    assert matters["CIFAR10"]["fix"].startswith(
        "lightning-cifar fit --model LeNet --data CIFAR10DataModule --data.root"
    )
    assert {"processor", "memory", "vector instructions"} <= content["facts"]["machine"].keys()
    assert content["facts"]["backends"]["BF16"]


def test_a_probe_that_breaks_is_a_finding_and_the_others_go_on(
    quick: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Iterator[Told]:
        yield Fact("machine", "processor", "half")
        raise OSError(5, "Input/output\nerror")

    monkeypatch.setattr(machine, "processor", broken)
    monkeypatch.delattr("lightning_cifar.commands.doctor.packages")
    monkeypatch.setitem(sys.modules, "lightning_cifar.commands.doctor.packages", None)  # as if packaging were missing
    main(["doctor"])
    text = " ".join(capsys.readouterr().out.split())
    assert "the processor could not be looked at (OSError: [Errno 5] Input/output error)" in text
    assert "half" in text
    assert "the packages (pair) could not be looked at (ModuleNotFoundError" in text
    assert "runs can be written" in text


def test_names_are_left_out_of_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("USER", "ann")
    monkeypatch.setattr(findings.platform, "node", lambda: "box1")
    assert redact("/home/ann/x, /home/anna, /mnt/ann/y, an annotation on box1 not box12") == (
        "~/x, /home/anna, /mnt/<user>/y, an annotation on <host> not box12"
    )


def test_a_guarded_probe_survives_an_exit() -> None:
    def leaves() -> Iterator[Told]:
        raise SystemExit(3)
        yield

    [told] = guarded(leaves, "x")
    assert isinstance(told, Finding)
    assert told.level == "note"


# ---------------------------------------------------------------- libraries that break

TORCH = """
class version: cuda = hip = None
class cuda:
    is_available = staticmethod(lambda: False)
    get_arch_list = staticmethod(lambda: [])
class backends:
    class mps: is_built = is_available = staticmethod(lambda: False)
    class mkldnn: is_available = staticmethod(lambda: True)
    class cpu: get_cpu_capability = staticmethod(lambda: "AVX2")
get_num_threads = lambda: 1
print("a library that talks")
"""


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place before all others to import from, with a small torch."""
    for name in ("torch", "torchvision", "lightning"):
        (tmp_path / name).mkdir()
    (tmp_path / "torch/__init__.py").write_text(TORCH)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_damaged_torchvision_is_told_and_takes_nothing_down(fakes: Path) -> None:
    error = "operator torchvision::nms does not exist"
    (fakes / "torchvision/__init__.py").write_text(f"raise RuntimeError({error!r})")
    told = list(libraries([fakes]))
    [found] = of(told, "import torchvision")
    assert found.level == "fix"
    assert f"cannot be imported (RuntimeError: {error})" in found.what
    assert found.fix.startswith("python -m pip install --force-reinstall 'torch==2.")
    assert of(told, "import torch")[0].level == "ok"
    assert not of(told, "import lightning"), "it would break on the same"
    assert of(told, "data")[0].level == "note"
    assert Fact("backends", "torch on the CPU", "AVX2") in told


def test_a_torch_that_cannot_be_imported(fakes: Path) -> None:
    (fakes / "torch/__init__.py").write_text("raise OSError('libtorch.so: cannot open shared object file')")
    told = list(libraries([fakes]))
    assert of(told, "import torch")[0].level == "fix"
    assert of(told, "import torch")[0].consequence == "no command that trains starts"
    assert of(told, "convolutions")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no signals")
def test_a_library_that_ends_the_process(fakes: Path) -> None:
    (fakes / "torchvision/__init__.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    told = list(libraries([fakes]))
    assert of(told, "import torch")[0].level == "ok", "what was told before is kept"
    [found] = of(told, "libraries")
    assert found.level == "fix"
    assert found.what == "the process that looked at torchvision was ended by SIGKILL"


def test_a_library_that_hangs(fakes: Path) -> None:
    (fakes / "torchvision/__init__.py").write_text("import time; time.sleep(60)")
    told = list(libraries([fakes], longest=2))
    assert of(told, "libraries")[0].what == "the process that looked at torchvision did not end within 2 seconds"


def test_how_a_process_can_break_off() -> None:
    assert broke_off("torch", 3, 9).what.endswith("torch ended with the code 3")
    assert broke_off("torch", -11, 9).what.endswith("was ended by SIGSEGV")


# ---------------------------------------------------------------- packages


@pytest.mark.parametrize(
    ("torch", "vision", "asks", "level", "what"),
    [
        ("2.14.1", "0.29.1", "torch>=2.14.0", "ok", "are a pair"),
        ("2.14.1+cpu", "0.29.1+cpu", "torch==2.14.1", "ok", "are a pair"),
        ("2.14.1+cpu", "0.29.1", "torch>=2.14.0", "note", "are from different indexes"),
        ("2.15.0", "0.29.2", "torch>=2.14.0", "ok", "are a pair"),
        ("2.12.0", "0.29.1", "torch>=2.14.0", "fix", "does not fit torch 2.12.0, since it asks for torch >=2.14.0"),
        ("2.14.1", "0.29.1", None, "ok", "are a pair"),
    ],
)
def test_pairs(torch: str, vision: str, asks: str | None, level: str, what: str) -> None:
    found = packages.judge_pair(torch, vision, None if asks is None else Requirement(asks))
    assert found.level == level
    assert what in found.what
    assert bool(found.fix) == (level != "ok")


def test_versions_outside_of_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["torch>=2.11,<3", "rich>=13.9", "numpy>=2,<3", 'ray>=2.50; extra == "ray"', 'onnx>=1; extra == "export"']
    there = {"torch": "2.9.1", "numpy": "2.1.0", "ray": "2.1.0"}
    set_versions(monkeypatch, there, {"lightning-cifar": asked})
    found = of(packages.requirements(), "requirements")
    assert [(each.level, each.what) for each in found] == [
        ("fix", "torch 2.9.1 is not <3,>=2.11"),
        ("fix", "rich is not installed"),
        ("note", "ray 2.1.0 is not >=2.50"),
    ]
    assert found[0].fix == "python -m pip install 'torch<3,>=2.11' torchvision"


def test_a_checkout_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packages, "requires", requires)
    [found] = of(packages.requirements(), "requirements")
    assert (found.level, found.what) == ("note", "the package lightning-cifar is not installed")


def test_without_a_compiler_and_a_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert packages.compiler() == ""
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: object())
    told = list(packages.tools())
    assert Fact("tools", "C compiler", "none found") in told
    assert of(told, "browser")[0].what == "there is no Chromium"
    (tmp_path / "clang").write_text("#!/bin/sh\n")
    (tmp_path / "clang").chmod(0o755)
    assert packages.compiler() == "clang"


@pytest.mark.parametrize(
    ("reason", "compiler", "what", "fix"),
    [
        ("they were not compiled", "", "not built, and there is no C compiler", " && python -m pip install"),
        ("they were not compiled", "cc", "the compiled convolutions are not built", "python -m pip install --force"),
        ("LIGHTNING_CIFAR_EXT_DISABLE is set", "cc", "are switched off", "unset LIGHTNING_CIFAR_EXT_DISABLE"),
    ],
)
def test_without_the_compiled_convolutions(reason: str, compiler: str, what: str, fix: str) -> None:
    found = judge_convolutions("", reason, compiler)
    assert found.level == "note", "NumPy takes their place"
    assert what in found.what
    assert fix in found.fix


def test_with_the_compiled_convolutions() -> None:
    assert judge_convolutions("avx2", "", "").level == "ok"


# ---------------------------------------------------------------- devices

H, OLD = Card("H", 80 * 10**9, (9, 0)), Card("Old", 2 * 10**9, (3, 5))


@pytest.mark.parametrize(
    ("built", "cards", "has_card", "has_driver", "hidden", "level", "what"),
    [
        ("13.0", [H], True, True, None, "ok", "torch sees 1 graphics card"),
        ("13.0", [H, OLD], True, True, None, "fix", "no code for Old"),
        ("13.0", [], True, False, None, "fix", "there is no driver"),
        ("13.0", [], True, True, None, "fix", "the driver may be too old"),
        ("13.0", [], True, True, "", "note", "hides the graphics cards"),
        ("13.0", [], False, False, "", "note", "neither a driver nor an NVIDIA card"),
        (None, [], True, True, None, "note", "torch is built without CUDA"),
        (None, [], False, False, None, "ok", "there is no NVIDIA card"),
    ],
)
def test_cards_and_drivers(
    built: str | None, cards: list[Card], has_card: bool, has_driver: bool, hidden: str | None, level: str, what: str
) -> None:
    found = judge_cuda(built, cards, ["sm_75", "sm_90", "compute_90"], has_card, has_driver, hidden)
    assert (found.level, what in found.what) == (level, True), found
    assert bool(found.fix) == (level != "ok")


@pytest.mark.parametrize(
    ("archs", "capability", "is_supported"),
    [
        (["sm_80"], (8, 6), True),
        (["sm_86"], (8, 0), False),
        (["sm_80"], (9, 0), False),
        (["compute_80"], (9, 0), True),
        (["sm_90a", "sm_120"], (12, 0), True),
        ([], (7, 0), True),
    ],
)
def test_code_for_a_capability(archs: list[str], capability: tuple[int, int], is_supported: bool) -> None:
    assert inside._supports(archs, capability) == is_supported


def test_what_bf16_means_for_the_precision() -> None:
    assert "bf16-mixed trains faster" in inside.bf16(False, False, "AMX BF16").value
    assert "bf16-mixed trains faster" in inside.bf16(True, True, "").value
    assert "16-mixed is the fast one" in inside.bf16(False, True, "AMX BF16").value
    assert "would be slower" in inside.bf16(False, False, "").value


# ---------------------------------------------------------------- machine and environment


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.judge_memory(1e9, 0.5e9).level == "fix"
    assert machine.judge_memory(16e9, 1e9).level == "note"
    assert machine.judge_memory(16e9, 0.0).level == "ok"
    texts = {"/proc/meminfo": "MemTotal:       8000000 kB\nMemAvailable:    6000000 kB\n"}
    monkeypatch.setattr(machine, "_read", lambda path: texts.get(str(path), ""))
    assert machine.memory_bytes() == (8.192e9, 6.144e9)
    texts |= {"/sys/fs/cgroup/memory.max": "1000000000\n", "/sys/fs/cgroup/memory.current": "400000000\n"}
    assert machine.memory_bytes() == (1e9, 0.6e9), "the limit of a container counts"
    texts["/sys/fs/cgroup/memory.max"] = "max\n"
    assert machine.memory_bytes()[0] == 8.192e9


def test_the_processor_of_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"/proc/cpuinfo": "processor : 0\nFeatures : fp asimd bf16\n"}
    monkeypatch.setattr(machine, "_read", lambda path: texts.get(str(path), ""))
    assert Fact("machine", "vector instructions", "NEON, BF16") in machine.processor()


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1e8

    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: Usage)
    assert of(machine.disk(), "disk")[0].level == "fix"


def test_pythons() -> None:
    levels = [environment.judge_python(version).level for version in ((3, 10), (3, 11), (3, 12), (3, 14))]
    assert levels == ["fix", "ok", "ok", "note"]


def test_a_terminal_without_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    [found] = of(list(environment.terminal()), "encoding")
    assert found.level == "note"
    assert "PYTHONUTF8=1" in found.fix


@pytest.mark.parametrize(
    ("name", "value", "level", "consequence"),
    [
        ("LIGHTNING_CIFAR_RUN_DIR", "runs/x", "fix", "every run writes there"),
        ("LIGHTNING_CIFAR_TRACEBACK", "1", "note", "errors come with a traceback"),
        ("LIGHTNING_CIFAR_EXT_THREADS", "two", "fix", "must be a positive number"),
        ("LIGHTNING_CIFAR_EXT_THREADS", "2", "note", "use that many threads"),
        ("LIGHTNING_CIFAR_EXT_ISA", "sse", "fix", "must be avx512, avx2 or portable"),
        ("LIGHTNING_CIFAR_DATE", "x", "note", "nothing reads it. Did you mean LIGHTNING_CIFAR_DATA?"),
    ],
)
def test_variables_of_ours(name: str, value: str, level: str, consequence: str) -> None:
    [found] = of(environment.judge_variables({name: value, "OTHER": "x"}, 4), name)
    assert found.level == level
    assert consequence in found.consequence
    assert found.fix == f"unset {name}"


@pytest.mark.parametrize(
    ("value", "said"), [("8", "wait for each other"), ("1", "unused"), ("x", "ignored"), ("4", "")]
)
def test_an_odd_number_of_threads(value: str, said: str) -> None:
    found = of(environment.judge_variables({"OMP_NUM_THREADS": value}, 4), "threads")
    assert [each.level for each in found] == (["note"] if said else [])
    assert all(said in each.consequence for each in found)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.judge_runs_folder(tmp_path / "runs").level == "ok"
    monkeypatch.setattr(environment.os, "access", lambda path, mode: False)
    assert environment.judge_runs_folder(tmp_path / "runs").level == "fix"


# ---------------------------------------------------------------- data


@pytest.fixture
def small_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with seven small files, taken for those that were published."""
    from lightning_cifar.data import sources

    folder = tmp_path / sources.FOLDER
    folder.mkdir()
    for name in sources.OFFICIAL_MD5:
        (folder / name).write_text(name)
        monkeypatch.setitem(sources.OFFICIAL_MD5, name, hashlib.md5(name.encode()).hexdigest())
    return folder


def test_data_that_are_complete(small_cifar10: Path) -> None:
    told = list(datasets.datasets([small_cifar10.parent]))
    assert of(told, "CIFAR10")[0].level == "ok"
    assert Fact("data", f"CIFAR10 in {small_cifar10.parent}", "complete, checksums as published") in told
    assert Fact("data", f"MNIST in {small_cifar10.parent}", "not there") in told
    assert not of(told, "MNIST")


def test_half_of_the_data(small_cifar10: Path) -> None:
    (small_cifar10 / "data_batch_3").unlink()
    (small_cifar10.parent / "cifar-10-python.tar.gz.part").write_text("x")
    told = list(datasets.datasets([small_cifar10.parent]))
    [found] = of(told, "CIFAR10")
    assert (found.level, found.what) == ("fix", f"CIFAR10 in {small_cifar10.parent} lacks data_batch_3")
    assert found.fix.endswith(f"--data.root {small_cifar10.parent} --data.download true --trainer.fast_dev_run true")
    assert "incomplete: 6 of 7 files, a download broke off" in {each.value for each in told if isinstance(each, Fact)}


def test_a_damaged_file(small_cifar10: Path) -> None:
    (small_cifar10 / "test_batch").write_text("altered")
    [found] = of(list(datasets.datasets([small_cifar10.parent])), "CIFAR10")
    assert found.level == "fix"
    assert found.fix.startswith(f"rm {small_cifar10 / 'test_batch'} && lightning-cifar fit ")


def test_another_copy_is_no_mistake(small_cifar10: Path) -> None:
    for path in small_cifar10.iterdir():
        path.write_text("altered")
    [found] = of(list(datasets.datasets([small_cifar10.parent])), "CIFAR10")
    assert (found.level, found.fix) == ("note", "pass --data.verify false")


def test_missing_data(tmp_path: Path) -> None:
    told = list(datasets.datasets([tmp_path / "a b", tmp_path]))
    [found] = of(told, "CIFAR10")
    assert (found.level, found.what) == ("note", f"CIFAR-10 is not in {tmp_path / 'a b'} or {tmp_path}")
    assert f"--data.root '{tmp_path / 'a b'}' --data.download true" in found.fix


def test_half_of_mnist(tmp_path: Path) -> None:
    (tmp_path / "MNIST/raw").mkdir(parents=True)
    (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte.gz").write_text("x")
    [found] = of(list(datasets.datasets([tmp_path])), "MNIST")
    assert found.level == "fix"
    assert "MNISTDataModule" in found.fix


def test_an_archive_cut_short(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_text("short")
    [found] = of(list(datasets.datasets([tmp_path])), "CIFAR10")
    assert found.level == "fix"
    assert found.fix.startswith("rm ")


def test_the_parser_refuses_words() -> None:
    from lightning_cifar.commands.doctor.command import main as doctor

    with pytest.raises(UsageError, match="everything"):
        doctor(["everything"])
