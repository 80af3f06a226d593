"""Where the pictures and tables of a run go: files under the run's folder, and every logger that takes images.

Everything here acts on global rank zero only, writes nothing in ``fast_dev_run``, and works without any logger. A file
appears whole or not at all. Nothing here communicates between ranks, so that a caller may guard it by rank.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from lightning_cifar.files.atomic import write_atomically
from lightning_cifar.files.reading import MissingFileError, UnreadableFileError, read_bytes, read_npz
from lightning_cifar.files.tables import to_csv

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from matplotlib.figure import Figure

DPI = 120
"""Dots per inch of every picture: a figure of 7 inches is 840 pixels wide."""


def run_folder(trainer: Trainer) -> Path:
    """The folder of this run: the first logger's ``log_dir``, else its ``save_dir``, else ``default_root_dir``.

    Unlike ``trainer.log_dir`` it does not broadcast, so that rank zero alone may ask.
    """
    for logger in trainer.loggers[:1]:
        for attribute in ("log_dir", "save_dir"):
            folder = getattr(logger, attribute, None)
            if isinstance(folder, str | os.PathLike) and os.fspath(folder):
                return Path(folder)
    return Path(trainer.default_root_dir)


def save_figure(trainer: Trainer, name: str, figure: Figure, *, step: int | None = None) -> Path | None:
    """Write ``pictures/<name>.png`` and give the picture to every logger that takes images.

    Args:
        trainer: its loggers and folders are used.
        name: may contain ``/``; it is also the tag in the loggers.
        figure: is left open and unchanged.
        step: on the loggers' axis; the trainer's global step if not given.

    Returns:
        The file, or None where nothing is written.

    Raises:
        OSError: the file cannot be written; the message names it.
    """
    if not _writes(trainer):
        return None
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    path = run_folder(trainer) / "pictures" / f"{name}.png"
    write_atomically(path, buffer.getvalue())

    step = trainer.global_step if step is None else step
    pixels = None
    for logger in trainer.loggers:
        log_image = getattr(logger, "log_image", None)
        add_image = getattr(getattr(logger, "experiment", None), "add_image", None)
        if log_image is None and add_image is None:
            continue
        if pixels is None:
            pixels = np.asarray(Image.open(buffer).convert("RGB"))
        if log_image is not None:
            log_image(key=name, images=[pixels], step=step)
        elif add_image is not None:
            # Not add_figure: it imports pyplot, and closes a figure that it does not own.
            add_image(name, pixels, step, dataformats="HWC")
    return path


def save_animation(trainer: Trainer, name: str, files: Mapping[str, bytes], *, step: int | None = None) -> list[Path]:
    """Write ``pictures/<name>.<format>`` for each format, and give a GIF to TensorBoard, whose image panel plays it.

    Args:
        trainer: see :func:`save_figure`.
        name: likewise.
        files: contents by format, see :func:`lightning_cifar.plots.encode_animation`.
        step: see :func:`save_figure`.

    Returns:
        The files; none where nothing is written.

    Raises:
        OSError: a file cannot be written; the message names it.
    """
    if not _writes(trainer):
        return []
    paths = {suffix: run_folder(trainer) / "pictures" / f"{name}.{suffix}" for suffix in files}
    for suffix, path in paths.items():
        write_atomically(path, files[suffix])
    if "gif" in paths:
        _show_gif(trainer, name, paths["gif"], step)
    return list(paths.values())


class FrameStore:
    """What the frames of an animation are drawn from, on disk from the moment it is known: nothing stays in memory.

    Frames are numbered from 0, a file each. Like all of this module it is for global rank zero.

    Args:
        folder: made when the first frame is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, index: int, **arrays: ArrayLike) -> None:
        """Write a frame, or write it anew."""
        buffer = io.BytesIO()
        np.savez(buffer, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]
        write_atomically(self._path(index), buffer.getvalue())

    def read(self, index: int) -> dict[str, NDArray[np.generic]] | None:
        """The arrays of a frame; None if its file is gone.

        Raises:
            UnreadableFileError: The file is damaged.
        """
        try:
            return read_npz(self._path(index))
        except MissingFileError:
            return None

    def keep(self, count: int) -> None:
        """Remove the frames from number ``count`` on."""
        for path in self.folder.glob("[0-9]*.npz"):
            if path.stem.isdecimal() and int(path.stem) >= count:
                path.unlink(missing_ok=True)

    def copy_from(self, other: FrameStore, count: int) -> None:
        """Copy the other's first ``count`` frames, as far as they can be read."""
        for index in range(count):
            with suppress(UnreadableFileError):
                write_atomically(self._path(index), read_bytes(other._path(index)))

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npz"


def frame_store(run: Path, name: str) -> FrameStore:
    """The store ``pictures/.frames/<name>`` in a run's folder. It outlives the run, for runs that resume it."""
    return FrameStore(run / "pictures" / ".frames" / name)


def save_table(trainer: Trainer, name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path | None:
    """Write ``<name>.csv`` into the run's folder, one line of names first."""
    if not _writes(trainer):
        return None
    path = run_folder(trainer) / f"{name}.csv"
    write_atomically(path, to_csv(header, rows))
    return path


def save_json(trainer: Trainer, name: str, value: object) -> Path | None:
    """Write ``<name>.json`` into the run's folder. Tensors and arrays become lists; what is not finite, null."""
    if not _writes(trainer):
        return None
    plain = json.loads(json.dumps(value, default=_to_plain), parse_constant=lambda _: None)
    path = run_folder(trainer) / f"{name}.json"
    write_atomically(path, (json.dumps(plain, indent=2, ensure_ascii=False) + "\n").encode())
    return path


def save_page(trainer: Trainer, name: str, html: str) -> Path | None:
    """Write ``<name>.html`` into the run's folder."""
    if not _writes(trainer):
        return None
    path = run_folder(trainer) / f"{name}.html"
    write_atomically(path, html.encode())
    return path


def _show_gif(trainer: Trainer, name: str, path: Path, step: int | None) -> None:
    writers = [getattr(getattr(logger, "experiment", None), "file_writer", None) for logger in trainer.loggers]
    for writer in filter(None, writers):
        from tensorboard.compat.proto.summary_pb2 import Summary

        with Image.open(path) as first:
            width, height = first.size
        image = Summary.Image(encoded_image_string=path.read_bytes(), height=height, width=width, colorspace=3)
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        writer.add_summary(summary, trainer.global_step if step is None else step)


def _writes(trainer: Trainer) -> bool:
    return trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined,unused-ignore]


def _to_plain(value: object) -> object:
    to_list = getattr(value, "tolist", None)
    if to_list is not None:
        return to_list()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"cannot write a {type(value).__name__} as JSON: {value!r}")
