"""Loss over learning rate: sweeps of the learning-rate range finder as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from lightning_cifar.plots.lr_range_view import (
    OWN_COLOR,
    RULE_COLOR,
    SUGGESTION_COLOR,
    SWEEP_COLORS,
    LRCurve,
    Mark,
    View,
    smoothed_at,
    to_marks,
    to_sweeps,
    whole_view,
    zoomed_view,
)
from lightning_cifar.plots.plain_figure import PlainFigure
from lightning_cifar.plots.wrapping import wrap

_RULE_MARKERS = "v^sDPXpd"


def draw_lr_range(
    curves: Sequence[LRCurve],
    *,
    suggestion: float | None = None,
    interval: tuple[float, float] | None = None,
    marks: Mapping[str, float] = {},
    own_lr: float | None = None,
    zoom: tuple[float, float] | None = None,
    seeds: Sequence[int] = (),
    doubt: str = "",
    title: str = "",
) -> Figure:
    """Draw the training loss over the learning rate (logarithmic): batches faint, the smoothed loss strong.

    Points that are not finite are left out, and a note names the first one. If the loss diverges, the vertical axis is
    cut off ``CUT`` falls above the best smoothed loss, with a note, so that the fall stays readable.

    Args:
        curves: One curve for each sweep.
        suggestion: Suggested learning rate, a strong vertical line.
        interval: Its uncertainty, a shaded band.
        marks: Learning rate of each rule by name, thinner vertical lines; NaN if the rule has no result.
        own_lr: Learning rate that the user has set.
        zoom: Learning rates at the ends of the horizontal axis. The vertical axis then ends at the minimum and the
            maximum of the smoothed losses inside.
        seeds: Names of the sweeps in the legend, by default numbers from 0.
        doubt: Reason why the suggestion is uncertain; a note above the picture.
        title: Title of the picture.

    Raises:
        ValueError: There is no curve, its arrays differ in length or are empty, the number of seeds differs, or the
            zoom is invalid or contains no point.
    """
    sweeps = to_sweeps(curves, seeds)
    view = whole_view(sweeps, doubt) if zoom is None else zoomed_view(sweeps, zoom)
    figure = PlainFigure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_xlim(view.lrs)  # set first, so that nothing drawn changes the limits
    axes.set_ylim(view.losses)
    axes.grid(alpha=0.3)
    handles: list[Artist] = []

    crowded = len(sweeps) > len(SWEEP_COLORS)  # too many colours to distinguish
    for i, (seed, (lrs, losses, smoothed)) in enumerate(sweeps):
        color = SWEEP_COLORS[0 if crowded else i]
        axes.plot(lrs, losses, color=color, alpha=0.25, linewidth=0.9)
        label = f"smoothed, {len(sweeps)} seeds" if crowded else f"smoothed, seed {seed}"
        (line,) = axes.plot(lrs, smoothed, color=color, linewidth=1.8, label=label, zorder=3)
        if i == 0 or not crowded:
            handles.append(line)
    handles.append(Line2D([], [], color=SWEEP_COLORS[0], alpha=0.35, linewidth=0.9, label="single batches"))

    if interval is not None and np.isfinite(interval).all():
        label = f"interval {interval[0]:.3g} to {interval[1]:.3g}"
        handles.append(axes.axvspan(*interval, color=SUGGESTION_COLOR, alpha=0.13, linewidth=0, label=label))
    found = to_marks(suggestion, marks, own_lr, view)
    for i, mark in enumerate(found):
        behind = sum(abs(mark.lr / other.lr - 1) < 0.05 for other in found[i + 1 :] if other.is_inside)
        handles.append(_draw_mark(axes, mark, i, _height(mark, sweeps, view), 6 + 5 * behind))

    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    if title:
        figure.suptitle(title)
    axes.set_title(wrap("; ".join(view.notes), 110), loc="left", size=9, color=SUGGESTION_COLOR)
    labels = [str(handle.get_label()) for handle in handles]
    columns = max(1, min(4, int(112 / (max(map(len, labels)) + 7))))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    return figure


def _height(mark: Mark, sweeps: Sequence[tuple[int, NDArray[np.float64]]], view: View) -> float:
    """Height at which a mark meets the smoothed curve, as a share of the panel; 0.5 without a curve."""
    loss = smoothed_at(mark.lr, sweeps) if mark.is_inside else math.nan
    low, high = view.losses
    return min(max((loss - low) / (high - low), 0.0), 1.0) if math.isfinite(loss) else 0.5


def _draw_mark(axes: Axes, mark: Mark, index: int, height: float, size: float) -> Artist:
    """Draw a vertical line with a marker at a height (share of the panel) and with a size in points.

    Of marks at the same learning rate the first is the largest, so that all are visible.
    """
    style: dict[str, object] = {"linestyle": "-", "linewidth": 2, "marker": "o"}
    if mark.color == OWN_COLOR:
        style = {"linestyle": "--", "linewidth": 1.4, "marker": "o", "markerfacecolor": "white"}
    elif mark.color == RULE_COLOR:
        style = {"linestyle": ":", "linewidth": 1.1, "marker": _RULE_MARKERS[index % len(_RULE_MARKERS)]}
    (line,) = axes.plot(
        [mark.lr if mark.is_inside else math.nan] * 3,
        [0, height, 1],
        transform=axes.get_xaxis_transform(),
        color=mark.color,
        label=mark.label,
        markevery=[1],
        markersize=size,
        markeredgecolor=mark.color if mark.color == OWN_COLOR else "white",
        zorder=4 - size / 100,
        clip_on=False,  # for a marker at the edge of the panel
        **style,  # type: ignore[arg-type]
    )
    return line
