"""Distributions of activations: overlaid densities, ridge plots over the steps, and curves of moments."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import StepPatch
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from lightning_cifar.plots.animation import evenly
from lightning_cifar.plots.plain_figure import COLORS, PlainFigure
from lightning_cifar.plots.wrapping import wrap

Array = NDArray[np.float64]

# Inches: widths of panels, and the height of a line of a legend.
_WIDTH = 3.7
_RIDGE_WIDTH = 3.0
_LINE = 0.16
_MOST_RIDGES = 24
_RIDGE_ROWS = 3.0  # height of the highest ridge in rows: neighbours overlap but can be distinguished


class DensityCurve(NamedTuple):
    """One distribution over T steps."""

    label: str
    heights: ArrayLike
    """(T, B): density over each bin."""
    notes: Sequence[str] = ()
    """T notes, such as the share of values that the heights leave out, or none."""
    note: str = ""
    """Note about all steps."""


class DensityPanel(NamedTuple):
    """Distributions on the same axis."""

    title: str
    edges: ArrayLike
    """Edges of the bins, (B + 1,)."""
    curves: Sequence[DensityCurve]


class MomentCurve(NamedTuple):
    """Moments of one distribution over the steps: arrays (T,)."""

    label: str
    mean: ArrayLike
    std: ArrayLike
    silent: ArrayLike
    """Share of the units."""
    kept: ArrayLike | None = None
    """Share of the values that a dropout keeps."""
    dashed: bool = False
    color: int = 0
    """Index of the colour."""


class MomentPanel(NamedTuple):
    """Moments of corresponding layers."""

    title: str
    curves: Sequence[MomentCurve]


def draw_densities(panels: Sequence[DensityPanel], *, title: str = "", columns: int = 4) -> Figure:
    """Draw the distributions of the last step in rows of panels, overlaid in each panel.

    Raises:
        ValueError: There is no panel, or shapes differ.
    """
    last = []
    for panel in panels:
        curves = [DensityCurve(each.label, np.asarray(each.heights)[-1:], each.notes[-1:]) for each in panel.curves]
        last.append(panel._replace(curves=curves))
    return next(animate_densities(last, titles=[title], columns=columns))


def animate_densities(panels: Sequence[DensityPanel], *, titles: Sequence[str], columns: int = 4) -> Iterator[Figure]:
    """Draw T steps on fixed axes.

    Args:
        panels: One or more panels.
        titles: T titles.
        columns: Panels in a row.

    Yields:
        The same figure at each step.

    Raises:
        ValueError: There is no panel, or shapes differ.
    """
    _check(panels, len(titles))
    figure, subplots = _grid(len(panels), columns, _WIDTH, 2.7 + _LINE * max(map(_num_lines, panels)))
    titles = [_wrap(title, figure.get_figwidth() * 0.85) for title in titles]  # larger letters
    heading = figure.suptitle(max(titles, key=len), size=12)
    drawn = [_start_panel(axes, panel) for axes, panel in zip(subplots, panels, strict=True)]
    for axes in subplots:
        axes.set_xlabel("activation")
        axes.set_ylabel("density (area 1)")
    figure.draw_without_rendering()  # lays out once, with the longest texts
    figure.set_layout_engine("none")
    for step, title in enumerate(titles):
        heading.set_text(title)
        for artists in drawn:
            for patch, text, heights, labels in artists:
                patch.set_data(heights[step])
                text.set_text(labels[step])
        yield figure


def _start_panel(axes: Axes, panel: DensityPanel) -> list[tuple[StepPatch, Text, Array, list[str]]]:
    """Draw an empty panel; return the artist of each curve, its text in the legend, and their values at each step."""
    edges = np.asarray(panel.edges, np.float64)
    heights = [np.asarray(curve.heights, np.float64) for curve in panel.curves]
    top = _top([values.max(axis=1) for values in heights])
    labels = [_labels(curve, values, top) for curve, values in zip(panel.curves, heights, strict=True)]
    patches = []
    for index, lines in enumerate(labels):
        color = COLORS[index % len(COLORS)]
        # One artist draws line and area, so that one update changes both.
        patch = axes.stairs(np.zeros(len(edges) - 1), edges, fill=True)
        patch.set(facecolor=(color, 0.4), edgecolor=color, linewidth=1.2, label=max(lines, key=len))
        patches.append(patch)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.08 * top)
    axes.grid(alpha=0.3)
    texts = _legend(axes, panel.title).get_texts()
    return list(zip(patches, texts, heights, labels, strict=True))


def _num_lines(panel: DensityPanel) -> int:
    """Approximate number of lines of the legend."""
    return sum(_wrap(curve.label, _WIDTH).count("\n") + 1 + any(curve.notes) for curve in panel.curves)


def _labels(curve: DensityCurve, heights: Array, top: float) -> list[str]:
    """Labels of each step, all with the same number of lines."""
    notes = curve.notes or [""] * len(heights)
    cuts = [f"peak {peak:.3g}" if peak > 1.08 * top else "" for peak in heights.max(axis=1)]
    labels = [
        _wrap("\n".join(filter(None, [curve.label, ", ".join(filter(None, lines))])), _WIDTH)
        for lines in zip(notes, cuts, strict=True)
    ]
    most = max(label.count("\n") for label in labels)
    return [label + "\n " * (most - label.count("\n")) for label in labels]


def _legend(axes: Axes, title: str, width: float = _WIDTH) -> Legend:
    """Add a legend above a panel of a width in inches, with the title of the panel."""
    return axes.legend(
        title=wrap(title, 9 * width),
        alignment="left",
        loc="lower left",
        bbox_to_anchor=(-0.02, 1),
        frameon=False,
        fontsize=8.5,
        title_fontproperties={"weight": "bold", "size": 9.5},
        handlelength=1.2,
        labelspacing=0.25,
        borderaxespad=0.1,
    )


def _top(peaks: Sequence[Array]) -> float:
    """Upper end of an axis for peaks (T,) of several curves; a few very high peaks are cut off."""
    highest = np.max(peaks, axis=0)
    highest = highest[np.isfinite(highest) & (highest > 0)]
    if not len(highest):
        return 1.0
    usual = 1.5 * float(np.quantile(highest, 0.8))
    return min(float(highest.max()), usual)


def _wrap(label: str, width: float) -> str:
    """Wrap a label to a width in inches."""
    return wrap(label, 11 * width)


def draw_ridges(panels: Sequence[DensityPanel], steps: Sequence[int], *, title: str = "", columns: int = 4) -> Figure:
    """Draw distributions over time, later steps above; those of a panel side by side, on the same axis and scale.

    At most 24 steps are drawn, evenly spread, with the first and the last.

    Raises:
        ValueError: There is no panel, or shapes differ.
    """
    _check(panels, len(steps))
    chosen = list(evenly(range(len(steps)), _MOST_RIDGES))
    figure, subplots = _grid(sum(len(panel.curves) for panel in panels), columns, _RIDGE_WIDTH, 4.6)
    figure.suptitle(title, size=12)
    free = iter(subplots)
    for panel in panels:
        edges = np.asarray(panel.edges, np.float64)
        heights = [np.asarray(curve.heights, np.float64)[chosen] for curve in panel.curves]
        top = _top([values.max(axis=1) for values in heights])
        for index, (curve, values, axes) in enumerate(zip(panel.curves, heights, free, strict=False)):
            color = (COLORS[index % len(COLORS)], 0.6)
            _draw_ridge(axes, edges, np.minimum(values / top, 1.5) * _RIDGE_ROWS, color)
            label = _wrap(f"{curve.label}\n{curve.note}".strip(), _RIDGE_WIDTH)
            axes.fill_between([], [], facecolor=color, label=label)
            shown = evenly(range(len(chosen)), 9)
            axes.set_yticks(shown, [f"{steps[chosen[row]]:,}" for row in shown])
            axes.set_ylim(-0.3, len(chosen) - 1 + _RIDGE_ROWS * 1.15)
            axes.set_xlim(edges[0], edges[-1])
            axes.set_xlabel("activation")
            axes.set_ylabel("step")
            axes.grid(axis="x", alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            _legend(axes, panel.title, _RIDGE_WIDTH)
    return figure


def _draw_ridge(axes: Axes, edges: Array, rows: Array, color: tuple[str, float]) -> None:
    """Draw heights (T, B), each row above the previous one; lower rows are in front."""
    middles = (edges[1:] + edges[:-1]) / 2
    for row, heights in enumerate(rows):
        axes.fill_between(middles, row, row + heights, facecolor=color, linewidth=0, zorder=3 - row / 100)
        axes.plot(middles, row + heights, color="white", linewidth=0.8, zorder=3 - row / 100)


def draw_moments(panels: Sequence[MomentPanel], steps: Sequence[int], *, title: str = "") -> Figure:
    """Draw mean, standard deviation, silent units and kept values (dropout) over the steps, one column for each panel.

    Raises:
        ValueError: There is no panel.
    """
    if not panels:
        raise ValueError("there is nothing to draw: panels is empty")
    rows = ["mean", "standard deviation", "silent units (%)\n(never above 0)"]
    if any(curve.kept is not None for panel in panels for curve in panel.curves):
        rows.append("values kept (%)")
    figure = PlainFigure(figsize=(_WIDTH * len(panels) + 0.4, 2.0 * len(rows) + 1.4), layout="constrained")
    figure.suptitle(_wrap(title, 0.75 * _WIDTH * len(panels)), size=12)
    grid = figure.subplots(len(rows), len(panels), squeeze=False, sharex=True)
    for column, panel in enumerate(panels):
        for curve in panel.curves:
            shares = [100 * np.asarray(share, float) for share in (curve.silent, curve.kept) if share is not None]
            values = [np.asarray(curve.mean, float), np.asarray(curve.std, float), *shares]
            for axes, line in zip(grid[:, column], values, strict=False):
                axes.plot(
                    steps,
                    line,
                    color=COLORS[curve.color % len(COLORS)],
                    linestyle="--" if curve.dashed else "-",
                    linewidth=1.5,
                    marker="." if len(steps) <= 30 else "",
                    label=_wrap(curve.label, _WIDTH),
                )
        _legend(grid[0, column], panel.title)
        for axes, ylabel in zip(grid[:, column], rows, strict=True):
            axes.grid(alpha=0.3)
            if column == 0:
                axes.set_ylabel(ylabel)
            if "%" in ylabel:
                axes.set_ylim(-4, 104)
        grid[-1, column].set_xlabel("step")
        grid[-1, column].xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    return figure


def _check(panels: Sequence[DensityPanel], num_steps: int) -> None:
    if not panels or not num_steps:
        raise ValueError(f"there is nothing to draw: {len(panels)} panels, {num_steps} steps")
    for panel in panels:
        for curve in panel.curves:
            shape, wanted = np.shape(curve.heights), (num_steps, len(np.asarray(panel.edges)) - 1)
            if shape != wanted:
                raise ValueError(f"heights of {curve.label!r} are {shape} and must be (steps, bins) = {wanted}")
            if len(curve.notes) not in (0, num_steps):
                raise ValueError(f"{len(curve.notes)} notes of {curve.label!r} do not match {num_steps} steps")


def _grid(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    figure = PlainFigure(figsize=(max(width * columns, 5.6) + 0.3, (height + 0.5) * rows + 0.5), layout="constrained")
    subplots = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in subplots[count:]:
        axes.set_axis_off()
    return figure, subplots[:count]
