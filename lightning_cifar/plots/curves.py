"""Loss and accuracy against epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lightning_cifar.plots.plain_figure import PlainFigure

Curve: TypeAlias = Sequence[tuple[float, float]]
"""Points (completed epochs, value), in the order of epochs."""

STYLES: tuple[tuple[Literal["-", "--"], str], ...] = (("-", "validation"), ("--", "training"))


def draw_loss_curves(
    *,
    train_loss: Curve = (),
    val_loss: Curve = (),
    train_accuracy: Curve = (),
    val_accuracy: Curve = (),
    title: str = "",
) -> Figure:
    """Draw loss and accuracy side by side, each for training and validation; a panel without points is left out.

    Accuracies are fractions and are drawn in percent; the best validation accuracy is marked. A note in the panel names
    the first value that is not finite.
    """
    panels = [("loss", train_loss, val_loss, 1), ("accuracy (%)", train_accuracy, val_accuracy, 100)]
    shown = [panel for panel in panels if panel[1] or panel[2]] or panels[:1]
    figure = PlainFigure(figsize=(4.8 * len(shown) + 0.4, 4), layout="constrained")
    if title:
        figure.suptitle(title)
    for axes, (name, train, val, scale) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        _draw_panel(axes, train, val, scale=scale)
        axes.set_ylabel(name)
        if scale == 100:
            _mark_best(axes, val)
        if axes.lines:
            legend = axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, fontsize=9, columnspacing=1.2)
            legend.set_frame_on(False)
    return figure


def draw_members_curves(members: Mapping[str, Mapping[str, Curve]], title: str = "") -> Figure:
    """Draw several networks in one figure, one colour for each: training dashed, validation solid.

    Args:
        members: The curves of :func:`draw_loss_curves` by the name of the network; curves may be missing.
        title: Title of the picture.

    Raises:
        ValueError: ``members`` is empty.
    """
    if not members:
        raise ValueError("there is nothing to draw: members is empty")
    shows_accuracy = any(each.get("train_accuracy") or each.get("val_accuracy") for each in members.values())
    panels = 1 + shows_accuracy
    figure = PlainFigure(figsize=(4.8 * panels + 0.4, 4.2), layout="constrained")
    if title:
        figure.suptitle(title)
    colors = {name: f"C{i % 10}" for i, name in enumerate(members)}
    for axes, kind in zip(figure.subplots(1, panels, squeeze=False)[0], ("loss", "accuracy"), strict=False):
        for name, curves in members.items():
            for split, style in (("train", "--"), ("val", "-")):
                curve, scale = curves.get(f"{split}_{kind}", ()), 1 if kind == "loss" else 100
                _plot(axes, curve, scale, color=colors[name], linestyle=style, markersize=3)
        axes.set_ylabel("loss" if kind == "loss" else "accuracy (%)")
        _finish_axes(axes)
    handles = [Line2D([], [], color=color, label=name) for name, color in colors.items()]
    handles += [Line2D([], [], color="0.3", linestyle=style, label=label) for style, label in STYLES]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False, fontsize=9)
    return figure


def _plot(axes: Axes, curve: Curve, scale: float, **style: Any) -> None:
    if curve:
        x, y = np.asarray(curve, dtype=float).T
        axes.plot(x, scale * y, marker="o" if len(x) <= 40 else "", **style)


def _draw_panel(axes: Axes, train: Curve, val: Curve, *, scale: float) -> None:
    for curve, color, label in ((train, "tab:blue", "training"), (val, "tab:orange", "validation")):
        _plot(axes, curve, scale, color=color, label=label, markersize=3.5, linewidth=1.5)
    broken = [epoch for epoch, value in (*train, *val) if not np.isfinite(value)]
    if broken:
        axes.text(0.03, 0.03, f"not finite at epoch {min(broken):g}", color="tab:red", transform=axes.transAxes)
    _finish_axes(axes)


def _finish_axes(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    epochs = [float(epoch) for line in axes.lines for epoch in np.asarray(line.get_xdata())]
    if epochs and min(epochs) < max(epochs):
        axes.set_xlim(left=min(epochs))
    for line in axes.lines:
        line.set_clip_on(False)  # the first marker is on the axis
    axes.grid(alpha=0.3)


def _mark_best(axes: Axes, curve: Curve) -> None:
    finite = [point for point in curve if np.isfinite(point[1])]
    if not finite:
        return
    epoch, best = max(finite, key=lambda point: point[1])  # the first one of equals
    label = f"best validation {100 * best:.2f} % (epoch {epoch:.4g})"
    axes.plot([epoch], [100 * best], "*", color="tab:red", markersize=12, zorder=3, label=label)
