"""Occlusion maps as pictures: drop of the probability of a class when parts of the image are covered."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from lightning_cifar.plots.plain_figure import PlainFigure
from lightning_cifar.plots.wrapping import shorten

Array = NDArray[np.float32]
Box = tuple[float, float, float, float]

LEGEND = "red: covering this part lowers the probability; blue: raises it"
_UNCOVERED = "green: never covered"

_MISTAKE_COLOR = "firebrick"
_TARGET_COLOR = "tab:red"
_FINEST = 0.001  # smallest limit of the scale
_NEVER_COVERED = (0.55, 0.75, 0.35)  # neither between blue and red nor a grey of the image

# Inches of the sheet.
_PANEL = 128 / 120  # 128 dots at 120 dots per inch: four for each of 32 pixels
_GAP = 0.05
_BETWEEN = 0.3
_EDGE = 0.15
_LINE = 0.17
_WORDS = 2 * _LINE + 0.02  # above each image
_BELOW = 0.16
_HEADLINE = 0.55
_BAR = 1.1  # with its numbers, such as 0.0005, and its label

# Inches of the five panels of one image.
_PART = 2.4
_PART_GAP = 0.12
_TITLES = 0.62
_FOOT = 0.5
_NAMES = 1.45
_CLASSES = 1.9


class Occlusion(NamedTuple):
    """One image of a sheet."""

    image: ArrayLike
    """(H, W, C) as bytes or floats in [0, 1]; C is 3, or 1 for grey."""
    drops: ArrayLike
    """(H, W): drop of the target's probability, -1 to 1; NaN for pixels that were never covered."""
    title: str
    """Title, for example the true and the predicted class."""
    note: str = ""
    """Text in smaller letters below the title."""
    mistake: bool = False
    """Whether the title is red."""


