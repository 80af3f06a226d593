"""Computational graph with values and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from matplotlib.figure import Figure

from lightning_cifar.plots.plain_figure import PlainFigure


class GraphNode(NamedTuple):
    """A node of a graph.

    Attributes:
        label: Name of a variable, an operation, or a number.
        kind: ``variable``, ``constant``, ``operation`` or ``result``.
        value: Value as text.
        grad: Derivative of the result with respect to the node, as text; empty for none.
        inputs: Indices of its inputs in the list.
    """

    label: str
    kind: str
    value: str
    grad: str
    inputs: tuple[int, ...]


_COLORS = {"variable": "#cfe3f5", "constant": "#eeeeee", "operation": "#fdf1dc", "result": "#d8f0d8"}


def draw_graph(nodes: Sequence[GraphNode], title: str = "") -> Figure:
    """Draw inputs on the left and the result on the right; values are black, gradients red.

    Args:
        nodes: Nodes, each after its inputs.
        title: Title of the picture.

    Raises:
        ValueError: ``nodes`` is empty, or a node comes before its inputs.
    """
    if not nodes:
        raise ValueError("there is nothing to draw: nodes is empty")
    if any(given >= i for i, node in enumerate(nodes) for given in node.inputs):
        raise ValueError("each node must come after its inputs")
    x, y = _positions(nodes)
    width, height = 1.75 * (max(x) + 1) + 0.3, 0.95 * (max(y) - min(y) + 1) + 0.7
    figure = PlainFigure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1 - 0.45 / height))
    axes.set_axis_off()
    for i, node in enumerate(nodes):
        for given in node.inputs:
            # An arrow that passes a column bends around its nodes.
            bend = 0.0 if x[i] - x[given] < 1.5 else -0.25 if y[given] >= y[i] else 0.25
            arrow = {"arrowstyle": "-|>", "color": "0.55", "shrinkA": 27, "shrinkB": 27, "linewidth": 1.0}
            arrow["connectionstyle"] = f"arc3,rad={bend}"
            axes.annotate("", (x[i], y[i]), (x[given], y[given]), arrowprops=arrow)
    for i, node in enumerate(nodes):
        box = {"boxstyle": "round,pad=0.3", "facecolor": _COLORS[node.kind], "edgecolor": "0.4"}
        axes.text(x[i], y[i], node.label, ha="center", va="center", size=11, bbox=box, zorder=3)
        axes.text(x[i], y[i] + 0.27, node.value, ha="center", va="bottom", size=8, zorder=4)
        if node.grad:
            axes.text(x[i], y[i] - 0.27, node.grad, ha="center", va="top", size=8, color="#b22222", zorder=4)
    axes.set_xlim(-0.6, max(x) + 0.6)
    axes.set_ylim(min(y) - 0.65, max(y) + 0.65)
    figure.suptitle(title, size=11, y=1 - 0.12 / height, va="top")
    return figure


def _positions(nodes: Sequence[GraphNode]) -> tuple[list[float], list[float]]:
    """Columns by the longest path from an input, with inputs one column before their first use; rows by the inputs."""
    depth = [0] * len(nodes)
    for i, node in enumerate(nodes):
        depth[i] = 1 + max((depth[given] for given in node.inputs), default=-1)
    for i, node in enumerate(nodes):
        users = [depth[k] for k, other in enumerate(nodes) if i in other.inputs]
        if not node.inputs and users:
            depth[i] = min(users) - 1
    y = [0.0] * len(nodes)
    for column in range(max(depth) + 1):
        members = [i for i, level in enumerate(depth) if level == column]
        wanted = {i: fmean(y[given] for given in nodes[i].inputs) for i in members if nodes[i].inputs}
        members.sort(key=lambda i: -wanted.get(i, float("-inf")))
        center = fmean(wanted.values()) if wanted else 0.0
        for rank, i in enumerate(members):
            y[i] = center + (len(members) - 1) / 2 - rank
    return [float(level) for level in depth], y
