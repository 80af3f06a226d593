"""Three small functions as graphs for the tape, and with derivatives derived by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from lightning_cifar.ext.tape import Node, exp, log


class Function(NamedTuple):
    """A function of numbers, as a graph and by hand.

    Attributes:
        inputs: Names of the inputs.
        graph: Function from nodes to a node.
        by_hand: Function from numbers to the value and the derivatives with respect to all inputs.
        tolerance: Tolerance of a gradient check with central differences, h = 1e-4.
    """

    inputs: tuple[str, ...]
    graph: Callable[..., Node]
    by_hand: Callable[..., tuple[float, tuple[float, ...]]]
    tolerance: float


def f1_graph(x1: Node, w1: Node, x2: Node, w2: Node, b: Node, y: Node) -> Node:
    """Return (x1 w1 + x2 w2 + b - y)^2."""
    return (x1 * w1 + x2 * w2 + b - y) ** 2.0


def f1(x1: float, w1: float, x2: float, w2: float, b: float, y: float) -> tuple[float, tuple[float, ...]]:
    """Return (x1 w1 + x2 w2 + b - y)^2 and its six derivatives."""
    error = x1 * w1 + x2 * w2 + b - y
    double = 2 * error
    return error**2, (double * w1, double * x1, double * w2, double * x2, double, -double)


def f2_graph(x: Node) -> Node:
    """Return (e^2x - 1) / (e^2x + 1)."""
    power = exp(2.0 * x)
    return (power - 1.0) / (power + 1.0)


def f2(x: float) -> tuple[float, tuple[float, ...]]:
    """Return (e^2x - 1) / (e^2x + 1) = tanh x and its derivative 1 - tanh^2 x."""
    value = math.tanh(x)  # does not overflow
    return value, (1 - value**2,)


def f3_graph(s1: Node, s2: Node, y: int) -> Node:
    """Return -ln(e^s_y / (e^s1 + e^s2)) for y = 1 or 2."""
    _check_label(y)
    e1, e2 = exp(s1), exp(s2)
    return -log((e1 if y == 1 else e2) / (e1 + e2))


def f3(s1: float, s2: float, y: int) -> tuple[float, tuple[float, ...]]:
    """Return -ln(e^s_y / (e^s1 + e^s2)) for y = 1 or 2, and its derivatives with respect to s1 and s2."""
    _check_label(y)
    highest = max(s1, s2)
    e1, e2 = math.exp(s1 - highest), math.exp(s2 - highest)
    p1, p2 = e1 / (e1 + e2), e2 / (e1 + e2)
    value = math.log(e1 + e2) + highest - (s1 if y == 1 else s2)
    return value, (p1 - (y == 1), p2 - (y == 2))


def _check_label(y: int) -> None:
    if y not in (1, 2):
        raise ValueError(f"y (={y}) must be 1 or 2")


def _f3_with(y: int) -> Function:
    return Function(("s1", "s2"), lambda s1, s2: f3_graph(s1, s2, y), lambda s1, s2: f3(s1, s2, y), 1e-8)


FUNCTIONS: dict[str, dict[str, Function]] = {
    "f1": {"f1": Function(("x1", "w1", "x2", "w2", "b", "y"), f1_graph, f1, 1e-10)},
    "f2": {"f2": Function(("x",), f2_graph, f2, 1e-8)},
    "f3": {"f3 (y=1)": _f3_with(1), "f3 (y=2)": _f3_with(2)},
}
"""Cases of each function, by name."""
