"""Loss against learning rate: a sweep of the learning-rate range finder as a picture, and as a page that zooms."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

LRCurve: TypeAlias = tuple[ArrayLike, ArrayLike, ArrayLike]
"""One sweep: learning rates, losses and smoothed losses, each (N,), in the order of the steps."""

CUT = 5
"""The vertical axis ends at most this many falls above the best smoothed loss; a fall is its start minus its best."""

_SWEEP_COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#bcbd22", "#17becf")
_SUGGESTION_COLOR = "#d62728"
_OWN_COLOR = "#000000"
_RULE_COLOR = "#555555"
_RULE_MARKERS = "v^sDPXo*"
_RULE_DASHES = ("dot", "dash", "dashdot", "longdash", "longdashdot")

# Whatever a page holds, a browser that keeps to this line asks the network for nothing.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; form-action 'none'"
)


class _View(NamedTuple):
    """Ends of both axes, and what they leave out."""

    lrs: tuple[float, float]
    losses: tuple[float, float]
    is_cut: bool
    notes: list[str]


class _Mark(NamedTuple):
    """A vertical line. ``lr`` is NaN where a logarithmic axis has no place for it."""

    label: str
    lr: float
    is_inside: bool
    color: str


def draw_lr_range(
    curves: Sequence[LRCurve],
    *,
    suggestion: float | None = None,
    interval: tuple[float, float] | None = None,
    marks: Mapping[str, float] = {},
    own_lr: float | None = None,
    zoom: tuple[float, float] | None = None,
    seeds: Sequence[int] = (),
    title: str = "",
) -> Figure:
    """Training loss over the learning rate (logarithmic), 8 x 5 inches: every batch faint, the smoothed loss strong.

    Points that are not finite are left out, and a note names the first of them. If the loss diverges, the vertical axis
    is cut off :data:`CUT` falls above the best smoothed loss, so that the fall stays readable, and a note says so.

    Args:
        curves: One for each sweep.
        suggestion: The learning rate to use, a strong vertical line.
        interval: Its uncertainty, a shaded band.
        marks: What each rule found, by its name, thinner vertical lines. NaN: the rule found nothing.
        own_lr: The learning rate that the user has set.
        zoom: Learning rates at the ends of the horizontal axis. The vertical axis then ends at the minimum and the
            maximum of the smoothed losses among the points inside.
        seeds: What the sweeps are called in the legend; they are numbered from 0 if not given.
        title: Above the picture.

    Raises:
        ValueError: There is no curve, its arrays differ in length or are empty, the seeds are not as many, or the zoom
            is no window with a point inside.
    """
    sweeps = _to_sweeps(curves, seeds)
    view = _whole_view(sweeps) if zoom is None else _zoomed_view(sweeps, zoom)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_xlim(view.lrs)  # before anything is drawn: nothing drawn may stretch the axes
    axes.set_ylim(view.losses)
    axes.grid(alpha=0.3)
    handles: list[Artist] = []

    crowded = len(sweeps) > len(_SWEEP_COLORS)  # too many to be told apart
    for i, (seed, (lrs, losses, smoothed)) in enumerate(sweeps):
        color = _SWEEP_COLORS[0 if crowded else i]
        axes.plot(lrs, losses, color=color, alpha=0.25, linewidth=0.9)
        label = f"smoothed, {len(sweeps)} seeds" if crowded else f"smoothed, seed {seed}"
        (line,) = axes.plot(lrs, smoothed, color=color, linewidth=1.8, label=label, zorder=3)
        if i == 0 or not crowded:
            handles.append(line)
    handles.append(Line2D([], [], color=_SWEEP_COLORS[0], alpha=0.35, linewidth=0.9, label="single batches"))

    if interval is not None and np.isfinite(interval).all():
        label = f"interval {interval[0]:.3g} to {interval[1]:.3g}"
        handles.append(axes.axvspan(*interval, color=_SUGGESTION_COLOR, alpha=0.13, linewidth=0, label=label))
    found = _to_marks(suggestion, marks, own_lr, view)
    handles += [_draw_mark(axes, mark, i) for i, mark in enumerate(found)]

    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    if title:
        figure.suptitle(title, parse_math=False)
    axes.set_title("; ".join(view.notes), loc="left", size=9, color=_SUGGESTION_COLOR)
    _add_legend(figure, handles)
    return figure


def _draw_mark(axes: Axes, mark: _Mark, index: int) -> Artist:
    """A vertical line with a sign of its own at a height of its own, so that marks at one place are all seen."""
    style: dict[str, object] = {"linestyle": "-", "linewidth": 2}
    if mark.color == _OWN_COLOR:
        style = {"linestyle": "--", "linewidth": 1.4, "marker": "o", "markerfacecolor": "white"}
    elif mark.color == _RULE_COLOR:
        style = {"linestyle": ":", "linewidth": 1.1, "marker": _RULE_MARKERS[index % len(_RULE_MARKERS)]}
    height = 0.9 - 0.06 * (index % 12)
    (line,) = axes.plot(
        [mark.lr if mark.is_inside else math.nan] * 3,
        [0, height, 1],
        transform=axes.get_xaxis_transform(),
        color=mark.color,
        label=mark.label,
        markevery=[1],
        markersize=6,
        zorder=2.5,
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


def lr_range_html(
    curves: Sequence[LRCurve],
    *,
    suggestion: float | None = None,
    interval: tuple[float, float] | None = None,
    marks: Mapping[str, float] = {},
    own_lr: float | None = None,
    seeds: Sequence[int] = (),
    title: str = "",
) -> str:
    """The same as one HTML page of about 5 MB that needs no network: plotly.js is inside.

    Dragging a box zooms, a double click shows all again, the legend hides and shows, buttons make each axis logarithmic
    or linear. Pointing at a curve tells seed, step, learning rate, loss and smoothed loss. Names are shown as
    they are: nothing in them is taken for HTML.

    Args:
        curves: As all that follow, see :func:`draw_lr_range`.
        suggestion: The learning rate to use.
        interval: Its uncertainty.
        marks: What each rule found, by its name.
        own_lr: The learning rate that the user has set.
        seeds: What the sweeps are called.
        title: Above the plot and in the browser's tab.

    Raises:
        ValueError: As :func:`draw_lr_range`.
    """
    from plotly.io import to_html  # type: ignore[import-untyped,import-not-found,unused-ignore]  # takes a while to load

    sweeps = _to_sweeps(curves, seeds)
    view = _whole_view(sweeps)
    shapes, empty = _to_shapes(_to_marks(suggestion, marks, own_lr, view))
    traces = [trace for i, (seed, points) in enumerate(sweeps) for trace in _to_traces(seed, points, i)] + empty
    if interval is not None and np.isfinite(interval).all():
        name = f"interval {interval[0]:.3g} to {interval[1]:.3g}"
        band = {"type": "rect", "x0": interval[0], "x1": interval[1], "layer": "below", "line": {"width": 0}}
        shapes.insert(0, _ACROSS | band | {"fillcolor": _SUGGESTION_COLOR, "opacity": 0.13, "name": name})
    menus = [
        _to_buttons(0.0, {"log x": {"xaxis.type": "log"}, "linear x": {"xaxis.type": "linear"}}),
        _to_buttons(0.22, {"linear y": {"yaxis.type": "linear"}, "log y": {"yaxis.type": "log"}}),
    ]
    if view.is_cut:
        cut, whole = (
            {"yaxis.autorangeoptions.clipmax": end, "yaxis.autorange": True} for end in (view.losses[1], None)
        )
        menus.append(_to_buttons(0.44, {"cut off": cut, "whole loss": whole}))
    text = {"text": html.escape(title), "subtitle": {"text": "; ".join(view.notes)}}
    layout = {
        "template": "plotly_white",
        "title": text | {"yref": "container", "y": 0.97, "yanchor": "top"},
        "xaxis": _to_axis("learning rate", "log", view.lrs),
        "yaxis": _to_axis("training loss", "linear", view.losses),
        "hovermode": "closest",
        "dragmode": "zoom",
        "margin": {"t": 130},
        "shapes": shapes,
        "updatemenus": menus,
    }
    plot = to_html(
        {"data": traces, "layout": layout},
        # By default plotly.js 4 has a button that uploads the data.
        config={"showSendToCloud": False, "displaylogo": False, "responsive": True},
        include_plotlyjs=True,
        full_html=False,
        div_id="lr-range",
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{html.escape(title or 'learning-rate range')}</title>\n"
        "<style>html, body {height: 100%; margin: 0; overflow: hidden;}</style>\n"
        f"</head>\n<body>\n{plot}\n</body>\n</html>\n"
    )


# Every shape reaches from the lower to the upper end of the panel, at any zoom, and has its line in the legend.
_ACROSS: dict[str, object] = {"yref": "y domain", "y0": 0, "y1": 1, "showlegend": True}


def _to_shapes(marks: Sequence[_Mark]) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Lines across the panel, and empty curves, which have a line in the legend, for the marks that have no place."""
    shapes: list[dict[str, object]] = []
    curves: list[dict[str, object]] = []
    for i, mark in enumerate(marks):
        width, dash = 1.5, _RULE_DASHES[i % len(_RULE_DASHES)]
        if mark.color == _SUGGESTION_COLOR:
            width, dash = 2.5, "solid"
        elif mark.color == _OWN_COLOR:
            width, dash = 2, "dash"
        look = {"line": {"color": mark.color, "width": width, "dash": dash}, "name": html.escape(mark.label)}
        if math.isfinite(mark.lr):
            shapes.append(_ACROSS | look | {"type": "line", "x0": mark.lr, "x1": mark.lr})
        else:
            curves.append(look | {"type": "scatter", "mode": "lines", "x": [None], "y": [None]})
    return shapes, curves


