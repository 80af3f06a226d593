"""Distributions of activations: overlaid, as a ridge over the steps, and as curves of their moments."""

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

from lightning_cifar.plots.plain_figure import PlainFigure
from lightning_cifar.plots.wrapping import wrap

Array = NDArray[np.float64]

COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:olive")
_WIDTH = 3.7
_RIDGE_WIDTH = 3.0
_LINE = 0.16
"""Inches, as those above: a line of a legend."""
_MOST_RIDGES = 24
# A ridge may reach so many rows up, so that neighbours overlap but can be told apart.
_RIDGE_ROWS = 3.0


class DensityCurve(NamedTuple):
    """One distribution over time."""

    label: str
    heights: ArrayLike
    """(T, B): for each step the density over each bin."""
    notes: Sequence[str] = ()
    """T of them, such as what the heights leave out; none if empty."""
    note: str = ""
    """The same about all steps together."""


class DensityPanel(NamedTuple):
    """Distributions that share an axis."""

    title: str
    edges: ArrayLike
    """(B + 1,) of the bins."""
    curves: Sequence[DensityCurve]


class MomentCurve(NamedTuple):
    """What became of one distribution: arrays (T,)."""

    label: str
    mean: ArrayLike
    std: ArrayLike
    silent: ArrayLike
    """Share of the units."""
    kept: ArrayLike | None = None
    """Share of the values that a dropout let through."""
    dashed: bool = False
    color: int = 0
    """Which of the colours."""


class MomentPanel(NamedTuple):
    """Distributions of one place in the network."""

    title: str
    curves: Sequence[MomentCurve]


def draw_densities(panels: Sequence[DensityPanel], *, title: str = "", columns: int = 4) -> Figure:
    """The last step's distributions in rows of ``columns``, those of a panel laid over each other.

    Raises:
        ValueError: If there is no panel, or shapes differ.
    """
    last = [
        panel._replace(
            curves=[
                DensityCurve(curve.label, np.asarray(curve.heights)[-1:], curve.notes[-1:]) for curve in panel.curves
            ]
        )
        for panel in panels
    ]
    return next(animate_densities(last, titles=[title], columns=columns))


def animate_densities(panels: Sequence[DensityPanel], *, titles: Sequence[str], columns: int = 4) -> Iterator[Figure]:
    """The same figure again and again, at each of T steps; its axes stay fixed.

    Args:
        panels: As many as there are places to look at.
        titles: T of them, one a step.
        columns: Panels in a row.

    Yields:
        The figure, which the next step changes.

    Raises:
        ValueError: If there is no panel, or shapes differ.
    """
    _check(panels, len(titles))
    figure, subplots = _grid(len(panels), columns, _WIDTH, 2.7 + _LINE * max(map(_num_lines, panels)))
    titles = [_wrap(title, figure.get_figwidth() * 0.85) for title in titles]  # in larger letters
    heading = figure.suptitle(max(titles, key=len), size=12)
    drawn = [_start_panel(axes, panel) for axes, panel in zip(subplots, panels, strict=True)]
    for axes in subplots:
        axes.set_xlabel("activation")
        axes.set_ylabel("density (area 1)")
    figure.draw_without_rendering()  # to lay out once, with the longest texts
    figure.set_layout_engine("none")
    for step, title in enumerate(titles):
        heading.set_text(title)
        for artists in drawn:
            for patch, text, heights, labels in artists:
                patch.set_data(heights[step])
                text.set_text(labels[step])
        yield figure


def _start_panel(axes: Axes, panel: DensityPanel) -> list[tuple[StepPatch, Text, Array, list[str]]]:
    """For each curve: its artist and its line in the legend, and what becomes of the two."""
    edges = np.asarray(panel.edges, np.float64)
    heights = [np.asarray(curve.heights, np.float64) for curve in panel.curves]
    top = _top([values.max(axis=1) for values in heights])
    labels = [_labels(curve, values, top) for curve, values in zip(panel.curves, heights, strict=True)]
    patches = []
    for index, lines in enumerate(labels):
        color = COLORS[index % len(COLORS)]
        # The line is drawn by the same artist as the area, so that one update moves both.
        patch = axes.stairs(
            np.zeros(len(edges) - 1), edges, fill=True, facecolor=(color, 0.4), edgecolor=color, linewidth=1.2
        )
        patch.set_label(max(lines, key=len))
        patches.append(patch)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.08 * top)
    axes.grid(alpha=0.3)
    texts = _legend(axes, panel.title).get_texts()
    return list(zip(patches, texts, heights, labels, strict=True))


def _num_lines(panel: DensityPanel) -> int:
    """Of its legend, about."""
    return sum(_wrap(curve.label, _WIDTH).count("\n") + 1 + any(curve.notes) for curve in panel.curves)


