"""The command line, in process: files of a run, and error messages."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import TQDMProgressBar
from shared import error_of

from lightning_cifar import cli
from lightning_cifar.models import LeNet
from lightning_cifar.runs.progress_bars import RichBar, TQDMBar, default_bar
from lightning_cifar.runs.progress_lines import EpochLines

SMALL = [
    *("--data", "SyntheticDataModule", "--data.num_train", "96", "--data.num_val", "40", "--data.num_test", "50"),
    *("--data.batch_size", "32", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
]
FIT = ["fit", "--model", "LeNet", *SMALL, "--trainer.max_epochs", "2"]

pytestmark = pytest.mark.usefixtures("in_tmp")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert cli.main([*FIT, "--model.lr", "0.07", "--run_dir", str(folder), "--test_after_fit", "true"]) == 0
    return folder


def test_a_run_is_a_folder(run: Path) -> None:
    for name in (
        *("config.yaml", "metrics.csv", "result.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt"),
        *("class_accuracy_val.csv", "class_accuracy_test.csv", "confusion_val.csv", "confusion_test.csv"),
        *("pictures/loss_curves.png", "pictures/samples_train.png", "pictures/samples_val.png"),
        *("pictures/confusion_val.png", "pictures/confusion_test.png"),
    ):
        assert (run / name).stat().st_size > 0, name
    assert list(run.glob("events.out.tfevents.*"))
    result = json.loads((run / "result.json").read_text())
    assert result["epochs"] == 2
    assert {"val/accuracy", "test/accuracy", "train/loss", "throughput"} <= result["metrics"].keys()
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["init_args"]["lr"] == 0.07
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(bool(row["train/loss"]) for row in rows) == 2


def test_a_checkpoint_loads_in_python(run: Path) -> None:
    model = LeNet.load_from_checkpoint(run / "checkpoints/best.ckpt", weights_only=True)
    assert model.hparams["lr"] == 0.07
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_a_checkpoint_is_sufficient_for_test(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["test", "--ckpt_path", str(run / "checkpoints/best.ckpt"), "--run_dir", "t"]
    assert cli.main([*args, "--trainer.enable_progress_bar", "false"]) == 0
    again = json.loads((tmp_path / "t/result.json").read_text())["metrics"]["test/accuracy"]
    assert again == json.loads((run / "result.json").read_text())["metrics"]["test/accuracy"]
    assert "tensorboard --logdir t" in capsys.readouterr().out


def test_validate_and_predict(run: Path, tmp_path: Path) -> None:
    best = str(run / "checkpoints/best.ckpt")
    quiet = ["--trainer.enable_progress_bar", "false"]
    assert cli.main(["validate", "--ckpt_path", best, "--run_dir", "v", *quiet]) == 0
    metrics = json.loads((tmp_path / "v/result.json").read_text())["metrics"]
    assert metrics["val/accuracy"] == json.loads((run / "result.json").read_text())["best"]
    assert cli.main(["predict", "--ckpt_path", best, "--run_dir", "p", *quiet]) == 0
    with (tmp_path / "p/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 50
    assert float(rows[0]["probability"]) == max(float(rows[0][name]) for name in list(rows[0])[3:])


def test_options_override_the_checkpoint(run: Path, tmp_path: Path) -> None:
    last = str(run / "checkpoints/last.ckpt")
    options = ["--model.weight_decay", "0.5", "--trainer.max_epochs", "3", "--run_dir", "more"]
    assert cli.main(["fit", "--ckpt_path", last, *options]) == 0
    config = yaml.safe_load((tmp_path / "more/config.yaml").read_text())
    assert config["model"]["init_args"]["weight_decay"] == 0.5
    assert config["model"]["init_args"]["lr"] == 0.07  # the rest comes from the checkpoint
    assert json.loads((tmp_path / "more/result.json").read_text())["epochs"] == 3


def test_a_run_folder_is_never_overwritten(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert "a run does not overwrite files" in error_of(capsys, [*FIT, "--run_dir", str(run)])
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_default_run_folders_differ(tmp_path: Path) -> None:
    for _ in range(2):
        assert cli.main([*FIT, "--trainer.max_epochs", "1", "--trainer.enable_checkpointing", "false"]) == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_saved_configuration_repeats_the_run(run: Path, tmp_path: Path) -> None:
    assert cli.main(["fit", "--config", str(run / "config.yaml"), "--run_dir", "again"]) == 0
    first, again = (json.loads((folder / "result.json").read_text())["metrics"] for folder in (run, tmp_path / "again"))
    assert first["train/loss"] == again["train/loss"]
    assert first["val/accuracy"] == again["val/accuracy"]


def test_print_config_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([*FIT, "--print_config"])
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["init_args"]["label_smoothing"] == 0.0
    assert printed["data"]["init_args"]["augment"] == ["flip", {"crop": 4}]


@pytest.mark.parametrize(
    ("args", "usage"),
    [
        (["--help"], "usage: lightning-cifar fit [-c CONFIG]"),
        (["--model.help", "LeNet"], "usage: lightning-cifar fit --model LeNet [--model.activation"),
        (["--data.help", "CIFAR10DataModule"], "usage: lightning-cifar fit --data CIFAR10DataModule "),
        (["--trainer.callbacks.help", "WeightGIF"], "usage: lightning-cifar fit --trainer.callbacks WeightGIF"),
    ],
)
def test_help_is_plain_text_with_a_command_line(
    args: list[str], usage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["fit", *args])
    text = capsys.readouterr().out
    assert text.startswith(usage)
    assert not re.search(r":\w+:`|``", text)
    assert ("--resume DIR" in text) == (args == ["--help"])


def test_a_configuration_cannot_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text("resume: runs/x\n")
    assert "resume" in error_of(capsys, [*FIT, "--config", "a.yaml"])


def test_hyper_parameters_are_plain_yaml_in_the_folder_and_unchanged_in_the_checkpoint(run: Path) -> None:
    assert yaml.safe_load((run / "hparams.yaml").read_text())["hidden"] == [120, 84]
    content = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert content["hyper_parameters"]["hidden"] == (120, 84)


def test_sigterm_ends_a_run_cleanly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def terminate(self: EpochLines, trainer: object, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(EpochLines, "on_train_epoch_end", terminate)
    assert cli.main([*FIT, "--run_dir", "t"]) == 143
    assert "lightning-cifar: terminated: continue with: lightning-cifar fit --resume t" in capsys.readouterr().err
    assert not (tmp_path / "t/.lock.held").exists()
    assert signal.getsignal(signal.SIGTERM) == before
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["fit", "--resume", "t"]) == 0
    assert json.loads((tmp_path / "t/result.json").read_text())["epochs"] == 2


@pytest.mark.parametrize(
    ("options", "counted"),
    [
        (["--trainer.max_epochs", "2"], ["1/2", "2/2"]),
        (["--trainer.max_epochs", "2", "--trainer.max_steps", "4"], ["1", "2"]),
    ],
)
@pytest.mark.parametrize("bar", [RichBar, TQDMBar])
def test_progress_bar_and_lines_count_epochs_alike(
    bar: type,
    options: list[str],
    counted: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("lightning_cifar.runs.default_callbacks.default_bar", lambda config: [bar()])
    assert cli.main(["fit", "--model", "LeNet", *SMALL, *options, "--trainer.enable_progress_bar", "true"]) == 0
    output = capsys.readouterr()
    drawn = re.findall(r"Epoch (\S+?)[ :]", output.out + output.err)
    assert list(dict.fromkeys(drawn))[-1] == counted[-1]
    assert set(drawn) <= set(counted)
    assert re.findall(r"epoch (\S+?)  ", output.out) == counted


def test_a_given_progress_bar_is_kept() -> None:
    config = {"callbacks": None, "enable_progress_bar": None}
    assert [type(each) for each in default_bar(config)] == [RichBar]
    assert default_bar({**config, "callbacks": TQDMProgressBar()}) == []
    assert default_bar({**config, "callbacks": [TQDMProgressBar()]}) == []
    assert default_bar({**config, "enable_progress_bar": False}) == []


def test_tips_of_lightning_are_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*FIT, "--trainer.max_epochs", "1", "--run_dir", "quiet"]) == 0
    captured = capfd.readouterr()
    text = captured.out + captured.err
    assert "Tip" not in text
    assert "litlogger" not in text.lower()
    assert "62,006 parameters, 62,006 trainable" in text  # the layer table
    assert "16 x 10 x 10" in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fti"], "there is no command 'fti'. Did you mean fit?"),
        ([*FIT, "--trainer.max_epoch", "3"], "--trainer.max_epoch. Did you mean --trainer.max_epochs?"),
        ([*FIT, "--lr", "3"], "there is no option --lr. Did you mean --model.lr?"),
        ([*FIT, "--epochs", "3"], "there is no option --epochs. Did you mean --trainer.max_epochs?"),
        ([*FIT, "--max-epochs", "3"], "Did you mean --trainer.max_epochs?"),
        ([*FIT, "--learning_rate=3"], "there is no option --learning_rate. Did you mean --model.lr?"),
        ([*FIT, "--batch_size", "3"], "Did you mean --data.batch_size?"),
        ([*FIT, "--workers", "3"], "Did you mean --data.num_workers?"),
        ([*FIT, "--seed", "3"], "Did you mean --seed_everything?"),
        ([*FIT, "--out", "x"], "Did you mean --run_dir?"),
        ([*FIT, "--trainer.lr", "3"], "there is no option --trainer.lr. Did you mean --model.lr?"),
        ([*FIT, "--model.learning_rate", "3"], "no option --model.learning_rate. Did you mean --model.lr?"),
        ([*FIT, "--model.epochs", "3"], "no option --model.epochs. Did you mean --trainer.max_epochs?"),
        (
            [*FIT, "--trainer.precision", "bf-16"],
            "trainer.precision (=bf-16) must be one of auto, 64, 32, 16, transformer-engine, "
            "transformer-engine-float16, 16-true, 16-mixed, bf16-true, bf16-mixed, 32-true, 64-true, bf16.",
        ),
        ([*FIT, "--trainer.deterministic", "x"], "trainer.deterministic (=x) must be one of warn, true, false."),
        ([*FIT, "--trainer.strategy", "dpp"], "trainer.strategy (=dpp) must be one of auto, ddp, "),
        (
            [*FIT, "--trainer.accelerator", "cpuu"],
            "(=cpuu) must be one of auto, gpu, cpu, cuda, mps, tpu. Did you mean cpu?",
        ),
        ([*FIT, "--trainer.accelerator", "tpu"], "trainer.accelerator (=tpu) is not available on this machine"),
        ([*FIT, "--trainer.profiler", "x"], "trainer.profiler (=x) must be one of simple, advanced, pytorch, xla."),
        ([*FIT, "--trainer.logger", "CSVLogger"], "save_dir missing: there is no default."),
        ([*FIT, "--data.augment", "3"], "augment (=3) must be of type list."),
        ([*FIT, "--model.schedule", "one_cycle"], "warm-restarts. Did you mean one-cycle?"),
        (
            [*FIT, "--model.schedule", "one-cycle", "--model.warmup", "0"],
            "warmup (=0.0) contradicts schedule='one-cycle'",
        ),
        ([*FIT, "--model.hiden", "[3]"], "there is no option --model.hiden. Did you mean --model.hidden?"),
        ([*FIT, "--model.lable_smoothing", "0.1"], "Did you mean --model.label_smoothing?"),
        ([*FIT, "--model.lr", "fast"], "lr (=fast) must be of type float"),
        ([*FIT, "--model.lr", "-0.1"], "lr (=-0.1) must be a positive number"),
        ([*FIT, "--model.activation", "rellu"], "activation (=rellu) must be one of relu, tanh. Did you mean relu?"),
        ([*FIT, "--model.optimizer", "null"], "model.optimizer (=null) needs a value: leave it out for sgd"),
        ([*FIT, "--trainer.max_epochs", "x"], "trainer.max_epochs (=x) must be of type int"),
        ([*FIT, "--data.batch_size", "0"], "batch_size (=0) must be at least 1"),
        ([*FIT, "--data.num_train", "60000"], "must not exceed the 50000 training images"),
        ([*FIT, "--data.augment", "[{crop: 4}, cutot]"], "unknown augmentation 'cutot'. Did you mean cutout"),
        (["fit", "--model", "Lenet", *SMALL], "there is no class 'Lenet'. Did you mean LeNet? There are"),
        (["fit", "--model", "LeNet"], "data missing: pass --data CIFAR10DataModule"),
        ([*FIT, "--config", "absent.yaml"], "there is no configuration absent.yaml"),
        (["test", "--ckpt_path", "absent.ckpt"], "there is no checkpoint absent.ckpt"),
        (["fit", "--model", "LeNet", "--data", "CIFAR10DataModule"], "pass --data.download true"),
    ],
)
def test_an_error_is_one_line(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in error_of(capsys, args)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer: {max_epoch: 3}", "there is no option trainer.max_epoch. Did you mean trainer.max_epochs?"),
        ("model: {class_path: LeNett}", "there is no class 'LeNett'. Did you mean LeNet?"),
        ("model: {class_path: LeNet, init_args: {lr: abc}}", "lr (=abc) must be of type float"),
        ("model: {class_path: LeNet, init_args: {lr: 0.1, hiden: [3]}}", "Did you mean hidden?"),
        ("model: [a", "not valid YAML"),
        ("optimiser: sgd", "there is no option optimiser"),
        ("trainer:\n  max_epochs: 3\n  max_epochs: 4\n", "line 3: trainer.max_epochs is given twice"),
    ],
)
def test_an_error_in_a_configuration_is_one_line(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text(text)
    data = ["--data", "SyntheticDataModule"]
    assert message in error_of(capsys, ["fit", "--model", "LeNet", *data, "--config", "a.yaml"])


def test_a_checkpoint_of_another_class_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["test", "--model", "DilatedNet", *SMALL, "--ckpt_path", str(run / "checkpoints/best.ckpt")]
    assert "contains LeNet, not DilatedNet" in error_of(capsys, args)


def test_a_checkpoint_of_other_sizes_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["test", "--model.hidden", "[30]", "--ckpt_path", str(run / "checkpoints/best.ckpt")]
    assert "does not fit" in error_of(capsys, args)


@pytest.mark.parametrize("damage", ["truncated", "text", "pickle"])
def test_a_broken_checkpoint_is_refused(
    run: Path, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, ("exploded",)

    path = tmp_path / "bad.ckpt"
    if damage == "pickle":
        torch.save({"state_dict": {}, "bomb": Bomb()}, path)
    else:
        content = (run / "checkpoints/best.ckpt").read_bytes()
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"hello")
    message = error_of(capsys, ["test", "--ckpt_path", str(path)])
    assert "bad.ckpt is not a readable checkpoint, or is damaged" in message
    assert not Path("exploded").exists()


def test_an_unwritable_run_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    message = error_of(capsys, [*FIT, "--run_dir", "file/run"])
    assert "cannot create the run folder file/run" in message


def test_help_and_version_need_no_torch(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    assert "predict" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    assert "lightning-cifar" in capsys.readouterr().out


CONFIG_FOLDER = Path(__file__).parent.parent / "configs"
CONFIGS = sorted(CONFIG_FOLDER.rglob("*.yaml"))
APART = {"callbacks", "studies", "albumentations", "photographs.yaml"}  # not configurations of a fit


@pytest.mark.parametrize(
    "path",
    # Pretrained networks need weights: see tests/models/test_pretrained_configs.py.
    [path for path in CONFIGS if not APART & set(path.parts) and "class_path: Pretrained" not in path.read_text()],
    ids=str,
)
def test_every_shipped_configuration_builds(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIG_FOLDER.parent)  # a configuration may name another file of the project
    args = ["fit", "--config", str(path), "--trainer.max_epochs", "1", "--run_dir", str(tmp_path / "built")]
    if yaml.safe_load(path.read_text())["data"]["class_path"] != "NoisyLineDataModule":  # it has no images
        args += ["--data", "SyntheticDataModule", "--data.num_train", "20", "--data.num_val", "10"]
        args += ["--data.num_test", "10"]
    assert cli.main([*args, "--trainer.enable_progress_bar", "false"]) == 0
    assert path.read_text().startswith("#")


OVERLAYS = sorted((CONFIG_FOLDER / "callbacks").glob("*.yaml"))


@pytest.mark.parametrize("path", [path for path in OVERLAYS if path.stem != "fit_curves"], ids=str)
def test_every_overlay_adds_its_callback(path: Path, tmp_path: Path) -> None:
    args = [*FIT, "--trainer.max_epochs", "4", "--config", str(path), "--run_dir", "overlay"]
    assert cli.main(args) == 0
    config = yaml.safe_load((tmp_path / "overlay/config.yaml").read_text())
    assert len(config["trainer"]["callbacks"]) == 1
    assert (tmp_path / "overlay/pictures/loss_curves.png").exists()  # the default callbacks are kept


def test_the_overlay_of_fitted_curves_is_for_the_toy(tmp_path: Path) -> None:
    toy, overlay = CONFIG_FOLDER / "dropout_toy.yaml", CONFIG_FOLDER / "callbacks/fit_curves.yaml"
    args = ["fit", "--config", str(toy), "--config", str(overlay), "--trainer.max_epochs", "1", "--run_dir", "toy"]
    assert cli.main([*args, "--trainer.enable_progress_bar", "false"]) == 0
    names = {path.name for path in (tmp_path / "toy/pictures").iterdir()}
    assert {"fit_curves.png", "fit_band.png"} <= names


FIND = ["lr-find", "--model", "LeNet", *SMALL, "--num_steps", "12", "--seeds", "2"]


def test_lr_find_suggests_and_writes_but_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model.lr", "0.04", "--trainer.accumulate_grad_batches", "2", "--zoom", "1e-2", "1e-1"]
    assert cli.main([*FIND, *options, "--out", "found"]) == 0
    found = json.loads((tmp_path / "found/lr_range.json").read_text())
    out, err = capsys.readouterr()
    assert "stopped" not in err  # Lightning's line on max_epochs=0
    assert f"--model.lr {found['value']:.2g}" in out
    assert "over 2 sweeps" in out
    assert "configured       0.04" in out
    assert found["own_lr"] == 0.04
    for name in ("lr_range.csv", "lr_range.html", "pictures/lr_range.png", "pictures/lr_range_zoom.png", "config.yaml"):
        assert (tmp_path / "found" / name).stat().st_size > 0
    assert not (tmp_path / "found/checkpoints").exists()
    assert not list((tmp_path / "found").glob("events*"))


def test_lr_find_verifies_its_suggestion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*FIND, "--verify", "--out", "found"]) == 0
    found = json.loads((tmp_path / "found/lr_range.json").read_text())
    out = capsys.readouterr().out
    assert f"--model.lr {found['value']:.2g}" in out
    assert ("  verified (losses" in out) is (found["value"] == found["rules"]["upturn_eighth"])
    assert 3 <= len(found["tested"]) <= 6
    assert found["value"] in [lr for lr, _ in found["tested"]]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([*FIND, "--min_lr", "1", "--max_lr", "0.1"], "max_lr (=0.1) must be above min_lr (=1.0)"),
        ([*FIND, "--min_lr", "0"], "min_lr (=0.0) must be a positive number"),
        ([*FIND, "--num_steps", "5"], "num_steps (=5) must be at least 10"),
        ([*FIND, "--zoom", "1e-9", "1"], "zoom (=[1e-09, 1.0]) must be two increasing learning rates between"),
        ([*FIND, "--seeds", "many"], "argument --seeds: invalid int value: 'many'"),
        ([*FIND, "--trainer.max_epoch", "3"], "Did you mean --trainer.max_epochs?"),
    ],
)
def test_mistakes_of_lr_find(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in error_of(capsys, args)


def test_a_found_rate_is_applied_by_the_overlay(tmp_path: Path) -> None:
    overlay = Path(__file__).parent.parent / "configs/callbacks/lr_finder.yaml"
    args = [*FIT, "--trainer.max_epochs", "1", "--config", str(overlay), "--run_dir", "run"]
    assert cli.main(args) == 0
    found = json.loads((tmp_path / "run/lr_range.json").read_text())
    assert LeNet.load_from_checkpoint("run/checkpoints/last.ckpt", weights_only=True).lr == found["value"]


def test_explicit_settings_reach_the_optimizer_of_a_resumed_run(run: Path, tmp_path: Path) -> None:
    args = ["fit", "--ckpt_path", str(run / "checkpoints/last.ckpt"), "--model.lr", "0.02", "--model.momentum", "0.5"]
    args += ["--model.schedule", "linear", "--model.weight_decay", "0.25", "--trainer.max_epochs", "4"]
    assert cli.main([*args, "--run_dir", "more"]) == 0
    state = torch.load(tmp_path / "more/checkpoints/last.ckpt", weights_only=True)
    group = state["optimizer_states"][0]["param_groups"][0]
    assert (group["initial_lr"], group["momentum"], group["weight_decay"]) == (0.02, 0.5, 0.25)
    assert state["lr_schedulers"][0]["base_lrs"] == [0.02]
    with (tmp_path / "more/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--data.batch_size", "0"], "batch_size (=0) must be at least 1."),
        (["--model.lr", "-1"], "lr (=-1.0) must be a positive number."),
        (["--data.augment", "[{crop: 40}]"], "crop: padding (=40) must be below the image size (32 x 32 pixels)."),
        (["--data.augment", "[{cutout: 64}]"], "cutout: size (=64) must not exceed the image size (32 x 32 pixels)."),
        (["--model.weight_decay", ".nan"], "weight_decay (=nan) must be 0 or a positive number."),
    ],
)
def test_the_line_contains_only_the_error(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert error_of(capsys, [*FIT, *args]) == message


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--trainer.accelerator", "gpu"], "gpu backend found: leave --trainer.accelerator out, or pass cpu"),
        (["--trainer.devices", "0"], "devices"),
        (["--ckpt_path", "last"], "there is no checkpoint last"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that is not there")
def test_mistakes_that_lightning_finds(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in error_of(capsys, [*FIT, *args])


def test_another_optimizer_cannot_resume(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["fit", "--ckpt_path", str(run / "checkpoints/last.ckpt"), "--model.optimizer", "adam"]
    assert "was trained with optimizer=sgd" in error_of(capsys, args)


def test_a_single_callback_and_a_trial_run(tmp_path: Path) -> None:
    assert cli.main([*FIT, "--trainer.callbacks", "LearningRateMonitor", "--run_dir", "one"]) == 0
    assert cli.main([*FIT, "--trainer.fast_dev_run", "true", "--run_dir", "trial"]) == 0
    assert not (tmp_path / "trial").exists()


TOY = [
    *("fit", "--model", "MLPRegressor", "--model.hidden_sizes", "[8]", "--data", "NoisyLineDataModule"),
    *("--data.passes", "5", "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu"),
    *("--trainer.enable_progress_bar", "false"),
]


def test_a_regression_runs_like_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*TOY, "--model.optimizer", "adam", "--run_dir", "toy", "--test_after_fit", "true"]) == 0
    said = capsys.readouterr()
    assert "Accuracy" not in said.err  # callbacks for images print nothing
    assert "SampleGrid" not in said.err
    assert "images/s" not in said.out
    for name in ("config.yaml", "metrics.csv", "pictures/loss_curves.png", "checkpoints/best.ckpt"):
        assert (tmp_path / "toy" / name).stat().st_size > 0, name
    result = json.loads((tmp_path / "toy/result.json").read_text())
    assert result["metrics"].keys() == {"train/loss", "train/loss_step", "val/loss", "test/loss"}
    with (tmp_path / "toy/metrics.csv").open() as file:
        losses = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert result["best"] == pytest.approx(min(losses))
    args = ["predict", "--ckpt_path", "toy/checkpoints/best.ckpt", "--run_dir", "values"]
    assert cli.main([*args, "--trainer.enable_progress_bar", "false"]) == 0
    with (tmp_path / "values/predictions.csv").open() as file:
        assert [row["sample"] for row in csv.DictReader(file)] == [str(i) for i in range(50)]


# It looks before the module has logged its first epoch.
@pytest.mark.filterwarnings("ignore:LossCurves found none")
def test_the_last_checkpoint_does_not_wait_for_a_validation(tmp_path: Path) -> None:
    args = [*FIT, "--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "2", "--run_dir", "run"]
    assert cli.main(args) == 0
    best, last = (torch.load(tmp_path / f"run/checkpoints/{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert (best["global_step"], last["global_step"]) == (6, 9)


def test_without_validation_the_last_checkpoint_counts(tmp_path: Path) -> None:
    args = [*FIT, "--data.num_val", "0", "--run_dir", "run", "--test_after_fit", "true"]
    assert cli.main(args) == 0
    best, last = (torch.load(tmp_path / f"run/checkpoints/{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert best["global_step"] == last["global_step"] == 6
    assert "test/accuracy" in json.loads((tmp_path / "run/result.json").read_text())["metrics"]


@pytest.mark.parametrize(
    "model",
    [
        ["ConvNet", "--model.channels", "[2, 3]", "--model.dropout", "[0, 0.5]", "--model.batch_norm", "[false, true]"],
        ["ConvNet", "--model.channels", "[2]", "--model.pooling", "average", "--model.hidden", "[]"],
        ["MLP", "--model.hidden_sizes", "[]"],
        ["MLP", "--model.hidden_sizes", "[4]", "--model.batch_norm", "true", "--model.activation", "tanh"],
    ],
    ids=" ".join,
)
def test_settings_of_every_network_come_back_with_its_checkpoint(model: list[str], tmp_path: Path) -> None:
    args = ["fit", "--model", *model, *SMALL, "--trainer.max_epochs", "1", "--run_dir", "run"]
    assert cli.main([*args, "--test_after_fit", "true"]) == 0
    args = ["test", "--ckpt_path", "run/checkpoints/best.ckpt", "--run_dir", "again"]
    assert cli.main([*args, "--trainer.enable_progress_bar", "false"]) == 0
    first, second = (json.loads((tmp_path / run / "result.json").read_text()) for run in ("run", "again"))
    assert first["metrics"]["test/loss"] == second["metrics"]["test/loss"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--model", "MLP", "--data", "NoisyLineDataModule"],
            "MLP classifies images, but NoisyLineDataModule has none",
        ),
        (["--model", "MLPRegressor", *SMALL], "MLPRegressor fits numbers, but SyntheticDataModule has images"),
        (["--model", "MLPRegresor", "--data", "NoisyLineDataModule"], "Did you mean MLPRegressor?"),
        (["--model", "ConvNet", *SMALL, "--model.strides", "[1]"], "strides (=[1]) must be one value, or 2 entries"),
        (["--model", "ConvNet", *SMALL, "--model.kernels", "40"], "image_size (=32) is too small"),
        (["--model", "MLP", *SMALL, "--model.hidden_size", "[4]"], "Did you mean --model.hidden_sizes?"),
        (["--model", "LeNet", "--data", "MNISTDataModule"], "MNIST was not found in data: pass --data.download true"),
    ],
)
def test_mistakes_with_networks_and_data_of_other_kinds(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in error_of(capsys, ["fit", *args])


@pytest.mark.parametrize("args", [["--help"], ["gradcheck", "--function", "f1"]])
def test_a_closed_pipe_is_not_an_error(args: list[str]) -> None:
    """As in ``lightning-cifar --help | head -0``."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "lightning_cifar", *args]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
