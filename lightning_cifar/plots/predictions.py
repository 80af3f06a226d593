"""Images under what a classifier said of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from lightning_cifar.plots.plain_figure import PlainFigure
from lightning_cifar.plots.wrapping import wrap

# Sizes in inches, see plots/feature_maps.py.
_TILE = 1.15
_GAP = 0.14
_TEXT = 0.15
_EDGE = 0.15
_LINE = 0.19
_NARROWEST = 5.0

_RIGHT, _WRONG = "0.2", "#c00000"
_LONGEST = 20
"""Letters that fit under an image."""


def draw_predictions(
    images: ArrayLike,
    predicted: Sequence[str],
    true: Sequence[str],
    probabilities: ArrayLike,
    *,
    numbers: Sequence[int] | None = None,
    columns: int = 8,
    title: str = "",
) -> Figure:
    """Images in rows of ``columns``, each with its predicted class and the probability of that.

    A mistake has a red frame, a cross before the prediction, and the true class below it.

    Args:
        images: (N, H, W, C) as bytes or floats in [0, 1]; C is 3, or 1 for grey. N may be 0: the title is all then.
        predicted: N names.
        true: N names.
        probabilities: (N,), of the predicted class, in [0, 1].
        numbers: N of them, written below where given.
        columns: images in a row.
        title: above all.

    Raises:
        ValueError: the images are not of such a shape, or a list is not N long.
    """
    pixels, shares = np.asarray(images), np.asarray(probabilities, float)
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3):
        raise ValueError(f"images must be (N, H, W, C) with 1 or 3 channels, these are {pixels.shape}")
    for name, values in (("predicted", predicted), ("true", true), ("probabilities", shares), ("numbers", numbers)):
        if values is not None and len(values) != len(pixels):
            raise ValueError(f"{len(values)} {name} do not go with {len(pixels)} images")

    columns = max(1, min(columns, len(pixels)))
    rows = math.ceil(len(pixels) / columns)
    tall = _TILE * pixels.shape[1] / max(pixels.shape[2], 1)
    lines = 2 if numbers is None else 3
    step = tall + lines * _TEXT + _GAP
    width = max(2 * _EDGE + columns * (_TILE + _GAP) - _GAP, _NARROWEST)
    head = wrap(title, max(20, int((width - 2 * _EDGE) / 0.083))).splitlines()
    top = _EDGE + _LINE * len(head) + 0.08
    figure = PlainFigure(figsize=(width, height := top + rows * step + 0.02))
    for index, line in enumerate(head):
        figure.text(_EDGE / width, 1 - (_EDGE + _LINE * (index + 0.5)) / height, line, size=10, va="center")
    # One axes for all, in inches from the upper left corner: 32 axes take longer to draw than an epoch of a small net.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    for index, image in enumerate(pixels):
        place = _EDGE + index % columns * (_TILE + _GAP), top + index // columns * step, tall
        said = _words(predicted[index], true[index], float(shares[index]))
        if numbers is not None:
            said.append(f"image {numbers[index]}")
        _draw_one(axes, image, said, place, right=predicted[index] == true[index])
    # The images have moved the limits.
    axes.set(xlim=(0, width), ylim=(height, 0))
    return figure


def _words(predicted: str, true: str, share: float) -> list[str]:
    """The prediction, and the truth where that is another."""
    likely = f" {_percent(share)} %"
    if predicted == true:
        return [_shorten(predicted, _LONGEST - len(likely)) + likely]
    cross = "\N{BALLOT X} "
    return [
        cross + _shorten(predicted, _LONGEST - len(cross) - len(likely)) + likely,
        "is " + _shorten(true, _LONGEST - 3),
    ]


def _draw_one(
    axes: Axes,
    image: NDArray[np.generic],
    lines: Sequence[str],
    place: tuple[float, float, float],
    *,
    right: bool,
) -> None:
    """Left, top and height of the image are its place; the lines stand below."""
    x, y, tall = place
    axes.imshow(
        image[:, :, 0] if image.shape[-1] == 1 else image,
        extent=(x, x + _TILE, y + tall, y),
        interpolation="nearest" if image.shape[1] <= 120 else "auto",
        aspect="auto",
        cmap="gray",
        vmin=0,
        vmax=255 if image.dtype == np.uint8 else 1,
    )
    if not right:
        axes.add_patch(Rectangle((x, y), _TILE, tall, fill=False, edgecolor=_WRONG, linewidth=2.5, clip_on=False))
    for row, text in enumerate(lines):
        axes.text(
            x + _TILE / 2,
            y + tall + 0.05 + (row + 0.5) * _TEXT,
            text,
            ha="center",
            va="center",
            size=7.5,
            color="0.4" if row == 2 else _RIGHT if right else _WRONG,
        )


def _percent(share: float) -> str:
    """Rounded, but never to 100 from below: ``99.9`` for .9987, ``>99.9`` for .99999."""
    if math.isnan(share):
        return "?"
    percent = 100 * share
    if percent < 98.5:
        return f"{percent:.0f}"
    return f"{percent:.1f}" if percent < 99.95 else ">99.9"


def _shorten(name: str, length: int) -> str:
    return name if len(name) <= max(length, 4) else name[: max(length, 4) - 1] + "\N{HORIZONTAL ELLIPSIS}"
