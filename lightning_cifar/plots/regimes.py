"""Learning rate over the progress of training."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from lightning_cifar.plots.plain_figure import PlainFigure

LOG_RANGE = 1e-4
"""Lower end of a logarithmic axis, relative to the highest point."""


def draw_regimes(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    ylabel: str = "learning rate / peak",
    log: bool = False,
) -> Figure:
    """Draw a small panel for each regime, all with the same axes; a single regime has a larger panel.

    Args:
        curves: (progress of training in [0, 1], learning rate), each (N,), by the name of the regime. Progress is drawn
            in percent.
        ylabel: Label of the vertical axis.
        log: Logarithmic vertical axis over at most four orders of magnitude.

    Raises:
        ValueError: ``curves`` is empty.
    """
    if not curves:
        raise ValueError("curves (={}) must contain at least one regime.")
    rows = math.ceil(len(curves) / 4)
    columns = math.ceil(len(curves) / rows)
    size = (5.2, 2.9) if len(curves) == 1 else (2.5 * columns + 0.5, 2.1 * rows + 0.4)
    figure = PlainFigure(figsize=size, layout="constrained")
    lowest, highest = _limits(curves, log=log)
    for i, (name, (progress, rate)) in enumerate(curves.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.set_title(textwrap.fill(name, 60 if len(curves) == 1 else 30), fontsize=10)
        axes.set_yscale("log" if log else "linear")
        axes.set_ylim(lowest, highest)
        axes.set_xlim(-2, 102)
        axes.plot(100 * np.asarray(progress, dtype=float), np.asarray(rate, dtype=float), color="tab:blue")
        axes.set_xticks(range(0, 101, 25))
        axes.grid(alpha=0.3)
        is_left, is_bottom = i % columns == 0, i + columns >= len(curves)
        axes.set_xlabel("training progress (%)" if is_bottom else "")
        axes.set_ylabel(ylabel if is_left else "")
        axes.tick_params(labelbottom=is_bottom, labelleft=is_left)
    return figure


def _limits(curves: Mapping[str, tuple[ArrayLike, ArrayLike]], *, log: bool) -> tuple[float, float]:
    """Limits of the vertical axis, the same for all panels."""
    rates = np.concatenate([np.ravel(np.asarray(rate, dtype=float)) for _, rate in curves.values()])
    positive = rates[rates > 0]
    if not positive.size:
        return (LOG_RANGE, 1.0) if log else (-0.04, 1.0)
    top = float(positive.max())
    if log:
        return max(float(positive.min()), LOG_RANGE * top) / 1.3, 1.3 * top
    return -0.04 * top, 1.06 * top
