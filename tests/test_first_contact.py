"""First steps of a new user: a training with a log file, too few images, and errors after a first run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lightning_cifar import cli
from lightning_cifar.data import SyntheticDataModule

SMALL = [
    *("--data", "SyntheticDataModule", "--data.num_train", "64", "--data.num_val", "20", "--data.num_test", "10"),
    *("--data.batch_size", "32", "--trainer.accelerator", "cpu"),
]
FIT = ["fit", "--model", "LeNet", *SMALL]
QUIET = ["--trainer.enable_progress_bar", "false"]

pytestmark = pytest.mark.usefixtures("in_tmp")


def epochs(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("epoch ")]


def test_a_log_file_has_a_line_for_each_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*FIT, "--trainer.max_epochs", "3", "--run_dir", "run"]) == 0
    lines = epochs(capsys.readouterr().out)
    pattern = r"epoch (\d)/3  train/loss (\d\.?\d*)  val/accuracy (\d+\.\d) %  [\d,]+ images/s  \d+ s"
    found = [re.fullmatch(pattern, line) for line in lines]
    assert [match and match[1] for match in found] == ["1", "2", "3"], lines
    metrics = json.loads(Path("run/result.json").read_text())["metrics"]
    assert found[-1] is not None
    assert float(found[-1][2]) == pytest.approx(metrics["train/loss"], abs=0.006)  # of this epoch, not the one before
    assert float(found[-1][3]) == pytest.approx(100 * metrics["val/accuracy"], abs=0.06)


@pytest.mark.filterwarnings("ignore:LossCurves found none")
def test_a_line_contains_no_metric_of_an_earlier_validation(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "2", "--run_dir", "run"]
    assert cli.main([*FIT, *args]) == 0
    assert ["val/" in line for line in epochs(capsys.readouterr().out)] == [False, True, False]


def test_lines_count_steps_if_they_end_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*FIT, "--trainer.max_steps", "3", "--run_dir", "run"]) == 0
    captured = capsys.readouterr()
    assert [line.split("  ")[:2] for line in epochs(captured.out)] == [
        ["epoch 1", "step 2/3"],
        ["epoch 2", "step 3/3"],
    ]
    assert "training images in batches" not in captured.err  # so few steps are on purpose


@pytest.mark.parametrize("why", ["no bar", "terminal"])
def test_no_lines_without_a_progress_bar(
    why: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "terminal":
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    args = QUIET if why == "no bar" else []
    assert cli.main([*FIT, *args, "--trainer.max_epochs", "1", "--run_dir", "run"]) == 0
    assert not epochs(capsys.readouterr().out)


def test_lines_of_networks_side_by_side_and_of_a_regression(capsys: pytest.CaptureFixture[str]) -> None:
    args = [
        "fit",
        "--model",
        "SideBySide",
        "--model.members",
        '{"a": {"class_path": "LeNet"}, "b": {"class_path": "LeNet"}}',
    ]
    assert cli.main([*args, *SMALL, "--trainer.max_epochs", "1", "--run_dir", "two"]) == 0
    (line,) = epochs(capsys.readouterr().out)
    assert re.findall(r"(\S+/[ab]) \d", line) == ["train/loss/a", "train/loss/b", "val/accuracy/a", "val/accuracy/b"]
    args = ["fit", "--model", "MLPRegressor", "--model.hidden_sizes", "[4]", "--data", "NoisyLineDataModule"]
    assert cli.main([*args, "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--run_dir", "line"]) == 0
    (line,) = epochs(capsys.readouterr().out)
    assert re.fullmatch(r"epoch 1/1  train/loss \S+  val/loss \S+  \d+ s", line)


HINT = "pass a smaller --data.batch_size or more --trainer.max_epochs"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--data.batch_size", "128"], "64 training images in batches of 128: 1 step an epoch, 2 in all: "),
        ([], "64 training images in batches of 32: 2 steps an epoch, 4 in all: "),
        (
            ["--trainer.accumulate_grad_batches", "2"],
            "64 training images in batches of 32: 1 step an epoch, 2 in all: ",
        ),
        (["--data.batch_size", "1"], None),
        (["--trainer.limit_train_batches", "1"], None),
        (["--trainer.overfit_batches", "1"], None),
        (["--trainer.fast_dev_run", "true"], None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_too_few_steps_are_reported(args: list[str], said: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*FIT, *QUIET, "--trainer.max_epochs", "2", *args, "--run_dir", "run"]) == 0
    hints = [line for line in capsys.readouterr().err.splitlines() if HINT in line]
    assert hints == ([] if said is None else [said + HINT])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("first") / "run"
    assert cli.main([*FIT, *QUIET, "--trainer.max_epochs", "2", "--run_dir", str(folder)]) == 0
    return folder


def error_of(capsys: pytest.CaptureFixture[str], args: list[str]) -> str:
    """The one line that a mistake says; nothing may be left behind."""
    capsys.readouterr()
    before = sorted(Path().rglob("*"))
    code = cli.main(args)
    said = [line for line in capsys.readouterr().err.splitlines() if "Seed set" not in line]
    assert code == 2
    assert len(said) == 1, said
    assert sorted(Path().rglob("*")) == before
    return said[0].removeprefix("lightning-cifar: error: ")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "2 of 2 epochs: to continue the training, add --trainer.max_epochs 4."),
        (["--trainer.max_epochs", "1"], "2 of 1 epochs: to continue the training, add --trainer.max_epochs 4."),
        (
            ["--trainer.max_epochs", "9", "--trainer.max_steps", "4"],
            "4 of 4 steps: to continue the training, add --trainer.max_steps 8.",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_checkpoint_that_leaves_nothing_to_train_is_refused(
    run: Path, args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(run / "checkpoints/last.ckpt")
    assert error_of(capsys, ["fit", "--ckpt_path", path, *args]) == f"the checkpoint has completed {said}"


def test_the_advice_continues_the_training(run: Path) -> None:
    args = ["fit", "--ckpt_path", str(run / "checkpoints/last.ckpt"), "--trainer.max_epochs", "4", *QUIET]
    assert cli.main([*args, "--run_dir", "more"]) == 0
    assert json.loads(Path("more/result.json").read_text())["epochs"] == 4


def test_a_folder_in_place_of_a_file(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best, config = run / "checkpoints/best.ckpt", run / "config.yaml"
    for i, folder in enumerate((run, best.parent)):
        assert cli.main(["test", "--ckpt_path", str(folder), "--run_dir", f"t{i}"]) == 0
        assert f"checkpoint: {best}\n" in capsys.readouterr().err
    assert error_of(capsys, ["fit", "--config", str(run)]) == f"{run} is a folder: pass {config}."
    Path("empty").mkdir()
    assert "empty has no checkpoints/best.ckpt or" in error_of(capsys, ["test", "--ckpt_path", "empty"])
    assert "empty is a folder: pass a YAML file" in error_of(capsys, ["fit", "--config", "empty"])


def test_evaluations_ask_for_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    errors = {verb: error_of(capsys, [verb]) for verb in ("fit", "validate", "test", "predict")}
    own = "--data CIFAR10DataModule --model LeNet, or a file with --config."
    assert errors.pop("fit") == f"data and model missing: pass {own}"
    for said in errors.values():
        assert said == f"data and model missing: pass --ckpt_path runs/.../checkpoints/best.ckpt, or {own}"


def test_other_errors(capsys: pytest.CaptureFixture[str]) -> None:
    Path("tab.yaml").write_text("model:\n\tclass_path: LeNet\n")
    assert error_of(capsys, ["fit", "--config", "tab.yaml"]).endswith(": indent with spaces, not tabs")
    Path("empty.ckpt").touch()
    assert error_of(capsys, ["test", "--ckpt_path", "empty.ckpt"]).endswith(": the file is empty")
    assert "--confg. Did you mean --config?" in error_of(capsys, ["fit", "--confg", "x"])


@pytest.mark.slow
def test_the_configuration_for_user_images_learns_from_few() -> None:
    shown = SyntheticDataModule(num_train=400, num_val=0).load("train")
    for k in (0, 6, 7):  # disc, stripes, checkerboard
        folder = Path("images") / SyntheticDataModule.class_names[k]
        folder.mkdir(parents=True)
        for i, image in enumerate(shown.images[shown.labels == k][:30]):
            Image.fromarray(image).save(folder / f"{i}.png")
        assert i == 29
    path = Path(__file__).parent.parent / "configs/own_images.yaml"
    assert cli.main(["fit", "--config", str(path), "--trainer.accelerator", "cpu", "--run_dir", "run"]) == 0
    assert json.loads(Path("run/result.json").read_text())["best"] >= 0.6  # chance: 0.33


OWN = """\
from typing import Any

from torch import nn

from lightning_cifar import Classifier


class Small(Classifier):
    def __init__(self, width: int = 4, **training: Any) -> None:
        super().__init__(**training)
        self.save_hyperparameters()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(3072, width), nn.Linear(width, self.num_classes))
"""


def test_a_model_in_the_current_folder_is_found_with_the_environment_of_a_notebook(tmp_path: Path) -> None:
    """By the console script, as -P leaves the current folder out; a notebook's backend is not installed everywhere."""
    (tmp_path / "small.py").write_text(OWN)
    (tmp_path / "pickle.py").write_text("raise RuntimeError('hides a library')")
    args = [
        "fit",
        "--model",
        "small.Small",
        "--model.width",
        "5",
        *SMALL,
        "--trainer.max_epochs",
        "1",
        "--run_dir",
        "run",
    ]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "lightning_cifar", *args],
        env={**os.environ, "MPLBACKEND": "not_there"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "width: 5" in Path("run/config.yaml").read_text()
    assert Path("run/pictures/loss_curves.png").is_file()