def _to_traces(seed: int, points: NDArray[np.float64], index: int) -> list[dict[str, object]]:
    """The raw and the smoothed curve of one sweep."""
    lrs, losses, smoothed = points
    told = np.stack([np.arange(len(lrs)), losses, smoothed], axis=1)
    hover = (
        f"seed {seed}<br>step %{{customdata[0]:d}}<br>learning rate %{{x:.4g}}<br>"
        "loss %{customdata[1]:.5g}<br>smoothed %{customdata[2]:.5g}<extra></extra>"
    )
    color = _SWEEP_COLORS[index % len(_SWEEP_COLORS)]
    common = {"type": "scatter", "mode": "lines", "x": lrs, "customdata": told, "hovertemplate": hover}
    return [
        common | {"name": f"loss, seed {seed}", "y": losses, "opacity": 0.35, "line": {"color": color, "width": 1}},
        common | {"name": f"smoothed, seed {seed}", "y": smoothed, "line": {"color": color, "width": 2.5}},
    ]


def _to_axis(name: str, kind: str, limits: tuple[float, float]) -> dict[str, object]:
    # Limits as options of the automatic range, not as a range: so they hold on a logarithmic and on a linear axis, and
    # a double click finds back to them after the axis was changed.
    options = {"clipmin": limits[0], "clipmax": limits[1]}
    return {
        "title": {"text": name},
        "type": kind,
        "autorange": True,
        "autorangeoptions": options,
        "exponentformat": "power",
    }


