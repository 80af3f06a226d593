"""Images in rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from lightning_cifar.plots.plain_figure import PlainFigure
from lightning_cifar.plots.sheet import add_sheet_axes, check_images, check_lengths, draw_tile

_CELL = 1.05  # width of one image in inches


def to_displayable(
    images: ArrayLike, mean: ArrayLike | None = None, std: ArrayLike | None = None
) -> NDArray[np.float32]:
    """Undo the normalisation of images (N, C, H, W); returns floats (N, H, W, C) in [0, 1].

    ``mean`` and ``std`` (one per channel or one for all, of images in [0, 1]) undo it exactly, and values are clipped.
    Without valid ones, bytes are divided by 255, images in [0, 1] stay the same, and other images are scaled from their
    common minimum to their common maximum.
    """
    array = np.asarray(images)
    if array.dtype == np.uint8:
        array = array / np.float32(255)
    array = np.moveaxis(array.astype(np.float32), 1, -1)
    channels = array.shape[-1]
    shift, scale = (per_channel(values, channels) for values in (mean, std))
    if shift is not None and scale is not None:
        array = array * scale + shift
    elif array.size and (array.min() < 0 or array.max() > 1):
        array = (array - array.min()) / max(float(np.ptp(array)), 1e-12)
    return array.clip(0, 1)


def per_channel(values: ArrayLike | None, channels: int) -> NDArray[np.float32] | None:
    """Finite numbers (C,), or (1,) for all channels; None for other objects, such as those of external data modules."""
    try:
        numbers = np.asarray(values, dtype=np.float32).ravel()  # (C, 1, 1) too
    except (TypeError, ValueError):
        return None
    return numbers if numbers.size in (1, channels) and np.isfinite(numbers).all() else None


def draw_image_grid(
    images: ArrayLike,
    titles: Sequence[str] | None = None,
    *,
    columns: int = 8,
    suptitle: str = "",
) -> Figure:
    """Draw images in rows, enlarged without smoothing, each with its title.

    Args:
        images: (N, H, W, C) as bytes or floats in [0, 1]; C is 3, or 1 for grey.
        titles: N titles.
        columns: Images in a row.
        suptitle: Title of the picture.

    Raises:
        ValueError: The images have another shape, there is none, or a list does not have N entries.
    """
    array = check_images(images)
    check_lengths(len(array), titles=titles)
    columns = min(columns, len(array))
    rows = math.ceil(len(array) / columns)
    cell, gap, above = _CELL * array.shape[1] / array.shape[2], 0.24 if titles else 0.06, 0.4 if suptitle else 0.0
    width, height = columns * (_CELL + 0.06), rows * (cell + gap) + above + 0.03
    figure = PlainFigure(figsize=(width, height))
    if suptitle:
        figure.suptitle(suptitle, size=11, y=1 - 0.1 / height, va="top")
    axes = add_sheet_axes(figure)
    for index, image in enumerate(array):
        row, column = divmod(index, columns)
        x, y = 0.03 + column * (_CELL + 0.06), above + gap + row * (cell + gap)
        draw_tile(axes, image, (x, y, _CELL, cell))
        if titles is not None:
            axes.text(x + _CELL / 2, y - 0.03, titles[index], size=8.5, ha="center", va="bottom")
    return figure
