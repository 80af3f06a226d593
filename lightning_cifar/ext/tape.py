"""Reverse-mode automatic differentiation of arithmetic on arrays.

A node has a value, the nodes from which it was computed, and for each of them a function that propagates a gradient.
``backward`` visits the nodes in reverse order, so that the gradient of a node is complete before it is propagated to
its inputs (Linnainmaa 1970; Griewank & Walther 2008, "Evaluating Derivatives").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Value: TypeAlias = NDArray[np.float64]
Pull: TypeAlias = Callable[[Value], Value]


class Node:
    """A value and the operation that computed it.

    Args:
        value: An array or a number, converted to float64.
        name: Name of a variable in the drawing of the graph.

    Example:
        >>> x = Node(3.0)
        >>> y = x * x + 1.0
        >>> y.backward()
        >>> float(x.grad)
        6.0
    """

    __array_ufunc__ = None  # so that array + node calls Node.__radd__

    def __init__(self, value: ArrayLike, name: str = "") -> None:
        self.value: Value = np.asarray(value, dtype=np.float64)
        self.name = name
        self.operation = ""
        self.inputs: tuple[Node, ...] = ()
        self.pulls: tuple[Pull, ...] = ()
        self.grad: Value = np.zeros_like(self.value)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def __repr__(self) -> str:
        return f"Node({self.name or self.operation or 'constant'}, {self.value.tolist()})"

    def __add__(self, other: Operand) -> Node:
        return _made("+", np.add(self.value, node(other).value), (self, _same), (node(other), _same))

    def __mul__(self, other: Operand) -> Node:
        right = node(other)
        value = self.value * right.value
        return _made("*", value, (self, lambda g: g * right.value), (right, lambda g: g * self.value))

    def __neg__(self) -> Node:
        return _made("-", -self.value, (self, lambda g: -g))

    def __sub__(self, other: Operand) -> Node:
        return _made("-", self.value - node(other).value, (self, _same), (node(other), lambda g: -g))

    def __truediv__(self, other: Operand) -> Node:
        return self * node(other) ** -1.0

    def __pow__(self, exponent: float) -> Node:
        """Return the power with a number as exponent."""
        value = self.value**exponent
        return _made(f"^{exponent:g}", value, (self, lambda g: g * exponent * self.value ** (exponent - 1)))

    def __matmul__(self, other: Operand) -> Node:
        """Return the product of matrices (A, B) and (B, C)."""
        right = node(other)
        if self.value.ndim != 2 or right.value.ndim != 2 or self.shape[1] != right.shape[0]:
            raise ValueError(f"@ needs shapes (A, B) and (B, C), not {self.shape} and {right.shape}")
        value = self.value @ right.value
        return _made("@", value, (self, lambda g: g @ right.value.T), (right, lambda g: self.value.T @ g))

    def __radd__(self, other: Operand) -> Node:
        return node(other) + self

    def __rmul__(self, other: Operand) -> Node:
        return node(other) * self

    def __rsub__(self, other: Operand) -> Node:
        return node(other) - self

    def __rtruediv__(self, other: Operand) -> Node:
        return node(other) / self

    def backward(self) -> None:
        """Set ``grad`` of all nodes of the graph to the gradient of the sum of this node.

        Gradients of an earlier call are overwritten.
        """
        order = in_order(self)
        for each in order:
            each.grad = np.zeros_like(each.value)
        self.grad = np.ones_like(self.value)
        for each in reversed(order):
            for given, pull in zip(each.inputs, each.pulls, strict=True):
                given.grad = given.grad + _unbroadcast(pull(each.grad), given.shape)


Operand: TypeAlias = Node | float | Value


def node(value: Operand) -> Node:
    """Convert a value to a node; a node is returned unchanged."""
    return value if isinstance(value, Node) else Node(value)


def exp(x: Node) -> Node:
    """Return the exponential of each element."""
    value = np.exp(x.value)
    return _made("exp", value, (x, lambda g: g * value))


def log(x: Node) -> Node:
    """Return the natural logarithm of each element."""
    return _made("log", np.log(x.value), (x, lambda g: g / x.value))


def relu(x: Node) -> Node:
    """Return max(x, 0); the derivative at 0 is 0."""
    return _made("relu", np.maximum(x.value, 0), (x, lambda g: g * (x.value > 0)))


def total(x: Node, axis: int | tuple[int, ...] | None = None) -> Node:
    """Return the sum over the axes, or over all of them."""
    kept = x.value.sum(axis=axis, keepdims=True).shape
    return _made("sum", x.value.sum(axis=axis), (x, lambda g: np.broadcast_to(g.reshape(kept), x.shape)))


def broadcast(x: Node, shape: tuple[int, ...]) -> Node:
    """Broadcast to a larger shape by NumPy's rules."""
    return _made("broadcast", np.broadcast_to(x.value, shape), (x, _same))


def in_order(last: Node) -> list[Node]:
    """Return all nodes of a graph in topological order, inputs first. The depth of the graph is not limited."""
    order: list[Node] = []
    seen: set[int] = set()
    stack = [(last, False)]
    while stack:
        each, is_done = stack.pop()
        if is_done:
            order.append(each)
        elif id(each) not in seen:
            seen.add(id(each))
            stack.append((each, True))
            stack += [(given, False) for given in reversed(each.inputs) if id(given) not in seen]
    return order


def _made(operation: str, value: Value, *inputs: tuple[Node, Pull]) -> Node:
    made = Node(value)
    made.operation = operation
    made.inputs = tuple(given for given, _ in inputs)
    made.pulls = tuple(pull for _, pull in inputs)
    return made


def _same(grad: Value) -> Value:
    return grad


def _unbroadcast(grad: Value, shape: Sequence[int]) -> Value:
    """Sum over the axes along which a value was broadcast."""
    extra = tuple(range(grad.ndim - len(shape)))
    grad = grad.sum(axis=extra)
    repeated = tuple(axis for axis, length in enumerate(shape) if length == 1 and grad.shape[axis] != 1)
    summed: Value = grad.sum(axis=repeated, keepdims=True) if repeated else grad
    return summed
