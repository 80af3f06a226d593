"""Stored frames of :class:`WeightGIF`, and their state in a checkpoint."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from lightning_cifar.artifacts import FrameStore
from lightning_cifar.files.reading import UnreadableFileError


class FramesState(TypedDict):
    """State of the animation in a checkpoint."""

    run: str
    """Identifies the frames of a training run, in all folders."""
    count: int
    folder: str
    """Folder of the last frame, to which count, epoch and step belong too."""
    epoch: float
    step: int
    metric: float | None
    """Latest value, which a resumed run shows until it has a new one."""


class Frame(NamedTuple):
    """Weights at one time."""

    run: str
    weights: NDArray[np.float32]
    epoch: float
    step: int
    metric: float  # NaN if missing


def no_frames() -> FramesState:
    """Return the state of a new training."""
    return FramesState(run=secrets.token_hex(8), count=0, folder="", epoch=0.0, step=0, metric=None)


def read_frame(store: FrameStore, index: int, shape: tuple[int, ...]) -> Frame | None:
    """Read a frame; None if its file is missing, damaged, or the weights have another shape."""
    try:
        held = store.read(index)
        if held is None or held["weights"].shape != shape:
            return None
        numbers = float(held["epoch"]), int(held["step"]), float(held["metric"])
        return Frame(str(held["run"]), held["weights"].astype(np.float32), *numbers)
    except (UnreadableFileError, KeyError, TypeError, ValueError):
        return None


def warn_of_damage(store: FrameStore, damaged: Sequence[int]) -> None:
    """Warn of missing or damaged frames, if any."""
    if damaged:
        names = ", ".join(f"{index:06d}.npz" for index in damaged[:3]) + (" ..." if len(damaged) > 3 else "")
        what = f"{len(damaged)} frames in {store.folder} are missing or damaged"
        rank_zero_warn(f"WeightGIF: {what} ({names}): not shown.")
