"""Animations as a GIF and as a lossless WebP, which shows every pixel exactly at a third of the size."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
MOST_FRAMES = 240
_MOST_PIXELS = 2**26  # of all frames together, which imageio and Pillow hold until the end, with 5 bytes a pixel
_PALETTES: dict[str, Any] = {"bits": 8}  # one for each frame: exact up to 256 colours, without dithering
_LOSSLESS: dict[str, Any] = {"lossless": True, "quality": 0, "method": 2}  # 4 times faster than by default, 3 % larger


def evenly(items: Sequence[T], most: int) -> Sequence[T]:
    """Select at most ``most`` items at even distances, the first and the last among them."""
    places = np.linspace(0, len(items) - 1, min(len(items), most))
    return [items[index] for index in places.round().astype(int)]


def encode_animation(
    items: Sequence[T],
    draw: Callable[[Sequence[T]], Iterable[NDArray[np.uint8]]],
    seconds_per_frame: float,
    last: int = 1,
    most: int = MOST_FRAMES,
) -> dict[str, bytes]:
    """Encode one frame for each item, or for evenly selected ones, as files ``gif`` and ``webp`` that repeat forever.

    Args:
        items: At least one.
        draw: Returns the frames of selected items, (H, W, 3) and all of one size, one by one.
        seconds_per_frame: Between 0.02 (browsers show shorter frames for 0.1 s) and 60.
        last: The last frame stays for the time of this many frames.
        most: Largest number of frames, up to 240.
    """
    from imageio.v3 import imopen

    shown = evenly(items, min(most, MOST_FRAMES))
    frames = iter(draw(shown))
    height, width, _ = (start := next(frames)).shape
    if len(shown) > (room := max(2, _MOST_PIXELS // (height * width))):
        return encode_animation(items, draw, seconds_per_frame, last, room)
    # Ends are rounded, not durations: a GIF counts hundredths of a second, and the rounding must not add up.
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
