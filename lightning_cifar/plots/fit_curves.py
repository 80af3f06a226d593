"""Curves fitted to points (x, y)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from lightning_cifar.plots.plain_figure import COLORS, PlainFigure
from lightning_cifar.plots.wrapping import wrap

Array = NDArray[np.float64]


class FitCurve(NamedTuple):
    """Curve of one network over T steps."""

    label: str
    values: ArrayLike
    """(T, G): the curve at the positions ``x`` of the picture."""
    low: ArrayLike | None = None
    """(T, G): lower edge of a band around the curve."""
    high: ArrayLike | None = None


class FitPoints(NamedTuple):
    """A set of points ``x`` and ``y`` (N,)."""

    label: str
    x: ArrayLike
    y: ArrayLike


class FitPicture(NamedTuple):
    """Curves and points on the same axes, whose limits are the same for all steps."""

    x: ArrayLike
    """(G,): positions of the curves, increasing."""
    curves: Sequence[FitCurve]
    points: Sequence[FitPoints]
    """The first set is drawn filled, the others hollow."""
    band_label: str = ""


def draw_fit(picture: FitPicture, *, title: str = "") -> Figure:
    """Draw the last step.

    Raises:
        ValueError: There is no curve, or shapes differ.
    """

    def last(values: ArrayLike | None) -> Array | None:
        return None if values is None else np.asarray(values, np.float64)[-1:]

    curves = [
        curve._replace(values=np.asarray(curve.values)[-1:], low=last(curve.low), high=last(curve.high))
        for curve in picture.curves
    ]
    return next(animate_fits(picture._replace(curves=curves), titles=[title]))


def animate_fits(picture: FitPicture, *, titles: Sequence[str]) -> Iterator[Figure]:
    """Draw T steps on fixed axes.

    Yields:
        The same figure at each step.

    Raises:
        ValueError: There is no curve, or shapes differ from (T, G).
    """
    _check(picture, len(titles))
    figure = PlainFigure(figsize=(7, 4.8), layout="constrained")
    axes = figure.subplots()
    titles = [wrap(title, 74) for title in titles]
    heading = axes.set_title(max(titles, key=len), size=11)
    drawn = _start(axes, picture)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.draw_without_rendering()  # lays out once
    figure.set_layout_engine("none")
    for step, title in enumerate(titles):
        heading.set_text(title)
        for artists, curve in zip(drawn, picture.curves, strict=True):
            _move(artists, picture.x, curve, step)
        yield figure


def draw_fit_sheet(picture: FitPicture, *, titles: Sequence[str]) -> Figure:
    """Draw each of T steps on separate axes with the same limits, in rows of three.

    Raises:
        ValueError: There is no curve, or shapes differ from (T, G).
    """
    _check(picture, len(titles))
    columns = min(3, len(titles))
    rows = math.ceil(len(titles) / columns)
    figure = PlainFigure(figsize=(3.9 * columns, 3.1 * rows + 0.7), layout="constrained")
    subplots = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat)
    for step, (axes, text) in enumerate(zip(subplots, titles, strict=False)):
        axes.set_title(wrap(text, 52), size=9)
        for artists, curve in zip(_start(axes, picture), picture.curves, strict=True):
            _move(artists, picture.x, curve, step)
        axes.label_outer()
    for axes in subplots[len(titles) :]:
        axes.set_axis_off()
    figure.legend(*subplots[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    return figure


def _start(axes: Axes, picture: FitPicture) -> list[tuple[Line2D, PolyCollection | None]]:
    """Draw points and empty curves and bands, and set the limits of the axes."""
    for index, points in enumerate(picture.points):
        color = "0.25" if index == 0 else "white"
        axes.scatter(points.x, points.y, s=18, color=color, edgecolor="0.25", linewidth=0.8, label=points.label)
    drawn: list[tuple[Line2D, PolyCollection | None]] = []
    for index, curve in enumerate(picture.curves):
        color = COLORS[index % len(COLORS)]
        (line,) = axes.plot([], [], color=color, linewidth=2, label=curve.label, zorder=3)
        band = None
        if curve.low is not None:
            label = f"{curve.label}: {picture.band_label}"
            band = axes.fill_between([], [], facecolor=(color, 0.2), linewidth=0, label=label, zorder=2.5)
        drawn.append((line, band))
    low, high = _limits(picture)
    axes.set_ylim(low, high)
    x = np.asarray(picture.x, np.float64)
    axes.set_xlim(x[0], x[-1])
    axes.set_xlabel("x")
    axes.set_ylabel("y")
    axes.grid(alpha=0.3)
    return drawn


def _move(artists: tuple[Line2D, PolyCollection | None], x: ArrayLike, curve: FitCurve, step: int) -> None:
    line, band = artists
    positions = np.asarray(x, np.float64)
    line.set_data(positions, np.asarray(curve.values, np.float64)[step])
    if band is not None and curve.low is not None and curve.high is not None:
        low, high = (np.asarray(edge, np.float64)[step] for edge in (curve.low, curve.high))
        band.set_verts([np.column_stack([np.r_[positions, positions[::-1]], np.r_[low, high[::-1]]])])


def _limits(picture: FitPicture) -> tuple[float, float]:
    """Limits of y: the points with a margin, and the curves of the last step unless they are far away."""
    y = np.concatenate([np.asarray(points.y, np.float64).ravel() for points in picture.points] or [np.zeros(1)])
    y = y[np.isfinite(y)]
    low, high = (float(y.min()), float(y.max())) if len(y) else (-1.0, 1.0)
    room = (high - low) or 1.0
    last = np.concatenate([np.asarray(curve.values, np.float64)[-1] for curve in picture.curves])
    last = last[np.isfinite(last)].clip(low - room / 4, high + room / 4)
    return min(low, last.min(initial=low)) - 0.08 * room, max(high, last.max(initial=high)) + 0.08 * room


def _check(picture: FitPicture, num_steps: int) -> None:
    if not picture.curves or not num_steps:
        raise ValueError(f"there is nothing to draw: {len(picture.curves)} curves, {num_steps} steps")
    wanted = (num_steps, len(np.asarray(picture.x)))
    for curve in picture.curves:
        for values in (curve.values, curve.low, curve.high):
            if values is not None and np.shape(values) != wanted:
                raise ValueError(f"values of {curve.label!r} are {np.shape(values)} and must be (T, G) = {wanted}")
