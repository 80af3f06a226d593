"""The command on small runs: files, laws that need a run, and messages."""

from __future__ import annotations

import csv
import itertools
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_cifar.cli import main
from lightning_cifar.commands.study import _write_results
from lightning_cifar.models import Classifier
from lightning_cifar.runs.build import load_run
from lightning_cifar.studies.jobs import prepare
from lightning_cifar.studies.report.results import read_run
from lightning_cifar.studies.run import work
from lightning_cifar.studies.spec import read_study

DATA = ["--data", "SyntheticDataModule", "--data.num_train", "200", "--data.num_val", "50", "--data.num_test", "10"]
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.callbacks+=WeightTrajectory"]
MLP = ["--model", "MLP", "--model.hidden_sizes", "[4]", "--model.lr", "0.1"]


def fit(folder: Path, *args: str) -> Path:
    main(["fit", *DATA, *QUIET, "--trainer.max_epochs", "2", "--run_dir", str(folder), *args])
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tmp_path_factory.mktemp("runs") / "plain", *MLP)


@pytest.fixture(scope="module")
def other(run: Path) -> Path:
    return fit(run.with_name("other"), *MLP, "--seed_everything", "1")


@pytest.fixture(scope="module")
def normed(run: Path) -> Path:
    return fit(run.with_name("normed"), *MLP, "--model.batch_norm", "true")


def surface(*args: object) -> None:
    main(["surface", *map(str, args), "--num_images", "100"])


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def own_metrics(run: Path) -> tuple[float, float]:
    """Loss and accuracy of the last weights on the first 100 training images, with a plain forward pass."""
    loaded = load_run(run)
    images, labels = (torch.cat(each) for each in zip(*loaded.batches(100), strict=True))
    with torch.no_grad():
        logits = loaded.model(images)
    return float(loaded.model.evaluation_loss(logits, labels)), float((logits.argmax(1) == labels).float().mean())


