"""Feature maps as pictures: next to their image, and over the epochs of a training run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from lightning_cifar.plots.plain_figure import PlainFigure
from lightning_cifar.plots.sheet import write_heading
from lightning_cifar.plots.wrapping import wrap

Array = NDArray[np.float32]

# Inches.
_IMAGE = 1.3
_TILE = 0.8
_LABEL = 0.19
_GAP = 0.07
_EDGE = 0.15
_BAR = 0.13
_BAR_TEXT = 0.8
_LINE = 0.19
_NARROWEST = 5.6


def draw_feature_maps(
    image: ArrayLike, maps: ArrayLike, *, layer: str, columns: int = 8, max_maps: int = 64, title: str = ""
) -> Figure:
    """Draw the maps of one layer in rows, next to the image.

    All maps share one scale: it starts at zero if no value is negative, as after a ReLU, and is symmetric around zero
    otherwise. A constant map is crossed out.

    Args:
        image: (H, W, C) as bytes or floats in [0, 1]; C is 3, or 1 for grey.
        maps: (K, P, Q).
        layer: Name of the layer.
        columns: Maps in a row.
        max_maps: Largest number of maps; the picture states how many of the layer's maps it shows.
        title: Title of the picture.

    Raises:
        ValueError: An array has another shape, or a number is below 1.
    """
    values = np.asarray(maps, np.float32)
    if values.ndim != 3 or not values.size:
        raise ValueError(f"maps must be (K, P, Q), not {values.shape}")
    for name, number in (("columns", columns), ("max_maps", max_maps)):
        if number < 1:
            raise ValueError(f"{name} (={number}) must be at least 1")
    shown = values[:max_maps]
    columns = min(columns, len(shown))
    rows = math.ceil(len(shown) / columns)
    dead = _is_dead(shown)
    facts = [_describe(len(values), shown), *_describe_faults(shown, dead)]
    sheet = _Sheet(rows, columns, shown.shape[1:], label_height=_LABEL)
    return _draw(image, shown, dead, sheet, head=[title, f"{layer}: {', '.join(facts)}"])


def draw_maps_over_training(
    image: ArrayLike,
    maps: ArrayLike,
    epochs: Sequence[float],
    *,
    layer: str,
    num_maps: int | None = None,
    title: str = "",
) -> Figure:
    """Draw maps of one layer over training: a row for each epoch, a column for each map, one scale for all.

    Args:
        image: (H, W, C) as bytes or floats in [0, 1]; C is 3, or 1 for grey.
        maps: (T, K, P, Q).
        epochs: T numbers of completed epochs; 0 is before training.
        layer: Name of the layer.
        num_maps: Number of maps of the layer, if ``maps`` are only the first ones.
        title: Title of the picture.

    Raises:
        ValueError: An array has another shape, or the number of epochs differs.
    """
    values = np.asarray(maps, np.float32)
    if values.ndim != 4 or not values.size or len(values) != len(epochs):
        raise ValueError(f"maps must be (T, K, P, Q) for {len(epochs)} epochs, not {values.shape}")
    rows, columns = values.shape[:2]
    tiles = values.reshape(-1, *values.shape[2:])
    dead = _is_dead(tiles)
    facts = [_describe(num_maps or columns, values[0]), *_describe_faults(tiles, dead)]
    sheet = _Sheet(rows, columns, values.shape[2:], label_height=0.0, row_width=0.75)
    figure = _draw(image, tiles, dead, sheet, head=[title, f"{layer}: {', '.join(facts)}"])
    axes = figure.axes[1]
    for row, epoch in enumerate(epochs):
        middle = sheet.top(row) + sheet.tile_height / 2
        text = f"epoch {round(epoch, 2):g}" if epoch else "before\ntraining"
        axes.text(-0.08, middle, text, ha="right", va="center", size=8)
    return figure


class _Sheet(NamedTuple):
    """A grid of tiles, in inches from its upper left corner."""

    rows: int
    columns: int
    shape: tuple[int, ...]
    """Shape of a map in pixels (P, Q)."""
    label_height: float
    """Height of the number above each tile; 0 writes numbers only above the first row."""
    row_width: float = 0.0
    """Width of text to the left of the grid."""

    @property
    def tile_width(self) -> float:
        # Large maps, of photographs, get larger tiles, so that all pixels are visible.
        return min(max(_TILE, self.shape[1] / 110), 1.6)

    @property
    def tile_height(self) -> float:
        return min(max(self.tile_width * self.shape[0] / self.shape[1], 0.15), 3.0)

    @property
    def width(self) -> float:
        return self.columns * (self.tile_width + _GAP) - _GAP

    @property
    def height(self) -> float:
        return self.top(self.rows - 1) + self.tile_height

    def left(self, column: int) -> float:
        return column * (self.tile_width + _GAP)

    def top(self, row: int) -> float:
        return (self.label_height or _LABEL) + row * (self.tile_height + (self.label_height or _GAP))


def _draw(image: ArrayLike, tiles: Array, dead: NDArray[np.bool_], sheet: _Sheet, *, head: Sequence[str]) -> Figure:
    """Draw a figure with three axes: the image, the grid (in inches, downwards), and the colour bar."""
    pixels = _to_pixels(image)
    left = _EDGE + _IMAGE + 0.25 + sheet.row_width
    width = max(left + sheet.width + 0.2 + _BAR + _BAR_TEXT, _NARROWEST)
    lines = wrap("\n".join(filter(None, head)), max(20, int((width - 2 * _EDGE) / 0.083))).splitlines()
    top = _EDGE + _LINE * len(lines) + 0.05
    body = max(sheet.height, _IMAGE + _LABEL)
    figure = PlainFigure(figsize=(width, height := top + body + _EDGE))

    def add_axes(x: float, y: float, w: float, h: float) -> Axes:
        """Add axes with an upper left corner and a size in inches."""
        return figure.add_axes((x / width, 1 - (y + h) / height, w / width, h / height))

    write_heading(figure, lines, _EDGE, _LINE, 10)
    side = max(pixels.shape[:2])
    picture = add_axes(_EDGE, top + _LABEL, *(_IMAGE * pixels.shape[axis] / side for axis in (1, 0)))
    picture.imshow(pixels, interpolation="nearest", aspect="auto", cmap="gray", vmin=0, vmax=1)
    picture.set_axis_off()
    picture.set_title("the image", size=8, pad=3)

    grid = add_axes(left, top, sheet.width, sheet.height)
    norm, colors = _scale(tiles)
    _fill(grid, tiles, dead, sheet, norm, colors)
    bar = add_axes(left + sheet.width + 0.2, top + _LABEL, _BAR, body - _LABEL)
    figure.colorbar(ScalarMappable(norm, colors), cax=bar)
    bar.set_ylabel("output of the layer", size=8)
    bar.tick_params(labelsize=7)
    return figure


def _fill(axes: Axes, tiles: Array, dead: NDArray[np.bool_], sheet: _Sheet, norm: Normalize, colors: Colormap) -> None:
    """Draw each map with its number and a frame, and cross out dead maps."""
    frames, crosses = [], []
    for index, tile in enumerate(tiles):
        row, column = divmod(index, sheet.columns)
        x, y = sheet.left(column), sheet.top(row)
        right, bottom = x + sheet.tile_width, y + sheet.tile_height
        axes.imshow(
            tile,
            extent=(x, right, bottom, y),
            norm=norm,
            cmap=colors,
            # By default matplotlib smooths images that are enlarged by less than a factor of three.
            interpolation="nearest" if tile.shape[1] <= 100 * sheet.tile_width else "antialiased",
            aspect="auto",
        )
        frames.append([(x, y), (right, y), (right, bottom), (x, bottom), (x, y)])
        if dead[index]:
            crosses += [[(x, y), (right, bottom)], [(x, bottom), (right, y)]]
        if sheet.label_height or row == 0:
            number = f"{'' if index else 'map '}{index}"
            axes.text((x + right) / 2, y - 0.03, number, ha="center", va="bottom", size=7)
    axes.add_collection(LineCollection(frames, colors="0.6", linewidths=0.5, clip_on=False), autolim=False)
    axes.add_collection(LineCollection(crosses, colors="0.6", linewidths=0.8), autolim=False)
    axes.set(xlim=(0, sheet.width), ylim=(sheet.height, 0))
    axes.set_axis_off()


def _scale(values: Array) -> tuple[Normalize, Colormap]:
    """Scale from zero if no value is negative, else symmetric around zero; grey for values that are not finite."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    bound = max(-low, high) or 1.0
    colors = colormaps["RdBu_r" if low < 0 else "viridis"].with_extremes(bad="0.5")
    return Normalize(-bound if low < 0 else 0.0, bound), colors


