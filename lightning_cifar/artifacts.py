"""Write the pictures and tables of a run to files in its folder and to the loggers that accept images.

The functions act only on global rank zero, write nothing in ``fast_dev_run``, and work without a logger. They write
files atomically, and do not communicate between ranks, so that they can be called on one rank.
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
"""Dots per inch of all pictures: a figure of 7 inches is 840 pixels wide."""


def run_folder(trainer: Trainer) -> Path:
    """Return the folder of a run: ``log_dir`` or ``save_dir`` of the first logger, else ``default_root_dir``.

    Unlike ``trainer.log_dir``, it does not broadcast, so that it can be called on rank zero only.
    """
    for logger in trainer.loggers[:1]:
        for attribute in ("log_dir", "save_dir"):
            folder = getattr(logger, attribute, None)
            if isinstance(folder, str | os.PathLike) and os.fspath(folder):
                return Path(folder)
    return Path(trainer.default_root_dir)


def save_figure(trainer: Trainer, name: str, figure: Figure, *, step: int | None = None) -> Path | None:
    """Write ``pictures/<name>.png``, and log the picture with each logger that accepts images.

    Args:
        trainer: Trainer with the loggers and the folder.
        name: Name of the file, which can contain ``/``, and tag in the loggers.
        figure: The figure, which stays open and unchanged.
        step: Step in the loggers; None means the global step.

    Returns:
        The file, or None if nothing is written.
    """
    if not _writes(trainer):
        return None
    path = run_folder(trainer) / "pictures" / f"{name}.png"
    content = write_picture(path, figure)

    step = trainer.global_step if step is None else step
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) if trainer.loggers else None
    for logger in trainer.loggers:
        log_image = getattr(logger, "log_image", None)
        add_image = getattr(getattr(logger, "experiment", None), "add_image", None)
        if log_image is not None:
            log_image(key=name, images=[pixels], step=step)
        elif add_image is not None:
            # Not add_figure: it imports pyplot and closes the figure.
            add_image(name, pixels, step, dataformats="HWC")
    return path


def write_picture(path: Path, figure: Figure) -> bytes:
    """Write a figure as a PNG file, and return the content of the file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    write_atomically(path, buffer.getvalue())
    return buffer.getvalue()


def save_animation(trainer: Trainer, name: str, files: Mapping[str, bytes], *, step: int | None = None) -> list[Path]:
    """Write ``pictures/<name>.<format>`` for each format, and log a GIF with TensorBoard, which plays it.

    Args:
        trainer: Trainer with the loggers and the folder.
        name: Name of the files, and tag in TensorBoard.
        files: Contents by format, see :func:`lightning_cifar.plots.encode_animation`.
        step: Step in TensorBoard; None means the global step.

    Returns:
        The files; empty if nothing is written.
    """
    if not _writes(trainer):
        return []
    paths = {suffix: run_folder(trainer) / "pictures" / f"{name}.{suffix}" for suffix in files}
    for suffix, path in paths.items():
        write_atomically(path, files[suffix])
    writers = [getattr(getattr(logger, "experiment", None), "file_writer", None) for logger in trainer.loggers]
    for writer in filter(None, writers if "gif" in paths else ()):
        from tensorboard.compat.proto.summary_pb2 import Summary

        with Image.open(paths["gif"]) as first:
            width, height = first.size
        image = Summary.Image(encoded_image_string=files["gif"], height=height, width=width, colorspace=3)
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        writer.add_summary(summary, trainer.global_step if step is None else step)
    return list(paths.values())


class FrameStore:
    """Store of the arrays from which the frames of an animation are drawn, one file for each frame.

    Frames are numbered from 0. Use it on global rank zero only.

    Args:
        folder: Folder, which is created with the first frame.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, index: int, **arrays: ArrayLike) -> None:
        """Write or overwrite a frame."""
        buffer = io.BytesIO()
        np.savez(buffer, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]
        write_atomically(self._path(index), buffer.getvalue())

    def read(self, index: int) -> dict[str, NDArray[np.generic]] | None:
        """Read the arrays of a frame; None if its file does not exist.

        Raises:
            UnreadableFileError: If the file is damaged.
        """
        try:
            return read_npz(self._path(index))
        except MissingFileError:
            return None

    def keep(self, count: int) -> None:
        """Remove all frames but the first ``count``."""
        for path in self.folder.glob("[0-9]*.npz"):
            if path.stem.isdecimal() and int(path.stem) >= count:
                path.unlink(missing_ok=True)

    def copy_from(self, other: FrameStore, count: int) -> None:
        """Copy those of the first ``count`` frames of another store that can be read."""
        for index in range(count):
            with suppress(UnreadableFileError):
                write_atomically(self._path(index), read_bytes(other._path(index)))

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npz"


def frame_store(run: Path, name: str) -> FrameStore:
    """Return the store ``pictures/.frames/<name>`` of a run. It is kept for runs that resume the run."""
    return FrameStore(run / "pictures" / ".frames" / name)


def save_table(trainer: Trainer, name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path | None:
    """Write ``<name>.csv`` with a header into the folder of the run."""
    return _save(trainer, f"{name}.csv", to_csv(header, rows))


def save_json(trainer: Trainer, name: str, value: object) -> Path | None:
    """Write ``<name>.json`` into the folder of the run. Tensors and arrays become lists; NaN and infinity null."""
    plain = json.loads(json.dumps(value, default=_to_plain), parse_constant=lambda _: None)
    return _save(trainer, f"{name}.json", (json.dumps(plain, indent=2, ensure_ascii=False) + "\n").encode())


def save_page(trainer: Trainer, name: str, html: str) -> Path | None:
    """Write ``<name>.html`` into the folder of the run."""
    return _save(trainer, f"{name}.html", html.encode())


def _save(trainer: Trainer, name: str, content: bytes) -> Path | None:
    if not _writes(trainer):
        return None
    path = run_folder(trainer) / name
    write_atomically(path, content)
    return path


def _writes(trainer: Trainer) -> bool:
    return trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined,unused-ignore]


def _to_plain(value: object) -> object:
    to_list = getattr(value, "tolist", None)
    if to_list is not None:
        return to_list()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"cannot write a {type(value).__name__} as JSON: {value!r}")