def _labels(curve: DensityCurve, heights: Array, top: float) -> list[str]:
    """At each step; all with as many lines, so that nothing jumps."""
    notes = curve.notes or [""] * len(heights)
    cuts = [f"peak {peak:.3g}" if peak > 1.08 * top else "" for peak in heights.max(axis=1)]
    labels = [
        _wrap("\n".join(filter(None, [curve.label, ", ".join(filter(None, lines))])), _WIDTH)
        for lines in zip(notes, cuts, strict=True)
    ]
    most = max(label.count("\n") for label in labels)
    return [label + "\n " * (most - label.count("\n")) for label in labels]


def _legend(axes: Axes, title: str, width: float = _WIDTH) -> Legend:
    """Above the panel of so many inches, where it hides nothing; it is the panel's title too."""
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
    """Upper end of an axis for peaks of several curves (T,) each: all of them, unless a few stand far out."""
    highest = np.max(peaks, axis=0)
    highest = highest[np.isfinite(highest) & (highest > 0)]
    if not len(highest):
        return 1.0
    usual = 1.5 * float(np.quantile(highest, 0.8))
    return min(float(highest.max()), usual)


def _wrap(label: str, width: float) -> str:
    """Each line of a label to fit into so many inches."""
    return wrap(label, 11 * width)


def draw_ridges(
    panels: Sequence[DensityPanel],
    steps: Sequence[int],
    *,
    title: str = "",
    columns: int = 4,
) -> Figure:
    """Distributions over time, later steps above; those of a panel side by side, on the same axis and scale.

    Of many steps about two dozen are drawn, evenly chosen, with the first and the last.

    Raises:
        ValueError: If there is no panel, or shapes differ.
    """
    _check(panels, len(steps))
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _MOST_RIDGES)).round().astype(int))
    figure, subplots = _grid(sum(len(panel.curves) for panel in panels), columns, _RIDGE_WIDTH, 4.6)
    figure.suptitle(title, size=12)
    free = iter(subplots)
    for panel in panels:
        edges = np.asarray(panel.edges, np.float64)
        heights = [np.asarray(curve.heights, np.float64)[chosen] for curve in panel.curves]
        top = _top([values.max(axis=1) for values in heights])
        for index, (curve, values, axes) in enumerate(zip(panel.curves, heights, free, strict=False)):
            _draw_ridge(axes, edges, np.minimum(values / top, 1.5) * _RIDGE_ROWS, COLORS[index % len(COLORS)])
            axes.fill_between(
                [],
                [],
                facecolor=(COLORS[index % len(COLORS)], 0.6),
                label=_wrap(f"{curve.label}\n{curve.note}".strip(), _RIDGE_WIDTH),
            )
            shown = np.unique(np.linspace(0, len(chosen) - 1, min(len(chosen), 9)).round().astype(int))
            axes.set_yticks(shown, [f"{steps[chosen[row]]:,}" for row in shown])
            axes.set_ylim(-0.3, len(chosen) - 1 + _RIDGE_ROWS * 1.15)
            axes.set_xlim(edges[0], edges[-1])
            axes.set_xlabel("activation")
            axes.set_ylabel("step")
            axes.grid(axis="x", alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            _legend(axes, panel.title, _RIDGE_WIDTH)
    return figure


def _draw_ridge(axes: Axes, edges: Array, rows: Array, color: str) -> None:
    """Heights (T, B), each row a step above the one before; lower ones stand in front."""
    middles = (edges[1:] + edges[:-1]) / 2
    for row, heights in enumerate(rows):
        axes.fill_between(middles, row, row + heights, facecolor=(color, 0.6), linewidth=0, zorder=3 - row / 100)
        axes.plot(middles, row + heights, color="white", linewidth=0.8, zorder=3 - row / 100)


def draw_moments(panels: Sequence[MomentPanel], steps: Sequence[int], *, title: str = "") -> Figure:
    """Mean, standard deviation and silent units over the steps, one column a place; kept values where there is dropout.

    Raises:
        ValueError: If there is no panel.
    """
    if not panels:
        raise ValueError("there is nothing to draw: panels is empty")
    has_kept = any(curve.kept is not None for panel in panels for curve in panel.curves)
    rows = [
        "mean",
        "standard deviation",
        "silent units (%)\n(above 0 for no sample)",
        *(["values kept (%)"] if has_kept else []),
    ]
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
                raise ValueError(f"heights of {curve.label!r} are {shape}, and steps and bins {wanted}")
            if len(curve.notes) not in (0, num_steps):
                raise ValueError(f"{len(curve.notes)} notes of {curve.label!r} do not go with {num_steps} steps")


def _grid(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    figure = PlainFigure(figsize=(max(width * columns, 5.6) + 0.3, (height + 0.5) * rows + 0.5), layout="constrained")
    subplots = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in subplots[count:]:
        axes.set_axis_off()
    return figure, subplots[:count]