def _to_buttons(place: float, changes: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    buttons = [{"label": label, "method": "relayout", "args": [dict(change)]} for label, change in changes.items()]
    corner = {"x": place, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    return corner | {"type": "buttons", "direction": "right", "buttons": buttons}


def _to_sweeps(curves: Sequence[LRCurve], seeds: Sequence[int]) -> list[tuple[int, NDArray[np.float64]]]:
    """Seed and points (3, N) of each sweep; what cannot be drawn is NaN."""
    if not curves:
        raise ValueError("curves (=()) must hold at least one sweep.")
    if seeds and len(seeds) != len(curves):
        raise ValueError(f"{len(seeds)} seeds do not go with {len(curves)} curves.")
    sweeps = []
    for seed, curve in zip(seeds or range(len(curves)), curves, strict=True):
        lengths = [np.shape(part) for part in curve]
        if len(lengths) != 3 or len(set(lengths)) != 1 or len(lengths[0]) != 1 or not lengths[0][0]:
            raise ValueError(f"a curve must be three arrays (N,) with N > 0, the one of seed {seed} is {lengths}.")
        points = np.array([np.asarray(part, dtype=float) for part in curve])
        points[~np.isfinite(points)] = np.nan
        points[0, ~(points[0] > 0)] = np.nan  # has no place on a logarithmic axis
        sweeps.append((int(seed), points))
    return sweeps


def _to_marks(suggestion: float | None, marks: Mapping[str, float], own_lr: float | None, view: _View) -> list[_Mark]:
    wanted = [] if suggestion is None else [("suggestion", suggestion, _SUGGESTION_COLOR)]
    wanted += [(name, lr, _RULE_COLOR) for name, lr in marks.items()]
    wanted += [] if own_lr is None else [("own --model.lr", own_lr, _OWN_COLOR)]
    found = []
    for name, lr, color in wanted:
        if not math.isfinite(lr):
            found.append(_Mark(f"{name}: none", math.nan, False, color))
        elif not view.lrs[0] <= lr <= view.lrs[1]:
            found.append(_Mark(f"{name} {lr:.3g} (outside)", lr if lr > 0 else math.nan, False, color))
        else:
            found.append(_Mark(f"{name} {lr:.3g}", lr, True, color))
    return found


def _whole_view(sweeps: Sequence[tuple[int, NDArray[np.float64]]]) -> _View:
    """All learning rates, and the losses as far as the fall of the smoothed ones stays readable."""
    lrs = np.concatenate([points[0] for _, points in sweeps])
    lrs = lrs[np.isfinite(lrs)]
    if not lrs.size:
        raise ValueError("curves must hold a learning rate above 0.")
    margin = max((lrs.max() / lrs.min()) ** 0.02, 1.01)
    ends = float(lrs.min() / margin), float(lrs.max() * margin)
    notes = _not_finite(sweeps)
    smoothed = [points[2][np.isfinite(points[2])] for _, points in sweeps]
    smoothed = [values for values in smoothed if values.size]
    if not smoothed:
        return _View(ends, (0.0, 1.0), False, notes)
    losses = np.concatenate([points[1:].ravel() for _, points in sweeps])
    lowest, highest = float(np.nanmin(losses)), float(np.nanmax(losses))
    best = min(float(values.min()) for values in smoothed)
    start = max(float(np.median(values[: max(1, len(values) // 10)])) for values in smoothed)
    cut = best + CUT * max(start - best, 0.1 * abs(best), 1e-12)
    if highest > cut:
        notes.insert(0, f"cut off at {cut:.3g}: the loss reaches {highest:.3g}")
        return _View(ends, (lowest - 0.04 * (cut - lowest), cut), True, notes)
    margin = 0.04 * (highest - lowest) or 0.5
    return _View(ends, (lowest - margin, highest + margin), False, notes)


def _zoomed_view(sweeps: Sequence[tuple[int, NDArray[np.float64]]], zoom: tuple[float, float]) -> _View:
    """The window, and the range of the smoothed losses inside."""
    low, high = zoom
    if not 0 < low < high < math.inf:
        raise ValueError(f"zoom (={zoom}) must be two learning rates, 0 < low < high.")
    # The ends belong to the window, also where the sweep met them within rounding.
    inside = [points[2][(points[0] >= low * (1 - 1e-9)) & (points[0] <= high * (1 + 1e-9))] for _, points in sweeps]
    losses = np.concatenate(inside)
    losses = losses[np.isfinite(losses)]
    if not losses.size:
        raise ValueError(f"zoom (={zoom}) holds no point of a sweep with a finite loss.")
    bottom, top = float(losses.min()), float(losses.max())
    if bottom == top:  # an axis needs a length
        bottom, top = bottom - 0.5 * (abs(bottom) or 1), top + 0.5 * (abs(top) or 1)
    return _View((low, high), (bottom, top), False, _not_finite(sweeps))


def _not_finite(sweeps: Sequence[tuple[int, NDArray[np.float64]]]) -> list[str]:
    broken = [points[0, ~np.isfinite(points[1:]).all(axis=0)] for _, points in sweeps]
    lrs = np.concatenate(broken)
    lrs = lrs[np.isfinite(lrs)]
    return [f"not finite from learning rate {lrs.min():.3g}"] if lrs.size else []
