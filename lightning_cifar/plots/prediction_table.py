"""Photographs on a sheet, with predicted and true classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from numpy.typing import ArrayLike

from lightning_cifar.plots.plain_figure import PlainFigure
from lightning_cifar.plots.sheet import (
    Pixels,
    add_sheet_axes,
    check_images,
    check_lengths,
    draw_tile,
    write_heading,
)
from lightning_cifar.plots.wrapping import percent, wrap

# Inches.
_TILE = 1.9
_GAP = 0.22
_EDGE = 0.18
_LINE = 0.165
_NARROWEST = 6.2

_LETTERS = 26  # that fit above an image
_SMALL_LETTERS = 30  # that fit below an image, in the size of file names
_RIGHT, _WRONG, _UNKNOWN, _QUIET = "#1a6b2f", "#c00000", "black", "0.45"


class PredictedPhotograph(NamedTuple):
    """Texts of one image."""

    predicted: str
    """The most probable class."""
    probability: float
    """Probability of this class, in [0, 1]."""
    true: str | None
    """The true class; None if it is unknown."""
    caption: str
    """Text below the image, for example the name of the file."""


def draw_photographs(
    images: ArrayLike, photographs: Sequence[PredictedPhotograph], *, columns: int = 5, title: str = ""
) -> Figure:
    """Draw images in rows, each with the predicted class and its probability as title.

    Below are the true class, if it is known, and the caption. A mistake has a red frame and a red title; the title of
    a correct prediction is green.

    Args:
        images: (N, H, W, C) as bytes or floats in [0, 1]; C is 3, or 1 for grey.
        photographs: N of them.
        columns: Images in a row.
        title: Title of the picture.

    Raises:
        ValueError: The images have another shape, or their number is 0 or not that of the photographs.
    """
    pixels = check_images(images)
    check_lengths(len(pixels), photographs=photographs)
    titles = [_wrap(f"{_drawable(each.predicted)} {percent(each.probability)}") for each in photographs]
    columns = max(1, min(columns, len(pixels)))
    rows = math.ceil(len(pixels) / columns)
    over = max(map(len, titles))
    num_below = 1 + any(each.true is not None for each in photographs)
    tall = _TILE * pixels.shape[1] / max(pixels.shape[2], 1)
    step = (over + num_below) * _LINE + tall + _GAP
    width = max(2 * _EDGE + columns * (_TILE + _GAP) - _GAP, _NARROWEST)
    head = wrap(_drawable(title), max(20, int((width - 2 * _EDGE) / 0.09))).splitlines()
    top = _EDGE + 0.2 * len(head) + 0.08
    figure = PlainFigure(figsize=(width, top + rows * step))
    write_heading(figure, head, _EDGE, 0.2, 11)
    axes = add_sheet_axes(figure)
    for index, (image, photograph, lines) in enumerate(zip(pixels, photographs, titles, strict=True)):
        x = _EDGE + index % columns * (_TILE + _GAP)
        y = top + index // columns * step + over * _LINE
        _draw_one(axes, image, photograph, lines, (x, y, _TILE, tall))
    return figure


def _draw_one(
    axes: Axes,
    image: Pixels,
    photograph: PredictedPhotograph,
    lines: Sequence[str],
    box: tuple[float, float, float, float],
) -> None:
    x, y, _, tall = box
    true = photograph.true
    color = _UNKNOWN if true is None else _RIGHT if true == photograph.predicted else _WRONG
    draw_tile(axes, image, box, _WRONG if color == _WRONG else "")
    rows = [(line, y - (len(lines) - i - 0.5) * _LINE - 0.02, 9.0, color) for i, line in enumerate(lines)]
    below = [] if true is None else [(f"true: {_shorten(_drawable(true), _LETTERS)}", 7.5, _UNKNOWN)]
    below.append((_shorten(_drawable(photograph.caption), _SMALL_LETTERS), 7.0, _QUIET))
    rows += [(text, y + tall + 0.04 + (i + 0.5) * _LINE, size, ink) for i, (text, size, ink) in enumerate(below)]
    for text, height, size, ink in rows:
        axes.text(x + _TILE / 2, height, text, ha="center", va="center", size=size, color=ink, parse_math=False)


def _wrap(text: str) -> list[str]:
    """Wrap a text to at most two lines; a long text loses its middle, so that the probability stays."""
    return wrap(_shorten(text, 2 * _LETTERS - 12), _LETTERS).split("\n")[:2]


def _shorten(text: str, length: int) -> str:
    """Remove the middle of a long text, since many file names differ only at the end."""
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return text[: length - 1 - end] + "\N{HORIZONTAL ELLIPSIS}" + text[len(text) - end :]


@lru_cache
def _glyphs() -> frozenset[int]:
    """Characters of the font."""
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def _drawable(text: str) -> str:
    """The text in one line, with a question mark for each character that is missing in the font."""
    return "".join(letter if ord(letter) in _glyphs() else "?" for letter in " ".join(text.split()))
