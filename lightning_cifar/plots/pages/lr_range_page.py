"""Sweeps of the learning-rate range finder as an HTML page with zoom."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_cifar.plots.lr_range_view import (
    OWN_COLOR,
    SUGGESTION_COLOR,
    SWEEP_COLORS,
    LRCurve,
    Mark,
    View,
    to_marks,
    to_sweeps,
    whole_view,
)
from lightning_cifar.plots.pages.page import plot_page

_RULE_DASHES = ("dot", "dash", "dashdot", "longdash", "longdashdot")


def lr_range_html(
    curves: Sequence[LRCurve],
    *,
    suggestion: float | None = None,
    interval: tuple[float, float] | None = None,
    marks: Mapping[str, float] = {},
    own_lr: float | None = None,
    seeds: Sequence[int] = (),
    doubt: str = "",
    title: str = "",
) -> str:
    """Return the plot of ``draw_lr_range`` as an HTML page of about 5 MB, which includes plotly.js and works offline.

    Dragging a box zooms, a double click resets the zoom, a click on a name in the legend hides or shows it, and buttons
    switch each axis between logarithmic and linear. Pointing at a curve shows its values. Markup in names is escaped.

    The arguments are those of :func:`~lightning_cifar.plots.lr_range.draw_lr_range`.

    Raises:
        ValueError: See :func:`~lightning_cifar.plots.lr_range.draw_lr_range`.
    """
    sweeps = to_sweeps(curves, seeds)
    view = whole_view(sweeps, doubt)
    shapes, empty = _to_shapes(to_marks(suggestion, marks, own_lr, view))
    traces = [trace for i, (seed, points) in enumerate(sweeps) for trace in _to_traces(seed, points, i)] + empty
    if interval is not None and np.isfinite(interval).all():
        shapes.insert(0, _to_band(*interval))
    text = {"text": html.escape(title), "subtitle": {"text": html.escape("; ".join(view.notes))}}
    layout = {
        "template": "plotly_white",
        "title": text | {"yref": "container", "y": 0.97, "yanchor": "top"},
        "xaxis": _to_axis("learning rate", "log", view.lrs),
        "yaxis": _to_axis("training loss", "linear", view.losses),
        "hovermode": "closest",
        "dragmode": "zoom",
        "margin": {"t": 130},
        "shapes": shapes,
        "updatemenus": _to_menus(view),
    }
    return plot_page(title or "learning-rate range", traces, layout, "lr-range")


# Every shape extends over the whole height of the panel at any zoom, and has an entry in the legend.
_ACROSS: dict[str, object] = {"yref": "y domain", "y0": 0, "y1": 1, "showlegend": True}


def _to_band(low: float, high: float) -> dict[str, object]:
    """The interval of the suggestion."""
    band = {"type": "rect", "x0": low, "x1": high, "layer": "below", "line": {"width": 0}}
    look = {"fillcolor": SUGGESTION_COLOR, "opacity": 0.13, "name": f"interval {low:.3g} to {high:.3g}"}
    return _ACROSS | band | look


def _to_shapes(marks: Sequence[Mark]) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Vertical lines, and empty curves with an entry in the legend for marks that cannot be drawn."""
    shapes: list[dict[str, object]] = []
    curves: list[dict[str, object]] = []
    for i, mark in enumerate(marks):
        width, dash = 1.5, _RULE_DASHES[i % len(_RULE_DASHES)]
        if mark.color == SUGGESTION_COLOR:
            width, dash = 2.5, "solid"
        elif mark.color == OWN_COLOR:
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
    values = np.stack([np.arange(len(lrs)), losses, smoothed], axis=1)
    hover = (
        f"seed {seed}<br>step %{{customdata[0]:d}}<br>learning rate %{{x:.4g}}<br>"
        "loss %{customdata[1]:.5g}<br>smoothed %{customdata[2]:.5g}<extra></extra>"
    )
    color = SWEEP_COLORS[index % len(SWEEP_COLORS)]
    common = {"type": "scatter", "mode": "lines", "x": lrs, "customdata": values, "hovertemplate": hover}
    return [
        common | {"name": f"loss, seed {seed}", "y": losses, "opacity": 0.35, "line": {"color": color, "width": 1}},
        common | {"name": f"smoothed, seed {seed}", "y": smoothed, "line": {"color": color, "width": 2.5}},
    ]


def _to_axis(name: str, kind: str, limits: tuple[float, float]) -> dict[str, object]:
    # Limits of the automatic range, not a range: they are valid for logarithmic and linear axes, and a double click
    # restores them after the axis has changed.
    options = {"clipmin": limits[0], "clipmax": limits[1]}
    axis = {"title": {"text": name}, "type": kind, "exponentformat": "power"}
    return axis | {"autorange": True, "autorangeoptions": options}


def _to_menus(view: View) -> list[dict[str, object]]:
    """Buttons that change the axes."""
    menus = [
        _to_buttons(0.0, {"log x": {"xaxis.type": "log"}, "linear x": {"xaxis.type": "linear"}}),
        _to_buttons(0.22, {"linear y": {"yaxis.type": "linear"}, "log y": {"yaxis.type": "log"}}),
    ]
    if view.is_cut:
        cut, whole = (
            {"yaxis.autorangeoptions.clipmax": end, "yaxis.autorange": True} for end in (view.losses[1], None)
        )
        menus.append(_to_buttons(0.44, {"cut off": cut, "whole loss": whole}))
    return menus


def _to_buttons(x: float, changes: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    buttons = [{"label": label, "method": "relayout", "args": [dict(change)]} for label, change in changes.items()]
    corner = {"x": x, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    return corner | {"type": "buttons", "direction": "right", "buttons": buttons}
