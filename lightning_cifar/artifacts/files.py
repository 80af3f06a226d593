"""Write pictures, tables and pages to the folder of a run, and pictures to its loggers."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lightning_cifar.files.atomic import write_atomically
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


def save_figure(
    trainer: Trainer, name: str, figure: Figure, *, tag: str | None = None, step: int | None = None
) -> Path | None:
    """Write ``pictures/<name>.png``, and log the picture with each logger that accepts images.

    Args:
        trainer: Trainer with the loggers and the folder.
        name: Name of the file, which can contain ``/``.
        figure: The figure, which stays open and unchanged.
        tag: Tag in the loggers, kind before stage, such as ``confusion/val``; None means the name.
        step: Step in the loggers; None means the last completed step.

    Returns:
        The file, or None if nothing is written.
    """
    if not writes(trainer):
        return None
    path = run_folder(trainer) / "pictures" / f"{name}.png"
    content = write_picture(path, figure)
    step, tag = last_step(trainer) if step is None else step, tag or name
    _log_encoded(trainer, tag, content, step)
    for log_image in filter(None, (getattr(logger, "log_image", None) for logger in trainer.loggers)):
        log_image(key=tag, images=[np.asarray(Image.open(io.BytesIO(content)))], step=step)
    return path


def write_picture(path: Path, figure: Figure) -> bytes:
    """Write a figure as a PNG file, and return the content of the file."""
    from lightning_cifar.plots.rendering import to_png  # imports matplotlib

    content = to_png(figure, DPI)
    write_atomically(path, content)
    return content


def _log_encoded(trainer: Trainer, tag: str, content: bytes, step: int) -> None:
    """Log the content of a PNG or GIF file with TensorBoard, whose ``add_image`` would encode pixels again."""
    writers = (getattr(getattr(logger, "experiment", None), "_get_file_writer", None) for logger in trainer.loggers)
    for writer in filter(None, writers):
        from tensorboard.compat.proto.summary_pb2 import Summary

        with Image.open(io.BytesIO(content)) as first:
            width, height = first.size
        image = Summary.Image(encoded_image_string=content, height=height, width=width, colorspace=3)
        writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)


def save_animation(
    trainer: Trainer, name: str, files: Mapping[str, bytes], *, tag: str | None = None, step: int | None = None
) -> list[Path]:
    """Write ``pictures/<name>.<format>`` for each format, and log a GIF with TensorBoard, which plays it.

    Args:
        trainer: Trainer with the loggers and the folder.
        name: Name of the files.
        files: Contents by format, see :func:`lightning_cifar.plots.encode_animation`.
        tag: Tag in TensorBoard; None means the name.
        step: Step in TensorBoard; None means the last completed step.

    Returns:
        The files; empty if nothing is written.
    """
    if not writes(trainer):
        return []
    paths = {suffix: run_folder(trainer) / "pictures" / f"{name}.{suffix}" for suffix in files}
    for suffix, path in paths.items():
        write_atomically(path, files[suffix])
    if "gif" in files:
        _log_encoded(trainer, tag or name, files["gif"], last_step(trainer) if step is None else step)
    return list(paths.values())


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
    if not writes(trainer):
        return None
    path = run_folder(trainer) / name
    write_atomically(path, content)
    return path


def writes(trainer: Trainer) -> bool:
    """Return whether files are written: on global rank zero, but not in ``fast_dev_run``."""
    return trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined,unused-ignore]


def last_step(trainer: Trainer) -> int:
    """Return the index of the last completed step, as Lightning logs it.

    A continued run hides the values of an interrupted one from the next step on.
    """
    return max(trainer.global_step - 1, 0)


def _to_plain(value: object) -> object:
    to_list = getattr(value, "tolist", None)
    if to_list is not None:
        return to_list()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"cannot write a {type(value).__name__} as JSON: {value!r}")
