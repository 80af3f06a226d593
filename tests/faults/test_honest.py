"""Valid files are accepted: the rules against malicious files give no false alarms."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_cifar import cli, load_trained
from lightning_cifar.checkpoints.reading import Checkpoint
from lightning_cifar.checkpoints.settings import trained_settings
from lightning_cifar.configuration import read_configuration
from lightning_cifar.files.images import read_image
from lightning_cifar.studies.spec import read_study

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
RUNS = ("lenet", "side_by_side", "squeezenet")
CHECKPOINTS = [f"{run}/checkpoints/{name}.ckpt" for run in RUNS for name in ("best", "resume")]
IMAGES = [
    *(("png", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    *(("jpeg", mode) for mode in ("L", "RGB", "CMYK")),
    *(("webp", mode) for mode in ("RGB", "RGBA")),
    *(("bmp", mode) for mode in ("1", "L", "P", "RGB")),
    *(("gif", mode) for mode in ("L", "P")),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of version 0.1.0."""
    folder = tmp_path_factory.mktemp("runs")
    with tarfile.open(ROOT / "tests/fixtures/runs_of_version_0_1_0.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_there_are_enough() -> None:
    assert len(CONFIGS) + 2 * len(CHECKPOINTS) + len(RUNS) + len(IMAGES) >= 50


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_configuration(path: Path) -> None:
    if path.parent.name == "albumentations":
        return  # a list, which tests/data reads
    if "studies" in path.parts:
        assert read_study(path).arms
    else:
        assert read_configuration(path)


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("of_fit", [False, True])
def test_settings_of_a_checkpoint(runs: Path, name: str, of_fit: bool) -> None:
    settings, left_out = trained_settings(Checkpoint.read(runs / name), of_fit=of_fit)
    assert {"model", "data", "seed_everything"} <= settings.keys()
    assert not left_out


@pytest.mark.parametrize("name", [name for name in CHECKPOINTS if "side_by_side" not in name])
def test_network_in_a_checkpoint(runs: Path, name: str) -> None:
    assert load_trained(runs / name).epochs >= 0


@pytest.mark.parametrize("name", RUNS)
def test_report_of_a_run(runs: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(runs / name, tmp_path / name)
    assert cli.main(["report", str(tmp_path / name)]) == 0


@pytest.mark.parametrize(("kind", "mode"), IMAGES)
def test_image(tmp_path: Path, kind: str, mode: str) -> None:
    path = tmp_path / f"a.{kind}"
    if mode == "I;16":
        Image.fromarray(np.full((9, 9), 40000, np.uint16)).save(path)
    else:
        Image.new(mode, (9, 9)).save(path)
    assert read_image(path, 8, 3, "crop").view.shape == (8, 8, 3)