def test_the_plane_of_the_training(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    checkpoint = (run / "checkpoints" / "last.ckpt").read_bytes()
    surface(run, "--points", 4, "--out", tmp_path / "a.html")
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == checkpoint
    printed, _ = capsys.readouterr()
    loss, accuracy = own_metrics(run)
    assert f"center: loss {loss:.4g}, accuracy {100 * accuracy:.2f} %; plane of 3 snapshots" in printed
    assert "plane of 3 snapshots: 100.0 % of their squared distances" in printed
    assert len(rows_of(tmp_path / "a.csv")) == 16  # three points are in a plane
    path = rows_of(tmp_path / "a_path.csv")
    assert [row["epoch"] for row in path] == ["0.0", "1.0", "2.0"]
    assert float(path[-1]["loss"]) == pytest.approx(loss, rel=1e-5)
    assert [float(path[-1][name]) for name in ("x", "y", "distance")] == [0, 0, 0]
    assert "Plotly" in (tmp_path / "a.html").read_text()
    assert (tmp_path / "a.png").is_file()
    events = EventAccumulator(str(run)).Reload()
    assert "surface/a" in events.Tags()["images"]


def test_a_random_plane_of_a_run_with_batch_norm(
    normed: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The middle of the grid is the center; kept statistics are those of the run."""
    for batch_norm in ("keep", "recompute"):
        surface(
            normed, "--directions", "random", "--points", 3, "--batch_norm", batch_norm, "--out", tmp_path / batch_norm
        )
    middle = {name: rows_of(tmp_path / name / "surface_random.csv")[4] for name in ("keep", "recompute")}
    assert {(row["x"], row["y"]) for row in middle.values()} == {("0.0", "0.0")}
    assert float(middle["keep"]["loss"]) == pytest.approx(own_metrics(normed)[0], rel=1e-5)
    assert middle["keep"]["loss"] != middle["recompute"]["loss"]


def test_several_runs_share_a_plane(run: Path, other: Path, tmp_path: Path) -> None:
    surface(run, other, "--points", 3, "--out", tmp_path)
    path = rows_of(tmp_path / "surface_pca_path.csv")
    assert [row["run"] for row in path] == ["plain"] * 3 + ["other"] * 3
    assert float(path[-1]["loss"]) == pytest.approx(own_metrics(other)[0], rel=1e-5)
    assert float(path[0]["distance"]) > 0


def test_the_line_between_two_runs(run: Path, other: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    surface("--between", run, other, "--points", 5, "--out", tmp_path)
    losses = [float(row["loss"]) for row in rows_of(tmp_path / "between.csv")]
    assert losses[0] == pytest.approx(own_metrics(run)[0], rel=1e-5)
    assert losses[-1] == pytest.approx(own_metrics(other)[0], rel=1e-4)
    height = max(np.array(losses) - np.linspace(losses[0], losses[-1], 5))
    assert f"barrier: loss {height:.4g}, accuracy" in capsys.readouterr().out
    surface("--between", run, run, "--points", 3, "--out", tmp_path)
    assert "barrier: loss 0, accuracy 0.00 points" in capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    capsys.readouterr()
    assert main(["surface", *map(str, args)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_wrong_options_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "needs the folder of a run, or --between" in refused(capsys)
    assert "needs the folder of a run, or --between" in refused(capsys, run, "--between", run, run)
    assert "--points (=2) must be at least 3" in refused(capsys, run, "--points", 2)
    assert "--directions random shows one run" in refused(capsys, run, run, "--directions", "random")


def test_runs_that_do_not_fit_are_refused(
    run: Path, normed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "is not the folder of a run: it has no config.yaml" in refused(capsys, tmp_path)
    message = refused(capsys, run, normed)
    assert f"{normed} has another network than {run}: network." in message
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    (copy / "trajectory" / "000004.npz").unlink()
    assert "copy has 2 snapshots of its weights, and a plane needs 3: train with --config" in refused(capsys, copy)


def test_points_without_a_finite_loss_are_missing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first loss is that of the center; those of two points, and then of all, are replaced."""
    plain, counted = Classifier.evaluation_loss, itertools.count()
    monkeypatch.setattr(
        Classifier, "evaluation_loss", lambda *args: plain(*args) * (math.inf if next(counted) in broken else 1)
    )
    broken = range(2, 4)
    surface(run, "--points", 4, "--out", tmp_path)
    assert "2 of 16 points have no finite loss: drawn as missing" in capsys.readouterr().out
    losses = [row["loss"] for row in rows_of(tmp_path / "surface_pca.csv")]
    assert [index for index, loss in enumerate(losses) if loss == "nan"] == [1, 2]
    broken = range(10_000)
    assert "no point of the plane has a finite loss" in refused(capsys, run, "--points", 3, "--out", tmp_path)


def test_a_study_compares_barriers_and_sharpness(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init = {"num_train": 128, "num_val": 10, "num_test": 10, "batch_size": 64}
    sharpness = {"class_path": "Sharpness", "init_args": {"every_n_steps": 2, "num_samples": 16}}
    base: dict[str, Any] = {
        "trainer": {"max_epochs": 1, "callbacks": [sharpness]},
        "model": {"class_path": "MLP", "init_args": {"hidden_sizes": [4], "lr": 0.1}},
        "data": {"class_path": "SyntheticDataModule", "init_args": init},
    }
    arms = {"a": {"model.lr": 0.1}, "b": {"model.lr": 0.4}}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"seeds": 1, "metric": "barrier", "base": base, "arms": arms}))
    study = read_study(path)
    jobs = prepare(study, tmp_path / "out", threads=torch.get_num_threads())
    assert [work(job, lambda progress: None) for job in jobs] == ["done", "done"]
    capsys.readouterr()
    assert _write_results(study, jobs, tmp_path / "out") == 0
    assert "final barrier" in capsys.readouterr().out
    runs = [read_run(job) for job in jobs]
    assert runs[0].final("barrier") == 0
    assert runs[1].final("barrier") >= 0
    assert all(run.final("train/sharpness") > 0 for run in runs)
    assert study.mode == "min"
