"""Animations as GIF and as lossless WebP, which keeps every pixel exactly at a third of the size."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
MOST_FRAMES = 240
_MOST_PIXELS = 2**26  # of all frames together, which imageio and Pillow keep in memory, with 5 bytes a pixel
_PALETTES: dict[str, Any] = {"bits": 8}  # one for each frame: exact up to 256 colours, without dithering
_LOSSLESS: dict[str, Any] = {"lossless": True, "quality": 0, "method": 2}  # 4 times faster than by default, 3 % larger


def evenly(items: Sequence[T], most: int) -> Sequence[T]:
    """Select at most ``most`` items at even distances, with the first and the last."""
    indices = np.linspace(0, len(items) - 1, min(len(items), most))
    return [items[index] for index in indices.round().astype(int)]


def encode_animation(
    items: Sequence[T],
    draw: Callable[[Sequence[T]], Iterable[NDArray[np.uint8]]],
    seconds_per_frame: float,
    last: int = 1,
    most: int = MOST_FRAMES,
) -> dict[str, bytes]:
    """Encode one frame for each item, or for evenly selected items, as files ``gif`` and ``webp`` that loop forever.

    Args:
        items: One or more items.
        draw: Yields the frames (H, W, 3) of selected items, all of the same size.
        seconds_per_frame: Between 0.02 (browsers show shorter frames for 0.1 s) and 60.
        last: Duration of the last frame, in frames.
        most: Largest number of frames, up to 240.
    """
    from imageio.v3 import imopen

    shown = evenly(items, min(most, MOST_FRAMES))
    frames = iter(draw(shown))
    height, width, _ = (start := next(frames)).shape
    if len(shown) > (room := max(2, _MOST_PIXELS // (height * width))):
        return encode_animation(items, draw, seconds_per_frame, last, room)
    # Ends are rounded, not durations: a GIF counts hundredths of a second, and rounding errors must not add up.
    ends = np.rint(np.append(np.arange(len(shown)), len(shown) - 1 + last) * seconds_per_frame * 100)
    durations = (np.diff(ends) * 10).astype(int).tolist()
    timing = {"loop": 0, "duration": durations if len(shown) > 1 else durations[0]}
    files = {".gif": io.BytesIO(), ".webp": io.BytesIO()}
    gif, webp = (imopen(file, "w", plugin="pillow", extension=suffix) for suffix, file in files.items())
    with gif, webp:
        for frame in chain([start], frames):
            gif.write(frame, **timing, **_PALETTES)
            webp.write(frame, **timing, **_LOSSLESS)
    return {suffix[1:]: file.getvalue() for suffix, file in files.items()}
