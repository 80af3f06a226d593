"""Sharpness during training, with the stability limit of the optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from numpy.typing import ArrayLike

from lightning_cifar.plots.plain_figure import PlainFigure
from lightning_cifar.plots.wrapping import wrap


def draw_sharpness(
    steps: Sequence[int],
    sharpness: ArrayLike,
    limit: ArrayLike,
    lr: ArrayLike,
    *,
    formula: str = "",
    title: str = "",
) -> Figure:
    """Draw the largest eigenvalue of the Hessian and the stability limit against the step, and the learning rate below.

    The upper axis is logarithmic; values that are not positive and finite are left out, and so are limits far above the
    sharpness, such as those of a warm-up.

    Args:
        steps: (T,), completed optimizer steps.
        sharpness: (T,)
        limit: (T,), NaN where it is unknown.
        lr: (T,), learning rate of the next step.
        formula: Formula of the limit, for the legend.
        title: Title of the picture.

    Raises:
        ValueError: If there is no step.

    Example:
        >>> figure = draw_sharpness([1, 100], [3.0, 30.0], [38.0, 38.0], [0.1, 0.1])
        >>> [line.get_label() for line in figure.axes[0].lines]
        ['sharpness', 'stability limit']
    """
    if not len(steps):
        raise ValueError("there is nothing to draw: steps is empty")
    figure = PlainFigure(figsize=(7, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    figure.suptitle(wrap(title, 80), size=11)
    label = f"stability limit: {formula}" if formula else "stability limit"
    for values, name, style in ((sharpness, "sharpness", "o-"), (limit, label, "--")):
        shown = np.asarray(values, np.float64)
        shown = np.where(np.isfinite(shown) & (shown > 0), shown, np.nan)
        if np.isfinite(shown).any():
            upper.plot(
                steps, shown, style, color="tab:blue" if style == "o-" else "tab:red", label=name, markersize=3.5
            )
            upper.set_yscale("log")
    upper.set_ylabel("curvature of the loss")
    upper.grid(alpha=0.3, which="both")
    if upper.lines:
        low, high = upper.get_ylim()
        peak = max((float(np.nanmax(line.get_ydata())) for line in upper.lines[:1]), default=high)
        upper.set_ylim(low, high := min(high, max(20 * peak, 5 * low)))
        if high < 100 * low:  # otherwise, less than two powers of ten have labels
            for axis in (upper.yaxis.set_major_formatter, upper.yaxis.set_minor_formatter):
                axis(ScalarFormatter())
        upper.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, fontsize=9)
    lower.plot(steps, lr, color="0.3")
    lower.set_ylabel("learning rate")
    lower.set_xlabel("step")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    lower.set_ylim(bottom=0)
    lower.grid(alpha=0.3)
    return figure
