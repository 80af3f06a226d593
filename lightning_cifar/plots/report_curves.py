"""A metric of several arms over training: mean, interval and single runs, for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from lightning_cifar.plots.plain_figure import PlainFigure


class ArmBand(NamedTuple):
    """One arm of a study."""

    name: str
    color: str
    dash: str
    """Lengths of dashes and gaps in points; empty for a solid line."""
    x: ArrayLike
    """(P,)"""
    mean: ArrayLike
    """(P,)"""
    low: ArrayLike
    """(P,): lower end of the interval, NaN without an interval."""
    high: ArrayLike
    """(P,)"""
    seeds: ArrayLike
    """(S, P): single runs, drawn faint."""
    n: int
    """Number of runs in the mean."""


def draw_report_curves(
    arms: Sequence[ArmBand],
    *,
    ylabel: str,
    xlabel: str = "epoch",
    share: bool = False,
    log_x: bool = False,
    ticks: Sequence[str] = (),
    points: Sequence[tuple[float, float]] = (),
    points_name: str = "fork",
) -> Figure:
    """Draw one panel of 6 x 4.2 inches.

    Args:
        arms: Arms in the order of the legend.
        ylabel: Name of the metric.
        xlabel: Name of the horizontal axis.
        share: Whether the values are fractions, which are drawn in percent.
        log_x: Logarithmic horizontal axis.
        ticks: Names of the positions 0, 1, ... on the horizontal axis, instead of numbers.
        points: Points (x, y) to mark, such as those at which an arm branches off.
        points_name: Their name in the legend.
    """
    figure = PlainFigure(figsize=(6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log" if log_x else "linear")
    if ticks:
        axes.set_xticks(range(len(ticks)), ticks)
    scale = 100 if share else 1
    for arm in arms:
        x, seeds = np.asarray(arm.x, dtype=float), scale * np.atleast_2d(np.asarray(arm.seeds, dtype=float))
        mean, low, high = (scale * np.asarray(values, dtype=float) for values in (arm.mean, arm.low, arm.high))
        style = (0, [float(word) for word in arm.dash.split()]) if arm.dash else "-"
        few = len(x) <= 40
        if arm.n > 1 or not arm.n:
            axes.plot(x, seeds.T, color=arm.color, alpha=max(0.1, 0.3 / len(seeds) ** 0.5), linewidth=0.7)
        axes.fill_between(x, low, high, color=arm.color, alpha=0.15, linewidth=0)
        label = f"{arm.name} (n = {arm.n})"
        axes.plot(
            x, mean, color=arm.color, linestyle=style, linewidth=1.7, label=label, marker="o" if few else "", ms=3
        )
    if points:
        x, y = zip(*dict.fromkeys(points), strict=True)
        y = [scale * value for value in y]
        axes.plot(x, y, "D", color="#888888", markeredgecolor="white", markersize=8, zorder=4, label=points_name)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(f"{ylabel} (%)" if share else ylabel)
    if xlabel == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    if arms:
        widest = max(len(arm.name) for arm in arms)
        columns = min(3 if widest < 24 else 2, len(arms))
        figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
    return figure
