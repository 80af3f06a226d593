"""Files are written atomically on global rank zero only, and pictures reach the loggers."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_cifar import artifacts
from lightning_cifar.files import atomic


def make_trainer(folder: Path, *loggers: object, rank_zero: bool = True, fast_dev_run: bool = False) -> Trainer:
    # It has no strategy: whatever wanted to communicate would fail.
    return cast(
        Trainer,
        SimpleNamespace(
            loggers=list(loggers),
            default_root_dir=str(folder),
            is_global_zero=rank_zero,
            fast_dev_run=fast_dev_run,
            global_step=7,
        ),
    )


def make_figure() -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([0, 1])
    return figure


def make_gif() -> bytes:
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def save_everything(trainer: Trainer) -> list[Path | None]:
    movie = artifacts.save_animation(trainer, "movie", {"gif": make_gif(), "webp": b"2"})
    return [
        artifacts.save_figure(trainer, "a/b", make_figure()),
        *(movie or [None, None]),
        artifacts.save_table(trainer, "table", ["x"], [[1]]),
        artifacts.save_json(trainer, "value", {}),
    ]


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_run_folder_is_that_of_the_first_logger(tmp_path: Path) -> None:
    csv_logger = CSVLogger(tmp_path / "csv", name="a", version=3)
    board = TensorBoardLogger(tmp_path / "board", name="b", version="c")
    own = SimpleNamespace(save_dir=str(tmp_path / "own"))
    assert artifacts.run_folder(make_trainer(tmp_path, csv_logger, board)) == tmp_path / "csv/a/version_3"
    assert artifacts.run_folder(make_trainer(tmp_path, board, csv_logger)) == tmp_path / "board/b/c"
    assert artifacts.run_folder(make_trainer(tmp_path, own)) == tmp_path / "own"
    assert artifacts.run_folder(make_trainer(tmp_path, SimpleNamespace(save_dir=None))) == tmp_path
    assert artifacts.run_folder(make_trainer(tmp_path)) == tmp_path


def test_everything_works_without_a_logger(tmp_path: Path) -> None:
    paths = save_everything(make_trainer(tmp_path))
    pictures = {"pictures/a/b.png", "pictures/movie.gif", "pictures/movie.webp"}
    assert files_in(tmp_path) == pictures | {"table.csv", "value.json"}
    assert [path and path.is_file() for path in paths] == [True] * 5
    with Image.open(tmp_path / "pictures/a/b.png") as image:
        assert image.size == (2 * artifacts.DPI, artifacts.DPI)


@pytest.mark.parametrize("reason", [{"rank_zero": False}, {"fast_dev_run": True}])
def test_other_ranks_and_fast_dev_run_write_nothing(tmp_path: Path, reason: dict[str, bool]) -> None:
    calls: list[object] = []
    logger = SimpleNamespace(log_dir=str(tmp_path), log_image=lambda **kwargs: calls.append(kwargs))
    assert save_everything(make_trainer(tmp_path, logger, **reason)) == [None] * 5
    assert files_in(tmp_path) == set()
    assert not calls


def test_tensorboard_gets_figure_and_animation(tmp_path: Path) -> None:
    board = TensorBoardLogger(tmp_path, name="", version="")
    trainer = make_trainer(tmp_path, board, CSVLogger(tmp_path / "csv"))
    artifacts.save_figure(trainer, "curves", make_figure())
    artifacts.save_figure(trainer, "curves", make_figure(), step=9)
    artifacts.save_animation(trainer, "movie", {"webp": b"", "gif": make_gif()}, step=3)
    board.experiment.flush()
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    curves = events.Images("curves")
    assert [image.step for image in curves] == [6, 9]
    assert (curves[0].width, curves[0].height) == (2 * artifacts.DPI, artifacts.DPI)
    (movie,) = events.Images("movie")
    assert (movie.step, movie.width, movie.height, movie.encoded_image_string) == (3, 6, 4, make_gif())
    board.experiment.close()


def test_many_event_files_of_one_second_are_read_in_the_order_of_writing(tmp_path: Path) -> None:
    """The law is of the test suite: tests/conftest.py sets where the counter in the names of event files starts."""
    for step in range(12):
        board = TensorBoardLogger(tmp_path, name="", version="")
        board.log_metrics({"loss": 0.0}, step)
        board.finalize("success")
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(12))


def test_frames_on_disk(tmp_path: Path) -> None:
    store = artifacts.frame_store(tmp_path / "run", "movie")
    assert store.read(0) is None
    for index in range(4):
        store.write(index, weights=np.arange(index, dtype=np.float32), step=index, run="abc")
    store.write(2, weights=np.ones(3, np.float32), step=7, run="abc")
    found = store.read(2)
    assert found is not None
    assert {name: array.tolist() for name, array in found.items()} == {"weights": [1, 1, 1], "step": 7, "run": "abc"}
    assert found["weights"].dtype == np.float32
    store.keep(3)
    assert files_in(tmp_path) == {f"run/pictures/.frames/movie/00000{index}.npz" for index in range(3)}

    other = artifacts.frame_store(tmp_path / "other", "movie")
    (store.folder / "000001.npz").unlink()
    other.copy_from(store, 3)
    assert files_in(tmp_path / "other") == {f"pictures/.frames/movie/00000{index}.npz" for index in (0, 2)}
    assert other.read(1) is None


def test_a_logger_with_log_image_gets_the_pixels(tmp_path: Path) -> None:
    calls: list[dict[str, Any]] = []
    logger = SimpleNamespace(save_dir=str(tmp_path), log_image=lambda **kwargs: calls.append(kwargs))
    artifacts.save_figure(make_trainer(tmp_path, logger), "curves", make_figure(), step=3)
    (call,) = calls
    assert (call["key"], call["step"]) == ("curves", 3)
    (pixels,) = call["images"]
    assert pixels.shape == (artifacts.DPI, 2 * artifacts.DPI, 3)
    with Image.open(tmp_path / "pictures/curves.png") as image:
        assert np.array_equal(pixels, np.asarray(image.convert("RGB")))


def test_table_and_json_are_read_back(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    artifacts.save_table(trainer, "t", ["class", "n"], [["a, b", 1], ['"c"', 0.5]])
    with open(tmp_path / "t.csv", newline="") as file:
        assert list(csv.reader(file)) == [["class", "n"], ["a, b", "1"], ['"c"', "0.5"]]
    artifacts.save_json(
        trainer, "j", {"nan": float("nan"), "t": torch.tensor([1, 2]), "n": np.float32(0.5), "p": Path("x"), "é": None}
    )
    assert json.loads((tmp_path / "j.json").read_bytes()) == {"nan": None, "t": [1, 2], "n": 0.5, "p": "x", "é": None}
    with pytest.raises(TypeError, match="cannot write a set as JSON"):
        artifacts.save_json(trainer, "k", {"k": {1}})


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = tmp_path / "f.csv"
    atomic.write_atomically(path, b"old")

    def fail(*args: object) -> None:
        assert files_in(tmp_path) > {"f.csv"}
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os if moment == "fsync" else Path, moment, fail)
    with pytest.raises(OSError, match="could not write") as caught:
        atomic.write_atomically(path, b"new", durable=True)
    monkeypatch.undo()
    assert str(path) in str(caught.value)
    assert "No space left" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old"
    assert files_in(tmp_path) == {"f.csv"}


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("")
    with pytest.raises(OSError, match=r"could not write .*pictures/curves\.png: "):
        artifacts.save_figure(make_trainer(tmp_path), "curves", make_figure())


def test_pyplot_is_never_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it is an error from here
    board = TensorBoardLogger(tmp_path, name="", version="")
    assert artifacts.save_figure(make_trainer(tmp_path, board), "curves", make_figure())
    board.experiment.close()


def test_importing_loads_nothing_heavy() -> None:
    code = """
import sys, lightning_cifar.artifacts, lightning_cifar.plots as plots
heavy = {"matplotlib", "torch", "lightning"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
plots.draw_loss_curves(train_loss=[(1, 2)]), plots.draw_confusion([[1]], ["a"]), plots.draw_image_grid([[[[0]]]])
assert not {"matplotlib.pyplot", "torch", "lightning"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
