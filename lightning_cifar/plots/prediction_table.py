"""Photographs on a sheet, each under what a network takes it for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from lightning_cifar.plots.plain_figure import PlainFigure
from lightning_cifar.plots.wrapping import wrap

# Inches.
_TILE = 1.9
_GAP = 0.22
_EDGE = 0.18
_LINE = 0.165
_NARROWEST = 6.2

_LETTERS = 26  # that fit over an image
_SMALL_LETTERS = 30  # of the size of a file's name
_NO_BREAK = "\N{NO-BREAK SPACE}"
_RIGHT, _WRONG, _UNKNOWN, _QUIET = "#1a6b2f", "#c00000", "black", "0.45"


class PredictedPhotograph(NamedTuple):
    """What is written around one image."""

    predicted: str
    """The likeliest class."""
    probability: float
    """Of it, in [0, 1]."""
    true: str | None
    """None where it is not known."""
    caption: str
    """Such as the file's name."""


def draw_photographs(
    images: ArrayLike, photographs: Sequence[PredictedPhotograph], *, columns: int = 5, title: str = ""
) -> Figure:
    """Images in rows of ``columns``, each titled with the predicted class and its probability.

    Below are the true class, where it is known, and the caption. A mistake has a red frame, and its title is red; what
    is right is green.

    Args:
        images: (N, H, W, C) as bytes or floats in [0, 1]; C is 3, or 1 for grey.
        photographs: N of them.
        columns: Images in a row.
        title: Above all.

    Raises:
        ValueError: The images are not of such a shape, or not as many as there are photographs.
    """
    pixels = np.asarray(images)
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3) or not len(pixels):
        raise ValueError(f"images must be (N, H, W, C) with 1 or 3 channels and N > 0, these are {pixels.shape}")
    if len(photographs) != len(pixels):
        raise ValueError(f"{len(photographs)} photographs do not go with {len(pixels)} images")
    titles = [_wrap(f"{_drawable(each.predicted)} {_percent(each.probability)}") for each in photographs]
    columns = max(1, min(columns, len(pixels)))
    rows = math.ceil(len(pixels) / columns)
    over = max(map(len, titles))
    below = 1 + any(each.true is not None for each in photographs)
    tall = _TILE * pixels.shape[1] / max(pixels.shape[2], 1)
    step = (over + below) * _LINE + tall + _GAP
    width = max(2 * _EDGE + columns * (_TILE + _GAP) - _GAP, _NARROWEST)
    head = wrap(_drawable(title), max(20, int((width - 2 * _EDGE) / 0.09))).splitlines()
    top = _EDGE + 0.2 * len(head) + 0.08
    figure = PlainFigure(figsize=(width, height := top + rows * step))
    for index, line in enumerate(head):
        y = 1 - (_EDGE + 0.2 * (index + 0.5)) / height
        figure.text(_EDGE / width, y, line, size=11, va="center", parse_math=False)
    # One axes for all, in inches from the upper left corner, see plots/predictions.py.
    axes = figure.add_axes((0, 0, 1, 1))
    for index, (image, photograph, lines) in enumerate(zip(pixels, photographs, titles, strict=True)):
        x = _EDGE + index % columns * (_TILE + _GAP)
        y = top + index // columns * step + over * _LINE
        _draw_one(axes, image, photograph, lines, (x, y, tall))
    axes.set(xlim=(0, width), ylim=(height, 0))  # the images have moved them
    axes.set_axis_off()
    return figure


def _draw_one(
    axes: Axes,
    image: NDArray[np.generic],
    photograph: PredictedPhotograph,
    lines: Sequence[str],
    place: tuple[float, float, float],
) -> None:
    """Left, top and height of the image are its place."""
    x, y, tall = place
    true = photograph.true
    color = _UNKNOWN if true is None else _RIGHT if true == photograph.predicted else _WRONG
    axes.imshow(
        image[:, :, 0] if image.shape[-1] == 1 else image,
        extent=(x, x + _TILE, y + tall, y),
        interpolation="nearest" if image.shape[1] <= 120 else "antialiased",
        aspect="auto",
        cmap="gray",
        vmin=0,
        vmax=255 if image.dtype == np.uint8 else 1,
    )
    if color == _WRONG:
        axes.add_patch(Rectangle((x, y), _TILE, tall, fill=False, edgecolor=_WRONG, linewidth=2.5))
    rows = [(line, y - (len(lines) - i - 0.5) * _LINE - 0.02, 9.0, color) for i, line in enumerate(lines)]
    under = [] if true is None else [(f"true: {_shorten(_drawable(true), _LETTERS)}", 7.5, _UNKNOWN)]
    under.append((_shorten(_drawable(photograph.caption), _SMALL_LETTERS), 7.0, _QUIET))
    rows += [(text, y + tall + 0.04 + (i + 0.5) * _LINE, size, ink) for i, (text, size, ink) in enumerate(under)]
    for text, height, size, ink in rows:
        axes.text(x + _TILE / 2, height, text, ha="center", va="center", size=size, color=ink, parse_math=False)


def _wrap(text: str) -> list[str]:
    """Two lines at most; what is cut is the middle, so that the probability stays."""
    return wrap(_shorten(text, 2 * _LETTERS - 12), _LETTERS).split("\n")[:2]


def _shorten(text: str, length: int) -> str:
    """Cut out of the middle, since file names often begin alike and end differently."""
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return text[: length - 1 - end] + "\N{HORIZONTAL ELLIPSIS}" + text[len(text) - end :]


def _percent(share: float) -> str:
    """Rounded, but never to 100 from below."""
    if math.isnan(share):
        return "?"
    percent = 100 * share
    if percent >= 99.95:
        return f">99.9{_NO_BREAK}%"
    return f"{percent:.0f}{_NO_BREAK}%" if 9.5 <= percent < 98.5 else f"{percent:.1f}{_NO_BREAK}%"


@lru_cache
def _glyphs() -> frozenset[int]:
    """Characters that the font has."""
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def _drawable(text: str) -> str:
    """With a question mark for what the font has no letter for, and without line breaks."""
    return "".join(letter if ord(letter) in _glyphs() else "?" for letter in " ".join(text.split()))
