"""Runs and checkpoints that version 0.1.0 wrote load, resume, evaluate and export."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from lightning_cifar import LeNet, PretrainedSqueezeNet, SideBySide, cli, load_trained

ARCHIVE = Path(__file__).parent / "fixtures" / "runs_of_version_0_1_0.tar.xz"  # weights in steps of 1/8
MODELS = {"lenet": LeNet, "side_by_side": SideBySide, "squeezenet": PretrainedSqueezeNet}
QUIET = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_is_tested(runs: Path, name: str) -> None:
    assert cli.main(["test", "--ckpt_path", name, "--run_dir", "t", *QUIET]) == 0
    metrics = json.loads((runs / "t/result.json").read_text())["metrics"]
    assert any(key.startswith("test/accuracy") for key in metrics)


@pytest.mark.parametrize("name", MODELS)
def test_a_run_is_resumed(runs: Path, name: str) -> None:
    assert cli.main(["fit", "--resume", name, "--trainer.max_epochs", "3", *QUIET]) == 0
    assert json.loads((runs / name / "result.json").read_text())["epochs"] == 3


@pytest.mark.parametrize("name", ["lenet", "squeezenet"])
def test_a_network_is_exported_and_loaded_in_python(runs: Path, name: str) -> None:
    assert cli.main(["export", name, "--format", "safetensors", "--check", "4"]) == 0
    assert isinstance(load_trained(runs / name / "checkpoints/best.ckpt").model, MODELS[name])


@pytest.mark.parametrize("name", MODELS)
def test_lightning_loads_the_checkpoint(runs: Path, name: str) -> None:
    path = runs / name / "checkpoints/best.ckpt"
    settings = {"weights": None} if name == "squeezenet" else {}
    assert MODELS[name].load_from_checkpoint(path, weights_only=True, **settings)
