"""Speed of convolution implementations as bars."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from lightning_cifar.plots.plain_figure import PlainFigure

_COLORS = {"forward": "#2a78b5", "backward": "#e08a2e"}


def draw_conv_bench(rows: Sequence[tuple[str, str, str, float]]) -> Figure:
    """Draw billions of operations per second on a logarithmic axis, one panel for each shape.

    Args:
        rows: (shape, "forward" or "backward", name, GFLOP/s).

    Raises:
        ValueError: ``rows`` is empty.
    """
    if not rows:
        raise ValueError("there is nothing to draw: rows is empty")
    shapes = list(dict.fromkeys(shape for shape, *_ in rows))
    # The order of the shape with the most names.
    by_shape = [list(dict.fromkeys(name for each, _, name, _ in rows if each == shape)) for shape in shapes]
    names = list(dict.fromkeys(name for listed in sorted(by_shape, key=len, reverse=True) for name in listed))
    columns = min(2, len(shapes))
    lines = math.ceil(len(shapes) / columns)
    size = (5.2 * columns + 0.8, (0.42 * len(names) + 1.1) * lines + 0.5)
    figure = PlainFigure(figsize=size, layout="constrained")
    lowest = min(value for *_, value in rows)
    highest = max(value for *_, value in rows)
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for i, panel in enumerate(axes.flat):
        if i >= len(shapes):
            panel.set_axis_off()
            continue
        for way, shift in (("forward", -0.2), ("backward", 0.2)):
            chosen = [(name, value) for shape, kind, name, value in rows if shape == shapes[i] and kind == way]
            heights = [names.index(name) + shift for name, _ in chosen]
            values = [value for _, value in chosen]
            panel.barh(heights, values, height=0.38, color=_COLORS[way], label=way)
            for y, value in zip(heights, values, strict=True):
                panel.annotate(f" {value:.3g}", (value, y), va="center", size=7.5)
            for y in {index + shift for index in range(len(names))} - set(heights):
                panel.annotate(" not run", (lowest / 2, y), va="center", size=7.5, color="0.45")
        panel.set_title(shapes[i], size=10)
        panel.set_xscale("log")
        panel.set_xlim(lowest / 2, highest * 4)
        panel.grid(axis="x", alpha=0.3)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        if i >= len(shapes) - columns:
            panel.set_xlabel("GFLOP/s, higher is faster")
            panel.tick_params(labelbottom=True)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=2, frameon=False, fontsize=9)
    return figure
