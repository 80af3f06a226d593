"""Loss and accuracy of a network on a plane through its weights, with the paths of training runs, or along a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from lightning_cifar.plots.plain_figure import PlainFigure
from lightning_cifar.plots.wrapping import wrap

Array = NDArray[np.float64]
PATH_COLORS = ("white", "tab:red", "tab:orange", "tab:cyan", "tab:pink", "tab:olive")


class SurfacePath(NamedTuple):
    """Weights of a run at T times, projected onto the plane."""

    label: str
    points: ArrayLike
    """(T, 2): coordinates."""
    steps: Sequence[int]
    losses: ArrayLike
    """(T,): loss at the weights of the run, which are not on the plane."""


class Surface(NamedTuple):
    """Loss and accuracy on a grid of points of a plane; NaN where they are missing."""

    x: ArrayLike
    """(X,)"""
    y: ArrayLike
    """(Y,)"""
    loss: ArrayLike
    """(Y, X)"""
    accuracy: ArrayLike
    """(Y, X), as fractions."""
    paths: Sequence[SurfacePath] = ()
    labels: tuple[str, str] = ("x", "y")
    """Labels of the axes."""


def draw_loss_surface(surface: Surface, *, title: str = "", note: str = "") -> Figure:
    """Draw the contours of loss and accuracy side by side, with the paths of the runs.

    Colours of the loss are logarithmic. Missing points are hatched.

    Args:
        surface: What is drawn.
        title: Title of the picture.
        note: Second line of the title.

    Raises:
        ValueError: If no point has a finite loss, or shapes differ.

    Example:
        >>> import numpy as np
        >>> axis = np.linspace(-1, 1, 5)
        >>> loss = 0.1 + axis[:, None] ** 2 + axis**2
        >>> len(draw_loss_surface(Surface(axis, axis, loss, 1 - loss / 3)).axes)  # two panels, two colour bars
        4
    """
    x, y = np.asarray(surface.x, np.float64), np.asarray(surface.y, np.float64)
    loss, accuracy = np.asarray(surface.loss, np.float64), np.asarray(surface.accuracy, np.float64)
    if not loss.shape == accuracy.shape == (len(y), len(x)):
        raise ValueError(f"loss {loss.shape} and accuracy {accuracy.shape} must be (Y, X) = ({len(y)}, {len(x)})")
    if not np.isfinite(loss).any():
        raise ValueError("no point of the plane has a finite loss: choose a smaller region")
    figure = PlainFigure(figsize=(9.8, 4.6), layout="constrained")
    figure.suptitle("\n".join(filter(None, (wrap(title, 105), wrap(note, 125)))), size=10)
    norm, levels = loss_levels(loss)
    ticks = MaxNLocator(20).tick_values(100 * np.nanmin(accuracy), 100 * np.nanmax(accuracy))
    shares = np.asarray(ticks, np.float64)
    panels = ((loss, "loss", norm, levels, "viridis_r"), (100 * accuracy, "accuracy (%)", None, shares, "viridis"))
    for axes, (values, name, scale, steps, colors) in zip(figure.subplots(1, 2), panels, strict=True):
        axes.set_facecolor("0.75")
        axes.patch.set_hatch("///")
        shown = np.ma.masked_invalid(values)
        filled = axes.contourf(x, y, shown, steps, norm=scale, cmap=colors, extend="both")
        axes.contour(x, y, shown, steps, colors="black", linewidths=0.4, alpha=0.5)
        bar = figure.colorbar(filled, ax=axes, label=name)
        if isinstance(scale, LogNorm):
            bar.ax.yaxis.set_minor_locator(NullLocator())
            bar.set_ticks(steps[::3].tolist(), labels=distinct(steps[::3].tolist()))
        _draw_paths(axes, surface.paths)
        axes.set_xlabel(surface.labels[0])
        axes.set_ylabel(surface.labels[1])
    handles, names = figure.axes[0].get_legend_handles_labels()
    if names:
        style = {"ncols": 4, "fontsize": 9, "facecolor": "0.75", "title_fontsize": 9}
        figure.legend(
            handles, names, loc="outside lower center", title="square: first weights, star: last weights", **style
        )
    return figure


def distinct(values: Sequence[float]) -> list[str]:
    """Return the numbers with the fewest digits, at least 3, with which all differ.

    >>> distinct([2.241, 2.238, 2.3])
    ['2.241', '2.238', '2.300']
    """
    for digits in range(3, 8):
        texts = [f"{value:#.{digits}g}" for value in values]
        if len({*texts}) == len(texts):
            break
    return texts


def loss_levels(loss: Array) -> tuple[Normalize, Array]:
    """Return a colour scale of the losses and 25 levels, both logarithmic if all finite losses are positive.

    The scale ends at four times the median, so that an exploding corner of the plane does not hide the rest.
    """
    low, high = float(np.nanmin(loss)), float(np.nanmax(loss))
    if low > 0:
        high = min(high, 4 * float(np.nanmedian(loss)))
    high = max(high, low + 1e-6 * max(abs(low), 1e-6))
    if low > 0:
        return LogNorm(low, high), np.geomspace(low, high, 25)
    return Normalize(low, high), np.linspace(low, high, 25)


def _draw_paths(axes: Axes, paths: Sequence[SurfacePath]) -> None:
    limits = axes.get_xlim(), axes.get_ylim()
    for index, path in enumerate(paths):
        points, color = np.asarray(path.points, np.float64), PATH_COLORS[index % len(PATH_COLORS)]
        axes.plot(
            *points.T, "o-", color=color, markeredgecolor="black", markeredgewidth=0.4, markersize=4, linewidth=1.5
        )
        axes.plot(*points[0], "s", color=color, markeredgecolor="black", markersize=8, zorder=4)
        axes.plot(*points[-1], "*", color=color, markeredgecolor="black", markersize=15, zorder=4, label=path.label)
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])


def draw_loss_line(
    position: ArrayLike,
    loss: ArrayLike,
    accuracy: ArrayLike,
    *,
    ends: tuple[str, str],
    barriers: Mapping[str, float],
    title: str = "",
) -> Figure:
    """Draw loss and accuracy between two networks, with the straight line from which a barrier is measured.

    Args:
        position: (T,), from 0 to 1.
        loss: (T,), NaN where it is missing.
        accuracy: (T,), as fractions.
        ends: Names of the networks at 0 and 1.
        barriers: Height of the barrier of ``loss`` and of ``accuracy``, for the titles of the panels.
        title: Title of the picture.

    Example:
        >>> figure = draw_loss_line(
        ...     [0, 0.5, 1], [1, 2, 1], [0.7, 0.4, 0.7], ends=("a", "b"), barriers={"loss": 1.0, "accuracy": 0.3}
        ... )
        >>> figure.axes[0].get_title()
        'barrier 1'
    """
    figure = PlainFigure(figsize=(9.5, 4.2), layout="constrained")
    figure.suptitle(wrap(title, 105), size=11)
    x = np.asarray(position, np.float64)
    for axes, (name, values, scale, unit) in zip(
        figure.subplots(1, 2), (("loss", loss, 1, ""), ("accuracy", accuracy, 100, " points")), strict=True
    ):
        y = scale * np.asarray(values, np.float64)
        axes.plot(x, y, "o-", markersize=3.5)
        axes.plot(x[[0, -1]], y[[0, -1]], "--", color="0.4")
        axes.set_title(f"barrier {scale * barriers[name]:.3g}{unit}", size=10)
        axes.set_ylabel("loss" if name == "loss" else "accuracy (%)")
        axes.set_xticks(x[[0, -1]], [wrap(end, 30) for end in ends])
        axes.grid(alpha=0.3)
    return figure
