"""Loss against learning rate: a sweep of the learning-rate range finder as a picture."""

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
    """Training loss over the learning rate (logarithmic), 8 x 5 inches: every batch faint, the smoothed loss strong.

    Points that are not finite are left out, and a note names the first of them. If the loss diverges, the vertical axis
    is cut off ``CUT`` falls above the best smoothed loss, so that the fall stays readable, and a note says so.

    Args:
        curves: One for each sweep.
        suggestion: The learning rate to use, a strong vertical line.
        interval: Its uncertainty, a shaded band.
        marks: What each rule found, by its name, thinner vertical lines. NaN: the rule found nothing.
        own_lr: The learning rate that the user has set.
        zoom: Learning rates at the ends of the horizontal axis. The vertical axis then ends at the minimum and the
            maximum of the smoothed losses among the points inside.
        seeds: What the sweeps are called in the legend; they are numbered from 0 if not given.
        doubt: Why the suggestion is uncertain, such as that the loss never fell; a note above the picture.
        title: Above the picture.

    Raises:
        ValueError: There is no curve, its arrays differ in length or are empty, the seeds are not as many, or the zoom
            is no window with a point inside.
    """
    sweeps = to_sweeps(curves, seeds)
    view = whole_view(sweeps, doubt) if zoom is None else zoomed_view(sweeps, zoom)
    figure = PlainFigure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_xlim(view.lrs)  # before anything is drawn: nothing drawn may stretch the axes
    axes.set_ylim(view.losses)
    axes.grid(alpha=0.3)
    handles: list[Artist] = []

    crowded = len(sweeps) > len(SWEEP_COLORS)  # too many to be told apart
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
        figure.suptitle(title, parse_math=False)
    axes.set_title(wrap("; ".join(view.notes), 110), loc="left", size=9, color=SUGGESTION_COLOR)
    _add_legend(figure, handles)
    return figure


def _height(mark: Mark, sweeps: Sequence[tuple[int, NDArray[np.float64]]], view: View) -> float:
    """Where a mark meets the smoothed curve, as a share of the panel's height; its middle where there is no curve."""
    loss = smoothed_at(mark.lr, sweeps) if mark.is_inside else math.nan
    low, high = view.losses
    return min(max((loss - low) / (high - low), 0.0), 1.0) if math.isfinite(loss) else 0.5


def _draw_mark(axes: Axes, mark: Mark, index: int, height: float, size: float) -> Artist:
    """Draw a vertical line with a marker on the curve; of marks at one place the first is the largest, so all are seen.

    Args:
        axes: To draw into.
        mark: What to draw.
        index: Which of the marks; each has a marker of its own.
        height: Of the marker, as a share of the panel.
        size: Of the marker, in points.
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
        clip_on=False,  # the sign of a mark on the edge of a window
        **style,  # type: ignore[arg-type]
    )
    return line


def _add_legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """Below the panel, where it hides no point."""
    labels = [str(handle.get_label()) for handle in handles]
    columns = max(1, min(4, int(112 / (max(map(len, labels)) + 7))))
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)