def draw_occlusion_maps(
    rows: Sequence[Occlusion],
    *,
    title: str = "",
    label: str = "drop of the probability",
    limit: float | None = None,
) -> Figure:
    """Draw image, map over the image, and map, for several images on one scale that is centred on zero.

    Args:
        rows: One or more images.
        title: Title of the picture.
        label: Label of the colour bar.
        limit: Both ends of the scale; None is the largest drop or rise on the sheet.

    Raises:
        ValueError: ``rows`` is empty, shapes differ, or ``limit`` is out of range.
    """
    if not rows:
        raise ValueError("a sheet needs at least one image")
    checked = [(_check_image(row.image), _check_drops(row.drops, np.shape(row.image))) for row in rows]
    largest = max(_largest(drops) for _, drops in checked)
    if limit is None:
        limit = max(largest, _FINEST)
    elif not (math.isfinite(limit) and limit > 0):
        raise ValueError(f"limit (={limit}) must be a positive number")
    columns = min(2, len(rows))
    num_rows = math.ceil(len(rows) / columns)
    heights = [_PANEL * image.shape[0] / image.shape[1] for image, _ in checked]
    step_x = 3 * _PANEL + 2 * _GAP + _BETWEEN
    step_y = _WORDS + max(heights) + _BELOW
    # One axes for all panels, in inches: an axes for each panel would draw five times slower.
    width, height = columns * step_x - _BETWEEN, num_rows * step_y - _BELOW
    total = (width + 2 * _EDGE + _BAR, height + _EDGE + _HEADLINE)
    figure = PlainFigure(figsize=total)
    axes = figure.add_axes((_EDGE / total[0], _EDGE / total[1], width / total[0], height / total[1]))
    axes.set_axis_off()
    for index, (row, (image, drops)) in enumerate(zip(rows, checked, strict=True)):
        corner = (index % columns) * step_x, height - (index // columns) * step_y
        panels = image, lay_over(image, drops, limit), _colors(drops, limit)[..., :3]
        _draw_panels(axes, row, panels, (*corner, heights[index]))
    axes.set(xlim=(0, width), ylim=(0, height))

    tall = min(height - _WORDS, 4.0)
    box = (total[0] - _BAR + 0.15, _EDGE + height - _WORDS - tall, 0.15, tall)
    _draw_bar(figure, box, limit, label, exceeded=largest > limit)
    x = _EDGE / total[0]
    figure.text(x, 1 - 0.12 / total[1], title, size=11, va="top", parse_math=False)
    gaps = any(np.isnan(drops).any() for _, drops in checked)
    legend = f"{LEGEND}; {_UNCOVERED}" if gaps else LEGEND
    figure.text(x, 1 - 0.34 / total[1], legend, size=7.5, va="top", color="0.3")
    return figure


def _draw_panels(axes: Axes, row: Occlusion, panels: Sequence[Array], box: tuple[float, float, float]) -> None:
    """Draw panels side by side below their texts, in a box (left, top, height of a panel)."""
    left, top, tall = box
    for y, text, fitting, size, color in (
        (top, row.title, 47, 9.0, _MISTAKE_COLOR if row.mistake else "black"),
        (top - _LINE, row.note, 56, 7.5, "0.3"),
    ):
        text = shorten(text, round(1.6 * fitting))
        size *= min(1, fitting / max(1, len(text)))  # smaller letters for long texts
        axes.text(left, y, text, size=size, color=color, va="top", parse_math=False)
    top -= _WORDS
    for column, pixels in enumerate(panels):
        x = left + column * (_PANEL + _GAP)
        axes.imshow(pixels, extent=(x, x + _PANEL, top - tall, top), interpolation="nearest", aspect="auto")


def draw_explanation(
    original: ArrayLike,
    view: ArrayLike,
    drops: ArrayLike,
    probabilities: Sequence[tuple[str, float]],
    *,
    target: str,
    box: Box | None = None,
    title: str = "",
) -> Figure:
    """Draw one image in five panels: original, network input, map over the image, map, most probable classes.

    Args:
        original: (H, W, C), the image in its original size.
        view: (h, w, C), the input of the network.
        drops: (h, w), see :class:`Occlusion`.
        probabilities: Names and probabilities, the most probable first.
        target: Class whose probability drops.
        box: Left, top, right, bottom of the part of the original that the network gets, in pixels; None is all of it.
        title: Title of the picture.

    Raises:
        ValueError: The shapes differ, or ``probabilities`` is empty.
    """
    if not probabilities:
        raise ValueError("probabilities must contain at least one class")
    image, seen = _check_image(original), _check_image(view)
    values = _check_drops(drops, seen.shape)
    limit = max(_largest(values), _FINEST)
    left, top, right, bottom = box or (0, 0, image.shape[1], image.shape[0])
    part = image[_whole(top, bottom, image.shape[0]), _whole(left, right, image.shape[1])]

    lefts = list(itertools.accumulate((_EDGE, *(_PART + _PART_GAP,) * 3, _PART + _BAR + _NAMES)))
    size = (lefts[-1] + _CLASSES + _EDGE, _TITLES + _PART + _FOOT)
    figure = PlainFigure(figsize=size)
    figure.text(_EDGE / size[0], 1 - 0.1 / size[1], title, size=11, va="top", parse_math=False)
    panels = [
        figure.add_axes((x / size[0], _FOOT / size[1], width / size[0], _PART / size[1]))
        for x, width in zip(lefts, (_PART, _PART, _PART, _PART, _CLASSES), strict=True)
    ]
    names = ["original", f"network input: {seen.shape[1]} x {seen.shape[0]}", "map over the image"]
    names.append(f"map ({_UNCOVERED})" if np.isnan(values).any() else "map")
    for axes, name in zip(panels, names, strict=False):
        axes.set_title(name, size=9.5)
        axes.set_axis_off()
    panels[0].imshow(image, interpolation="antialiased")
    if box is not None and (right - left, bottom - top) != (image.shape[1], image.shape[0]):
        for color, line in (("black", 2.6), ("white", 1.2)):
            corner = (left - 0.5, top - 0.5)
            frame = Rectangle(corner, right - left, bottom - top, fill=False, ec=color, lw=line, clip_on=False)
            panels[0].add_patch(frame)
    panels[1].imshow(seen, interpolation="nearest")
    extent = (0.0, float(part.shape[1]), float(part.shape[0]), 0.0)
    panels[2].imshow(_faded(part), extent=extent, interpolation="antialiased")
    panels[2].imshow(_veil(values, limit), extent=extent, interpolation="bilinear")
    panels[3].imshow(np.ma.masked_invalid(values), cmap=_COLORS, norm=Normalize(-limit, limit), interpolation="nearest")
    bar_box = (lefts[3] + _PART + 0.08, _FOOT, 0.13, _PART)
    _draw_bar(figure, bar_box, limit, f"drop of P({shorten(target, 24)})", exceeded=False)
    _draw_classes(panels[4], probabilities, target)
    return figure


def lay_over(image: Array, drops: Array, limit: float) -> Array:
    """Draw the map (H, W) over the image (H, W, 3) in pale grey; larger drops and rises are more opaque."""
    veil = _veil(drops, limit)
    alpha = veil[..., 3:]
    return (alpha * veil[..., :3] + (1 - alpha) * _faded(image)).astype(np.float32)


def to_percent(value: float) -> str:
    """Format a probability; only exact values are shown as 100.0 % or 0.0 %."""
    if 0 < value < 0.0005:
        return "<0.1 %"
    if 0.9995 <= value < 1:
        return ">99.9 %"
    return f"{100 * value:.1f} %"


def _draw_bar(figure: Figure, box: Box, limit: float, label: str, *, exceeded: bool) -> None:
    """Draw the colour bar into a box (left, bottom, width, height) in inches; arrows mark values beyond its ends."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
    extend: Literal["both", "neither"] = "both" if exceeded else "neither"
    bar = figure.colorbar(ScalarMappable(Normalize(-limit, limit), _COLORS), cax=axes, extend=extend, extendfrac=0.04)
    ticks = [limit * share for share in (-1, -0.5, 0, 0.5, 1)]
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    bar.ax.tick_params(labelsize=8)
    bar.set_label(label, size=9, parse_math=False)


def _draw_classes(axes: Axes, probabilities: Sequence[tuple[str, float]], target: str) -> None:
    axes.set_axis_on()
    names = [shorten(name, 22) for name, _ in probabilities]
    values = [value for _, value in probabilities]
    colors = [_TARGET_COLOR if name == target else "0.6" for name, _ in probabilities]
    axes.barh(range(len(values)), values, color=colors, height=0.7)
    for row, value in enumerate(values):
        axes.text(value + 0.02, row, to_percent(value), va="center", size=8.5)
    axes.set_yticks(range(len(values)), names, size=9, parse_math=False)
    axes.set(xlim=(0, 1.3), ylim=(len(values) - 0.4, -0.6), xlabel="probability")
    axes.set_xticks([0, 0.5, 1])
    axes.set_title("classes (red: target)", size=9.5)
    axes.spines[["top", "right"]].set_visible(False)


_COLORS = colormaps["RdBu_r"].with_extremes(bad=_NEVER_COVERED)


def _colors(drops: Array, limit: float) -> Array:
    return np.asarray(_COLORS(Normalize(-limit, limit)(np.ma.masked_invalid(drops))), np.float32)


def _veil(drops: Array, limit: float) -> Array:
    """Colours (H, W, 4) of the map, transparent at zero."""
    colors = _colors(drops, limit)
    share = np.nan_to_num(np.abs(drops) / limit).clip(0, 1)
    colors[..., 3] = 0.75 * np.sqrt(share)  # the square root keeps small values visible
    return colors


def _faded(image: Array) -> Array:
    """The image in pale grey, so that only the map has colours."""
    grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.repeat(0.2 + 0.75 * grey[..., None], 3, axis=-1)


def _check_image(image: ArrayLike) -> Array:
    """Return an image as floats (H, W, 3) in [0, 1]."""
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[-1] not in (1, 3) or not array.size:
        raise ValueError(f"an image must be (H, W, C) with 1 or 3 channels, not {array.shape}")
    top = 255 if array.dtype == np.uint8 else 1
    return np.broadcast_to(array.astype(np.float32) / top, (*array.shape[:2], 3)).clip(0, 1)


def _check_drops(drops: ArrayLike, shape: tuple[int, ...]) -> Array:
    values = np.asarray(drops, np.float32)
    if values.shape != shape[:2]:
        raise ValueError(f"drops {values.shape} do not match an image {shape}")
    return values


def _largest(drops: Array) -> float:
    return float(np.abs(drops[np.isfinite(drops)]).max(initial=0.0))


def _whole(begin: float, end: float, length: int) -> slice:
    """Slice of whole pixels, at least one."""
    first = min(max(0, round(begin)), length - 1)
    return slice(first, max(first + 1, round(end)))
