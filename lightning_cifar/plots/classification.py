"""A confusion matrix as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from lightning_cifar.plots.plain_figure import PlainFigure

# Numbers and names are not readable with more classes.
_MOST_NUMBERED = 20
_MOST_NAMED = 40


def draw_confusion(confusion: ArrayLike, class_names: Sequence[str], *, title: str = "") -> Figure:
    """Draw a heat map of a confusion matrix in percent of each true class, with numbers for up to 20 classes.

    Args:
        confusion: Counts (K, K), rows are true classes. A row without samples is grey.
        class_names: K names.
        title: Title of the picture.

    Raises:
        ValueError: The matrix is not square, or the number of names differs.
    """
    counts = np.asarray(confusion, dtype=float)
    if counts.ndim != 2 or counts.shape != (len(class_names), len(class_names)):
        raise ValueError(f"a confusion matrix {counts.shape} does not match {len(class_names)} class names")
    num_classes = len(class_names)
    totals = counts.sum(axis=1, keepdims=True)
    percent = np.divide(100 * counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)

    side = min(max(3.6, 0.56 * num_classes), 11.2)
    figure = PlainFigure(figsize=(side + 1.2, side + 1.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("0.85")
    # The colour shows the square root of the share: on a linear scale a confusion of 5 % looks like zero.
    image = axes.imshow(percent, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=100))
    if num_classes > _MOST_NUMBERED:
        bar = figure.colorbar(image, ax=axes, shrink=0.9, label="share of the true class (%)")
        bar.set_ticks([0, 1, 5, 10, 25, 50, 75, 100])
        bar.minorticks_off()

    every = math.ceil(num_classes / _MOST_NAMED)
    ticks = range(0, num_classes, every)
    size = 9 if num_classes <= _MOST_NUMBERED else 6
    axes.set_xticks(ticks, [class_names[i] for i in ticks], rotation=45, ha="right", rotation_mode="anchor", size=size)
    axes.set_yticks(ticks, [class_names[i] for i in ticks], size=size)
    axes.set_xlabel("predicted class" + " (% of the true class)" * (num_classes <= _MOST_NUMBERED))
    axes.set_ylabel("true class")
    axes.set_title(title)
    if num_classes <= _MOST_NUMBERED:
        for (row, column), value in np.ndenumerate(percent):
            if value > 0:
                axes.text(
                    column,
                    row,
                    "100" if value >= 99.95 else f"{value:.1f}" if value >= 0.05 else "<0.1",
                    ha="center",
                    va="center",
                    size=8,
                    color="white" if value > 36 else "black",  # 36 % is 0.6 of the colour scale
                    in_layout=False,
                )
    return figure
