"""Loss surface as an HTML page that can be rotated, beside its contours."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from lightning_cifar.plots.loss_surface import PATH_COLORS, Surface, SurfacePath
from lightning_cifar.plots.pages.page import plot_page


def loss_surface_html(surface: Surface, *, title: str = "", note: str = "") -> str:
    """Return the surface as an HTML page of about 5 MB, which includes plotly.js and works offline.

    On the left, the loss is a surface that dragging rotates; on the right are the contours of the loss or, by a button,
    of the accuracy. Pointing shows values. A snapshot of a run is drawn at its own loss, which differs from that of the
    plane. Missing points are gaps. Markup in names is escaped.

    Args:
        surface: What is drawn.
        title: Title of the page.
        note: Line below the title.
    """
    x, y = np.asarray(surface.x, np.float64), np.asarray(surface.y, np.float64)
    loss, accuracy = np.asarray(surface.loss, np.float64), np.asarray(surface.accuracy, np.float64)
    shown = np.where(loss > 0, loss, np.nan)
    color = np.log10(shown)  # of the surface too, whose axis is logarithmic
    at = "x %{x:.3g}<br>y %{y:.3g}<br>"
    plane = {"x": x, "y": y, "customdata": loss}
    bar = {"title": {"text": "loss"}, "len": 0.9, **_log_ticks(color)}
    hover = at + "loss %{customdata:.4g}<extra></extra>"
    traces: list[dict[str, object]] = [
        {"type": "surface", "z": shown, "surfacecolor": color, "colorscale": "Viridis", "reversescale": True}
        | plane
        | {"showscale": False, "opacity": 0.85, "hovertemplate": at + "loss %{z:.4g}<extra></extra>"},
        {"type": "contour", "z": color, "colorscale": "Viridis", "reversescale": True, "ncontours": 24, "colorbar": bar}
        | plane
        | {"hovertemplate": hover},
        {"type": "contour", "z": 100 * accuracy, "colorscale": "Viridis", "ncontours": 24, "visible": False}
        | {"x": x, "y": y, "colorbar": {"title": {"text": "accuracy (%)"}, "len": 0.9}}
        | {"hovertemplate": at + "accuracy %{z:.2f} %<extra></extra>"},
    ]
    for index, path in enumerate(surface.paths):
        traces += _to_traces(path, PATH_COLORS[index % len(PATH_COLORS)])
    num_paths = 2 * len(surface.paths)
    buttons = [
        {"label": label, "method": "restyle", "args": [{"visible": [True, loss_on, not loss_on, *[True] * num_paths]}]}
        for label, loss_on in (("loss", True), ("accuracy", False))
    ]
    first, second = (html.escape(label) for label in surface.labels)
    axes = {"xaxis": {"title": {"text": first}}, "yaxis": {"title": {"text": second}}}
    layout = {
        "template": "plotly_white",
        "title": {"text": html.escape(title), "subtitle": {"text": html.escape(note)}},
        "scene": axes
        | {"zaxis": {"title": {"text": "loss"}, "type": "log"}, "domain": {"x": [0, 0.5]}}
        | {"camera": {"eye": {"x": 1.5, "y": -1.9, "z": 1.1}}},
        "xaxis": axes["xaxis"] | {"domain": [0.57, 1]},
        "yaxis": axes["yaxis"],
        "legend": {"orientation": "h", "y": -0.12},
        "margin": {"t": 120},
        "updatemenus": [
            {"type": "buttons", "direction": "right", "buttons": buttons, "x": 0.57, "xanchor": "left", "y": 1.02}
            | {"yanchor": "bottom"}
        ],
    }
    return plot_page(title or "loss surface", traces, layout, "loss-surface")


def _log_ticks(color: np.ndarray) -> dict[str, object]:
    low, high = float(np.nanmin(color)), float(np.nanmax(color))
    ticks = np.linspace(low, high, 7)
    return {"tickvals": ticks, "ticktext": [f"{10**tick:.3g}" for tick in ticks]}


def _to_traces(path: SurfacePath, color: str) -> Sequence[dict[str, object]]:
    """The path above the plane and on it."""
    points, losses = np.asarray(path.points, np.float64), np.asarray(path.losses, np.float64)
    color = {"white": "black"}.get(color, color.removeprefix("tab:"))
    text = [f"step {step}, own loss {loss:.4g}" for step, loss in zip(path.steps, losses, strict=True)]
    common = {"x": points[:, 0], "y": points[:, 1], "mode": "lines+markers", "name": html.escape(path.label)}
    common |= {"text": text, "hovertemplate": "%{text}<extra>%{fullData.name}</extra>", "line": {"color": color}}
    common |= {"legendgroup": common["name"]}
    marker = {"size": 4, "color": color}
    return [
        {"type": "scatter3d", "z": losses, "marker": marker} | common,
        {"type": "scatter", "marker": marker | {"size": 7}, "showlegend": False} | common,
    ]
