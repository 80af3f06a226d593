"""Filters of a convolution on one sheet: as a figure, and as a frame of an animation.

Both take numbers in [0, 1]. A number that is not finite is magenta, which is not a colour of the colour maps.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from lightning_cifar.plots.plain_figure import PlainFigure

Pixels = NDArray[np.uint8]

_GREY = "#555555"
_MAGENTA = (255, 0, 255)
_SHEET = (214, 214, 214)
"""Background colour, different from the white of a zero weight and from the black and white of the extremes."""
_LEVELS = 201
"""Levels of a colour map: with the greys of the text less than the 256 colours of a GIF frame; odd, with a zero."""
_MOST_HEIGHT = 8000
"""Height of a frame in pixels above which pixels of kernels are not enlarged. WebP allows 16,383."""
_SEPARATE_SCALES = "each filter in red, green and blue from its lowest to its highest weight"
_BAR = 200
"""Length of the colour bar of a frame in pixels."""


def draw_filters(
    values: ArrayLike,
    *,
    color: bool,
    limit: float | None = None,
    columns: int = 16,
    title: str = "",
) -> Figure:
    """Draw filters (K, C, R, S) in rows: in colour, or one sheet for each input channel.

    Args:
        values: Numbers in [0, 1].
        color: A filter is one picture in red, green and blue; C is 3.
        limit: 0 and 1 represent the weights -limit and limit, as the colour bar shows. None: each filter has a separate
            scale.
        columns: Filters in a row.
        title: Title of the picture.

    Raises:
        ValueError: The array is not (K, C, R, S), or ``color`` is set and C is not 3.
    """
    sheets = _sheets(values, color=color, limit=limit)
    num_sheets, K, R, S, _ = sheets.shape
    columns = min(columns, K)
    rows = math.ceil(K / columns)
    scale = max(1, round(40 / S))  # whole pixels for every kernel size
    cell_width, cell_height = S * scale + 2, R * scale + 2
    inches = min(max(8.8 / columns, 0.3), 1.0) / cell_width
    width, height = columns * cell_width * inches, rows * cell_height * inches
    has_bar = limit is not None or not color
    heights = [height] * num_sheets + [0.14] * has_bar
    figure = PlainFigure(figsize=(max(width + 1.0, 5.0), 0.9 + num_sheets * (height + 0.4) + (0.5 if has_bar else 0.2)))
    figure.set_layout_engine("constrained", h_pad=0.06)
    figure.suptitle(title, size=11)
    axes_of = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for sheet, axes in zip(sheets, axes_of, strict=False):
        axes.imshow(_mosaic(sheet, columns, scale, gap=2), interpolation="nearest")
        _number_the_cells(axes, columns, rows, cell_width, cell_height)
        if rows > 1:
            axes.set_ylabel("first filter\nof the row", size=8)
    for channel in range(num_sheets if num_sheets > 1 else 0):
        axes_of[channel].set_title(f"input channel {channel}", size=9, loc="left", pad=3)
    below = "filter" if rows == 1 else "filter, counted from the first of the row"
    axes_of[num_sheets - 1].set_xlabel(below if has_bar else f"{below}\n{_SEPARATE_SCALES}", size=8)
    if has_bar:
        colors = ScalarMappable(Normalize(-(limit or 1.0), limit or 1.0), _map_name(color, limit))
        bar = figure.colorbar(colors, cax=axes_of[-1], orientation="horizontal")
        bar.ax.set_box_aspect(0.14 / min(max(width, 3.0), 5.0))
        if limit is None:
            bar.set_ticks([-1, 1], labels=["lowest", "highest"])
        label = "weight, on a separate scale for each filter" if limit is None else "weight"
        bar.set_label(label + ", of red, green and blue alike" * color, size=9)
        bar.ax.tick_params(labelsize=8)
    return figure


def draw_filter_frame(
    values: ArrayLike,
    *,
    color: bool,
    title: str,
    subtitle: str = "",
    limit: float | None = None,
    columns: int = 8,
) -> Pixels:
    """Draw filters as one frame (height, width, 3) of an animation, in some milliseconds.

    Frames of filters with the same shape and settings have the same size: 500 pixels wide, or more for many columns.

    Args:
        values: Filters (K, C, R, S) in [0, 1].
        color: See :func:`draw_filters`.
        title: Line in large letters; it is shrunk and then cut if it does not fit.
        subtitle: Line in small letters.
        limit: See :func:`draw_filters`.
        columns: Filters in a row.

    Raises:
        ValueError: The array is not (K, C, R, S), or ``color`` is set and C is not 3.
    """
    sheets = _sheets(values, color=color, limit=limit)
    num_sheets, K, R, S, _ = sheets.shape
    columns = min(columns, K)
    margin, gap = 8, 4
    room = (500 - 2 * margin - gap) // columns - gap
    room_down = (_MOST_HEIGHT // num_sheets - 30) // math.ceil(K / columns) - gap
    scale = max(1, min(room // S, room_down // R, 112 // max(R, S)))
    mosaics = [_mosaic(sheet, columns, scale, gap) for sheet in sheets]
    height, grid = mosaics[0].shape[:2]
    width = max(500, grid + 2 * margin)
    has_bar = limit is not None or not color
    top, heading, foot = 52, 20 if num_sheets > 1 else 0, 42 if has_bar else 26
    image = Image.new("RGB", (width, top + num_sheets * (height + heading + 6) - 6 + foot), "white")
    tops = [top + heading + sheet * (height + heading + 6) for sheet in range(num_sheets)]
    bottom = tops[-1] + height + 6
    _write(image, (margin, 6), title, 16, width - 2 * margin)
    _write(image, (margin, 29), subtitle, 12, width - 2 * margin, _GREY)
    if num_sheets > 1:
        for channel, y in enumerate(tops):
            _write(image, (margin, y - heading + 2), f"input channel {channel}", 11, width - 2 * margin)
    _label_the_bar(image, margin, bottom, color=color, limit=limit)
    image = image.point(_few_greys)
    for mosaic, y in zip(mosaics, tops, strict=True):
        image.paste(Image.fromarray(mosaic), (margin, y))
    if has_bar:
        levels = np.arange(_BAR) * _LEVELS // _BAR
        bar = np.repeat(_table(_map_name(color, limit))[levels][None], 10, axis=0)
        image.paste(Image.fromarray(bar), (margin, bottom + 2))
    return np.asarray(image)


def _sheets(values: ArrayLike, *, color: bool, limit: float | None) -> Pixels:
    """Pictures (sheets, K, R, S, 3): one sheet in colour, otherwise one for each input channel."""
    array = np.asarray(values, dtype=np.float32)
    if array.ndim != 4 or not array.size:
        raise ValueError(f"filters must be (K, C, R, S), not {array.shape}")
    if color and array.shape[1] != 3:
        raise ValueError(f"filters in colour need 3 input channels, not {array.shape[1]}")
    broken: NDArray[np.bool_] = ~np.isfinite(array)
    array = np.where(broken, 0, array)
    if color:
        pictures = np.rint(np.moveaxis(array, 1, -1)[None] * 255).astype(np.uint8)
        broken = np.any(broken, axis=1)[None]
    else:
        pictures = _table(_map_name(color, limit))[np.rint(array.swapaxes(0, 1) * (_LEVELS - 1)).astype(np.intp)]
        broken = broken.swapaxes(0, 1)
    pictures[broken] = _MAGENTA
    return pictures


def _mosaic(pictures: Pixels, columns: int, scale: int, gap: int) -> Pixels:
    """Arrange pictures (K, R, S, 3) in rows, enlarged by ``scale``, with gaps between and around them."""
    K, R, S, _ = pictures.shape
    rows = math.ceil(K / columns)
    cells = np.full((rows * columns, R * scale + gap, S * scale + gap, 3), _SHEET, np.uint8)
    cells[:K, gap:, gap:] = pictures.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = cells.shape[1:3]
    grid = cells.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    sheet: Pixels = np.pad(grid, ((0, gap), (0, gap), (0, 0)), constant_values=_SHEET[0])
    return sheet


@cache
def _table(name: str) -> Pixels:
    """Colours (levels, 3) of a colour map."""
    colors: Pixels = matplotlib.colormaps[name](np.linspace(0, 1, _LEVELS), bytes=True)[:, :3]
    return colors


def _map_name(color: bool, limit: float | None) -> str:
    """Grey for separate scales and for three colours; otherwise blue below zero and red above."""
    return "gray" if color or limit is None else "RdBu_r"


def _number_the_cells(axes: Axes, columns: int, rows: int, width: int, height: int) -> None:
    """Set ticks at the centres of cells of a size in pixels."""
    every = 1 if columns <= 20 else math.ceil(columns / 16)
    ticks = range(0, columns, every)
    axes.set_xticks([(column + 0.5) * width for column in ticks], [str(column) for column in ticks], size=8)
    ticks = range(0, rows if rows > 1 else 0, math.ceil(rows / 32))
    axes.set_yticks([(row + 0.5) * height for row in ticks], [str(row * columns) for row in ticks], size=8)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _label_the_bar(image: Image.Image, x: int, y: int, *, color: bool, limit: float | None) -> None:
    """Write the labels of the colour bar below the pictures."""
    drawing = ImageDraw.Draw(image)
    if color and limit is None:
        drawing.text((x, y), _SEPARATE_SCALES, _GREY, _font(11))
        return
    drawing.rectangle((x - 1, y + 1, x + _BAR, y + 12), outline=_GREY)
    low, middle, high = ("lowest", "", "highest") if limit is None else (f"-{limit:.2g}", "0", f"+{limit:.2g}")
    for offset, text, anchor in ((0, low, "la"), (_BAR // 2, middle, "ma"), (_BAR, high, "ra")):
        drawing.text((x + offset, y + 16), text, _GREY, _font(11), anchor)
    text = "weight, on one scale for all frames"
    if color:
        text = "weight, of red, green and blue alike,\non one scale for all frames"
    elif limit is None:
        text = "weight, on a scale for each filter\nin each frame"
    drawing.multiline_text((x + _BAR + 14, y), text, _GREY, _font(11), spacing=2)


def _few_greys(value: int) -> int:
    """Reduce letters to sixteen greys, so that most of the 256 colours of a GIF are left for the weights."""
    return (value + 8) // 17 * 17


def _write(image: Image.Image, corner: tuple[int, int], text: str, size: int, room: int, fill: str = "black") -> None:
    """Write a line of text, shrunk and then cut to a width of ``room`` pixels."""
    while size > 10 and _font(size).getlength(text) > room:
        size -= 1
    if _font(size).getlength(text) > room:
        while text and _font(size).getlength(text + " ...") > room:
            text = text[:-1]
        text += " ..."
    ImageDraw.Draw(image).text(corner, text, fill, _font(size))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font of all other pictures, with a size in pixels."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), size)