def _is_dead(tiles: Array) -> NDArray[np.bool_]:
    """Mask of the dead maps of (N, P, Q): constant maps, or zero for maps of a single pixel."""
    flat = tiles.reshape(len(tiles), -1)
    dead: NDArray[np.bool_] = flat.max(axis=1) == flat.min(axis=1) if flat.shape[1] > 1 else flat[:, 0] == 0
    return dead


def _describe(total: int, shown: Array) -> str:
    size = f"{shown.shape[1]} x {shown.shape[2]} pixels"
    if len(shown) < total:
        return f"the first {len(shown)} of {total} maps of {size}"
    return f"{total} map{'s' if total > 1 else ''} of {size}"


def _describe_faults(tiles: Array, dead: NDArray[np.bool_]) -> list[str]:
    faults = []
    if dead.any():
        faults.append("crossed out if constant" if tiles[0].size > 1 else "crossed out if 0")
    if not np.isfinite(tiles).all():
        faults.append("grey if not finite")
    return faults


def _to_pixels(image: ArrayLike) -> NDArray[np.generic]:
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3) or not pixels.size:
        raise ValueError(f"image must be (H, W, C) with 1 or 3 channels, not {pixels.shape}")
    if pixels.dtype == np.uint8:
        pixels = pixels / np.float32(255)
    return pixels[:, :, 0] if pixels.shape[-1] == 1 else pixels
