"""Only plain values from an allow-list are taken from a checkpoint. See "Trust model" in docs/reliability.md."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lightning_cifar import cli
from lightning_cifar.checkpoints import io as checkpoint_io
from lightning_cifar.checkpoints import reading
from lightning_cifar.checkpoints.reading import CONFIG_KEY, Checkpoint
from lightning_cifar.checkpoints.settings import trained_settings

SIZES = ["--data.num_train", "32", "--data.num_val", "16", "--data.num_test", "16", "--data.batch_size", "16"]
QUIET = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
FIT = ["fit", "--model", "LeNet", "--data", "SyntheticDataModule", *SIZES, *QUIET, "--trainer.max_epochs", "1"]
CANARY = "canary"
EVIL = f"open({CANARY!r}, 'w').close()\nfrom lightning_cifar import LeNet, SyntheticDataModule\n"
EVIL += "class Net(LeNet): pass\nclass Data(SyntheticDataModule): pass\n"
POPEN = {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", CANARY]}}
NUMBERS = {"num_train": 32, "num_val": 16, "num_test": 16, "batch_size": 16}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a run of one epoch."""
    folder = tmp_path_factory.mktemp("honest")
    assert cli.main([*FIT, "--run_dir", str(folder / "run")]) == 0
    return folder / "run/checkpoints/last.ckpt"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder inside another one, in which no file may appear."""
    inside = tmp_path / "outside" / "inside"
    (inside / "images").mkdir(parents=True)
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(inside / "images/a.png")
    (inside / "evil.py").write_text(EVIL)
    monkeypatch.chdir(inside)
    monkeypatch.syspath_prepend("")  # so that only the rules of the package keep the module out
    return inside


def forge(honest: Path, config: dict[str, Any] | None = None, **content: object) -> str:
    """Write a checkpoint with another configuration."""
    held = torch.load(honest, weights_only=True)
    if config is not None:
        held[CONFIG_KEY] = yaml.safe_dump(yaml.safe_load(held[CONFIG_KEY]) | config)
    torch.save(held | content, "evil.ckpt")
    return "evil.ckpt"


COMMANDS = {
    "fit": ["fit", "--trainer.max_epochs", "2", "--run_dir", "run", *QUIET],
    "test": ["test", "--run_dir", "run", *QUIET],
    "validate": ["validate", "--run_dir", "run", *QUIET],
    "predict": ["predict", "--run_dir", "run", *QUIET],
    "explain": ["explain", "--images", "images", "--out", "out", "--stride", "16"],
    "export": ["export", "--format", "safetensors", "--out", "out.safetensors"],
}


def run(command: str, checkpoint: str) -> int:
    option = [] if command == "export" else ["--ckpt_path"]
    return cli.main([COMMANDS[command][0], *option, checkpoint, *COMMANDS[command][1:]])


def check_nothing_happened(here: Path) -> None:
    assert not list(here.rglob(f"*{CANARY}*")), "it was executed"
    assert "evil" not in sys.modules
    assert [path.name for path in here.parent.iterdir()] == ["inside"], "it wrote outside"


@pytest.mark.parametrize(
    ("config", "content"),
    [
        pytest.param({"data": POPEN}, {}, id="a program as data"),
        pytest.param({"data": {"class_path": "evil.Data", "init_args": NUMBERS}}, {}, id="data of a file beside"),
        pytest.param({"model": POPEN}, {"class_path": "subprocess.Popen"}, id="a program as model"),
        pytest.param({"model": {"class_path": "evil.Net"}}, {"class_path": "evil.Net"}, id="model of a file beside"),
        pytest.param(
            {"model": {"class_path": "SideBySide", "init_args": {"members": {"a": {"class_path": "evil.Net"}}}}},
            {"class_path": "SideBySide", "hyper_parameters": {"members": {"a": {"class_path": "evil.Net"}}}},
            id="a member of a file beside",
        ),
    ],
)
@pytest.mark.parametrize(
    "command", [pytest.param(name, marks=[] if name == "test" else pytest.mark.slow) for name in COMMANDS]
)
def test_a_class_that_a_checkpoint_names_is_not_imported(
    honest: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    config: dict[str, Any],
    content: dict[str, Any],
) -> None:
    assert run(command, forge(honest, config, **content)) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "evil.ckpt" in message or "evil.Net" in message
    check_nothing_happened(here)


@pytest.mark.parametrize("option", [["--run_dir", "run"], ["--run_dir", "evil.Net"]])
def test_a_file_name_does_not_allow_a_class(honest: Path, here: Path, option: list[str]) -> None:
    (here / "evil.py").write_text(EVIL + "class ckpt(LeNet): pass\n")
    name = "evil.ckpt" if "run" in option else "evil.Net"
    path = forge(honest, {"model": {"class_path": name}}, class_path=name)
    assert cli.main(["test", "--ckpt_path", path, *option, *QUIET]) == 2
    check_nothing_happened(here)


SQUEEZENET = {"class_path": "PretrainedSqueezeNet", "init_args": {"arch": "squeezenet1_1"}}


@pytest.mark.parametrize("place", ["alone", "member"])
def test_weights_that_the_user_does_not_name_are_not_downloaded(honest: Path, here: Path, place: str) -> None:
    model: dict[str, Any] = SQUEEZENET
    if place == "member":
        model = {"class_path": "SideBySide", "init_args": {"members": {"a": SQUEEZENET}}}
    path = forge(honest, {"model": model}, class_path=model["class_path"], hyper_parameters=model["init_args"])
    settings, _ = trained_settings(Checkpoint.read(Path(path)), of_fit=False)
    taken = settings["model"]["init_args"]
    taken = taken["members"]["a"]["init_args"] if place == "member" else taken
    assert taken == {"arch": "squeezenet1_1", "weights": None}


def test_the_module_of_a_member_class_is_not_imported(honest: Path, here: Path) -> None:
    arguments = {"members": {"a": {"class_path": "lightning_cifar.__main__.LeNet"}}}
    model = {"class_path": "SideBySide", "init_args": arguments}
    path = forge(honest, {"model": model}, class_path="SideBySide", hyper_parameters=arguments)
    settings, _ = trained_settings(Checkpoint.read(Path(path)), of_fit=False)
    assert settings["model"]["init_args"]["members"]["a"]["class_path"] == "lightning_cifar.LeNet"


def test_escape_sequences_do_not_reach_the_terminal(
    honest: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", forge(honest, class_path="\x1b[31mNet")) == 2
    assert "\x1b" not in capsys.readouterr().err


TRAINER = {
    "a callback that calls": {
        "callbacks": [
            {
                "class_path": "lightning.pytorch.callbacks.LambdaCallback",
                "init_args": {"on_train_epoch_start": "evil.Net"},
            }
        ]
    },
    "ModelCheckpoint": {"callbacks": [{"class_path": "ModelCheckpoint", "init_args": {"dirpath": "../canary"}}]},
    "CSVLogger": {"logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "docs/canary"}}},
    "a profiler": {"profiler": {"class_path": "SimpleProfiler", "init_args": {"dirpath": "canary", "filename": "x"}}},
    "a strategy": {"strategy": POPEN},
    "a plugin": {"plugins": [POPEN]},
    "a root folder": {"default_root_dir": "../canary"},
}


@pytest.mark.parametrize(
    "trainer",
    [pytest.param(TRAINER[name], id=name, marks=[] if i < 2 else pytest.mark.slow) for i, name in enumerate(TRAINER)],
)
def test_only_numbers_of_the_trainer_are_taken(honest: Path, here: Path, trainer: dict[str, Any]) -> None:
    path = forge(honest, {"trainer": {"max_epochs": 5, **trainer}, "run_dir": "../canary"})
    assert run("fit", path) == 0
    config = yaml.safe_load((here / "run/config.yaml").read_text())
    assert config["trainer"]["callbacks"] is None
    check_nothing_happened(here)


def test_neither_paths_nor_addresses_of_the_data_are_taken(honest: Path, here: Path) -> None:
    arguments = {"root": "../canary", "download": True, "url": "http://127.0.0.1:9/x", "verify": True, **NUMBERS}
    arguments["albumentations"] = "../canary.yaml"
    del arguments["num_test"]
    path = forge(honest, {"data": {"class_path": "CIFAR10DataModule", "init_args": arguments}})
    settings, left_out = trained_settings(Checkpoint.read(Path(path)), of_fit=False)
    taken = settings["data"]["init_args"]
    assert taken == {"verify": True, "num_train": 32, "num_val": 16, "batch_size": 16}
    assert set(left_out) == {f"data.{name}" for name in ("root", "download", "url", "albumentations")}


def test_long_lists_and_huge_numbers_are_not_taken(honest: Path, here: Path) -> None:
    limit = 2**63
    arguments = {"num_train": -limit, "num_val": limit - 1, "mean": [0.5] * 10_001, "std": [0.5] * 10_000}
    trainer = {"max_epochs": limit, "max_steps": 1 - limit, "limit_val_batches": [limit]}
    config = {"seed_everything": limit, "trainer": trainer}
    config["data"] = {"class_path": "SyntheticDataModule", "init_args": arguments | {"class_names": ["a"] * 10_001}}
    settings, _ = trained_settings(Checkpoint.read(Path(forge(honest, config))), of_fit=True)
    assert "seed_everything" not in settings
    assert settings["data"]["init_args"] == {"num_val": limit - 1, "std": [0.5] * 10_000}
    assert settings["trainer"] == {"max_steps": 1 - limit}


@pytest.mark.parametrize("settings", [{"lr": 10**400}, {"num_classes": 2**63}, {"milestones": [0.5] * 10_001}])
@pytest.mark.parametrize("command", ["test", "export"])
def test_a_long_list_and_a_huge_number_of_the_model_are_named(
    honest: Path, here: Path, capsys: pytest.CaptureFixture[str], command: str, settings: dict[str, Any]
) -> None:
    held = torch.load(honest, weights_only=True)["hyper_parameters"]
    assert run(command, forge(honest, hyper_parameters={**held, **settings})) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    (name,) = settings
    assert f"evil.ckpt: its setting {name} (type " in message
    assert "is not a plain value of limited size" in message


def test_a_class_named_by_the_user_is_allowed(honest: Path, here: Path) -> None:
    path = forge(honest, {"model": {"class_path": "evil.Net", "init_args": {"lr": 0.1}}}, class_path="evil.Net")
    try:
        assert cli.main(["test", "--ckpt_path", path, "--model", "evil.Net", "--run_dir", "run", *QUIET]) == 0
        assert (
            cli.main(["export", path, "--model", "evil.Net", "--format", "safetensors", "--out", "a.safetensors"]) == 0
        )
    finally:
        sys.modules.pop("evil", None)
    assert (here / CANARY).exists()


@pytest.mark.parametrize("command", ["test", "export", "explain"])
def test_settings_of_the_lightning_command_line_are_accepted(honest: Path, here: Path, command: str) -> None:
    held = torch.load(honest, weights_only=True)["hyper_parameters"]
    held |= {"_instantiator": "lightning.pytorch.cli.instantiate_module", "_class_path": "lightning_cifar.LeNet"}
    assert run(command, forge(honest, hyper_parameters=held)) == 0


@pytest.mark.parametrize("command", ["test", "export", "explain"])
def test_a_setting_of_another_version_is_named(
    honest: Path, here: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    held = torch.load(honest, weights_only=True)["hyper_parameters"]
    assert run(command, forge(honest, hyper_parameters={**held, "gone": 1})) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "evil.ckpt was written by another version: its setting model.gone" in message


@pytest.mark.parametrize("command", [*COMMANDS, "resume"])
def test_a_checkpoint_is_read_once_for_a_command(
    honest: Path, here: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    os.symlink(honest.parents[1], here / "before")
    read: list[Path] = []
    for module in (reading, checkpoint_io):
        original = module.read_verified

        def counting(path: Path, original: Any = original) -> bytes:
            read.append(path)
            return original(path)

        monkeypatch.setattr(module, "read_verified", counting)
    if command == "resume":
        folder = shutil.copytree(honest.parents[1], here / "resumed")  # the other tests need the original
        assert cli.main(["fit", "--resume", str(folder), "--trainer.max_epochs", "2", *QUIET]) == 0
        assert [path.name for path in read] == ["resume.ckpt"]
    else:
        assert run(command, str(honest)) == 0
        assert read == [honest]


def test_libraries_do_not_import_modules_of_the_current_folder(tmp_path: Path) -> None:
    """Pillow imports defusedxml and olefile if they exist; here they exist only in the current folder."""
    for name in ("olefile", "defusedxml", "org"):
        (tmp_path / f"{name}.py").write_text(f"open({CANARY!r}, 'w')")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("model: {class_path: LeNet}\n")
    (tmp_path / "run/metrics.csv").write_text("epoch,step,val/accuracy\n0,1,0.5\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    args = [sys.executable, "-m", "lightning_cifar", "report", "run"]
    done = subprocess.run(args, cwd=tmp_path, env=environment, capture_output=True, check=False, text=True)
    assert not (tmp_path / CANARY).exists()
    assert (tmp_path / "run/report.html").exists(), done.stderr


# ---------------------------------------------------------------- runs that go on

RESUME = ["fit", "--resume", "run", "--trainer.max_epochs", "2", *QUIET]


@pytest.fixture
def run_folder(honest: Path, here: Path) -> Path:
    """Return a copy of the run."""
    return Path(shutil.copytree(honest.parents[1], here / "run"))


def test_another_number_of_threads_is_reported(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: before + 1)
    assert cli.main(RESUME) == 0
    assert (
        f"used {before} threads and resumes with {before + 1}: results may not be bit-identical"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("part", ["loops", "callbacks", "optimizer_states", "exact_resume"])
def test_a_checkpoint_without_a_part_is_refused(
    run_folder: Path, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    path = run_folder / "checkpoints/resume.ckpt"
    content = torch.load(path, weights_only=True)
    del content[part]
    torch.save(content, path)
    path.with_name(f"{path.name}.sha256").unlink()
    (run_folder / "result.json").unlink()
    assert cli.main(RESUME) == 2
    message = capsys.readouterr().err
    assert f"resume.ckpt has no {part}" in message
    assert len(message.splitlines()) == 1


def test_a_checkpoint_of_another_run_is_refused(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = (run_folder / "config.yaml").read_text().splitlines(keepends=True)
    assert config[0].startswith("# run ")
    (run_folder / "config.yaml").write_text("".join(["# run 0123456789abcdef\n", *config[1:]]))
    assert cli.main(RESUME) == 2
    assert "resume.ckpt belongs to another run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("loops", {"fit_loop": 3}),
        ("loops", {}),
        ("callbacks", {"LossCurves{'name': 'loss_curves'}": 3}),
        ("callbacks", {"LossCurves{'name': 'loss_curves'}": {"curves": 3}}),
        ("optimizer_states", [{}]),
        ("optimizer_states", [3]),
        ("optimizer_states", [{"state": {0: {"momentum_buffer": "x"}}, "param_groups": [{"params": [0]}]}]),
        ("lr_schedulers", ["x"]),
        ("exact_resume", {}),
        ("exact_resume", {"random": {"torch": 3}, "table": ""}),
        ("SyntheticDataModule", 3),
        ("SyntheticDataModule", {"seed": "x"}),
        ("epoch", "x"),
        ("global_step", "x"),
        ("state_dict", {"network.0.weight": 3}),
    ],
)
@pytest.mark.slow
def test_states_of_another_type_are_refused_in_one_line(
    run_folder: Path, capsys: pytest.CaptureFixture[str], part: str, value: object
) -> None:
    path = run_folder / "checkpoints/resume.ckpt"
    torch.save({**torch.load(path, weights_only=True), part: value}, path)
    path.with_name(f"{path.name}.sha256").unlink()
    try:
        code = cli.main(RESUME)
    except Exception as error:
        pytest.fail(f"a traceback: {error!r}")
    message = capsys.readouterr().err.splitlines()
    assert code in (0, 2)
    if code == 2:
        assert "error: " in message[-1]
        assert sum("error: " in line for line in message) == 1


def test_escape_sequences_of_a_checkpoint_do_not_reach_the_terminal(
    honest: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", forge(honest, class_path="evil.\x1b]0;canary\x07Net")) == 2
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize(("line", "name"), [("foo: 1", "foo"), ("trainer:\n  foo: 1", "trainer.foo")])
def test_an_unknown_setting_in_the_folder_of_a_run_is_named(
    run_folder: Path, capsys: pytest.CaptureFixture[str], line: str, name: str
) -> None:
    path = run_folder / "config.yaml"
    path.write_text(path.read_text().replace("trainer:", line if "trainer" in line else f"{line}\ntrainer:", 1))
    assert cli.main(RESUME) == 2
    assert f'config.yaml: there is no setting "{name}"' in capsys.readouterr().err
