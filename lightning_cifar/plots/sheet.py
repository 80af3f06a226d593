"""Sheets of images with text. Positions and sizes are in inches from the upper left corner.

A figure with fixed positions draws several times faster than one with a layout engine, and one axes for all images much
faster than an axes for each image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

Pixels = NDArray[np.generic]


def check_images(images: ArrayLike, least: int = 1) -> Pixels:
    """Return images as an array (N, H, W, C); raise ValueError for another shape or fewer than ``least`` images."""
    array = np.asarray(images)
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or len(array) < least:
        raise ValueError(f"images must be (N, H, W, C) with 1 or 3 channels and N >= {least}, not {array.shape}")
    return array


def check_lengths(count: int, **lists: Sequence[object] | NDArray[np.float64] | None) -> None:
    """Raise ValueError if a list does not have ``count`` entries, one for each image; None is allowed."""
    for name, values in lists.items():
        if values is not None and len(values) != count:
            raise ValueError(f"{len(values)} {name} do not match {count} images: give one for each image")


def write_heading(figure: Figure, lines: Sequence[str], edge: float, line_height: float, size: float) -> None:
    """Write lines of text into the upper left corner."""
    width, height = figure.get_size_inches()
    for index, line in enumerate(lines):
        y = 1 - (edge + line_height * (index + 0.5)) / height
        figure.text(edge / width, y, line, size=size, va="center", parse_math=False)


def add_sheet_axes(figure: Figure) -> Axes:
    """Add axes over the whole figure, whose units are inches."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return axes


def draw_tile(axes: Axes, image: Pixels, box: tuple[float, float, float, float], frame: str = "") -> None:
    """Draw an image (H, W, C) into a box (left, top, width, height), with a frame if a colour is given."""
    x, y, width, height = box
    axes.imshow(
        image[:, :, 0] if image.shape[-1] == 1 else image,
        extent=(x, x + width, y + height, y),
        interpolation="nearest" if image.shape[1] <= 120 else "antialiased",
        aspect="auto",
        cmap="gray",
        vmin=0,
        vmax=255 if image.dtype == np.uint8 else 1,
    )
    if frame:
        axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=frame, linewidth=2.5, clip_on=False))
