"""Images with their predicted classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from lightning_cifar.plots.plain_figure import PlainFigure
from lightning_cifar.plots.sheet import add_sheet_axes, check_images, check_lengths, draw_tile, write_heading
from lightning_cifar.plots.wrapping import percent, shorten, wrap

# Inches.
_TILE = 1.15
_GAP = 0.14
_TEXT = 0.15
_EDGE = 0.15
_LINE = 0.19
_NARROWEST = 5.0

_RIGHT, _WRONG = "0.2", "#c00000"
_LONGEST = 20  # letters that fit below an image


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
    """Draw images in rows, each with its predicted class and the probability of that class.

    A mistake has a red frame, a cross before the prediction, and the true class below it.

    Args:
        images: (N, H, W, C) as bytes or floats in [0, 1]; C is 3, or 1 for grey. With N = 0 only the title is drawn.
        predicted: N names.
        true: N names.
        probabilities: (N,), probabilities of the predicted classes, in [0, 1].
        numbers: N numbers to write below the images, or None.
        columns: Images in a row.
        title: Title of the picture.

    Raises:
        ValueError: The images have another shape, or a list does not have N entries.
    """
    pixels, shares = check_images(images, least=0), np.asarray(probabilities, float)
    check_lengths(len(pixels), predicted=predicted, true=true, probabilities=shares, numbers=numbers)
    columns = max(1, min(columns, len(pixels)))
    rows = math.ceil(len(pixels) / columns)
    tall = _TILE * pixels.shape[1] / max(pixels.shape[2], 1)
    lines = 2 if numbers is None else 3
    step = tall + lines * _TEXT + _GAP
    width = max(2 * _EDGE + columns * (_TILE + _GAP) - _GAP, _NARROWEST)
    head = wrap(title, max(20, int((width - 2 * _EDGE) / 0.083))).splitlines()
    top = _EDGE + _LINE * len(head) + 0.08
    figure = PlainFigure(figsize=(width, top + rows * step + 0.02))
    write_heading(figure, head, _EDGE, _LINE, 10)
    axes = add_sheet_axes(figure)
    for index, image in enumerate(pixels):
        x, y = _EDGE + index % columns * (_TILE + _GAP), top + index // columns * step
        is_right = predicted[index] == true[index]
        draw_tile(axes, image, (x, y, _TILE, tall), "" if is_right else _WRONG)
        texts = _caption(predicted[index], true[index], float(shares[index]))
        if numbers is not None:
            texts.append(f"image {numbers[index]}")
        for row, text in enumerate(texts):
            color = "0.4" if row == 2 else _RIGHT if is_right else _WRONG
            middle = x + _TILE / 2, y + tall + 0.05 + (row + 0.5) * _TEXT
            axes.text(*middle, text, ha="center", va="center", size=7.5, color=color)
    return figure


def _caption(predicted: str, true: str, share: float) -> list[str]:
    """The predicted class, and the true class of a mistake."""
    likely = f" {percent(share)}"
    if predicted == true:
        return [shorten(predicted, _LONGEST - len(likely)) + likely]
    cross = "\N{BALLOT X} "
    return [
        cross + shorten(predicted, _LONGEST - len(cross) - len(likely)) + likely,
        "is " + shorten(true, _LONGEST - 3),
    ]
