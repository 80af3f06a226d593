"""Gradients by central differences: slow, and hard to get wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lightning_cifar.ext.layers import Array


def numeric_gradient(f: Callable[[Array], float], x: Array, h: float = 1e-6) -> Array:
    """Gradient of a number-valued function: (f(x + h) - f(x - h)) / 2h for each element of x.

    The error is of order h^2 from the method and of order eps / h from rounding. The default suits float64.

    Args:
        f: takes an array of x's shape, gives a number.
        x: any shape, float64; it is changed in between and left as it was.
        h: the step.

    Raises:
        TypeError: x is not float64, in which alone such a small step can be told from rounding.
        ValueError: h is not positive.
    """
    _check(x, h)
    x = np.array(x)  # a copy: the caller's array stays as it is
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        value = x[index]
        x[index] = value + h
        above = f(x)
        x[index] = value - h
        below = f(x)
        x[index] = value
        gradient[index] = (above - below) / (2 * h)
    return gradient


def numeric_backward(f: Callable[[Array], Array], x: Array, grad_y: Array, h: float = 1e-6) -> Array:
    """What a layer's backward function should give: the gradient of sum(f(x) grad_y) for x.

    Raises:
        TypeError, ValueError: As :func:`numeric_gradient`, or the gradient has not the output's shape.
    """
    _check(x, h)
    shape = f(x).shape
    if grad_y.shape != shape:
        raise ValueError(f"grad_y {grad_y.shape} must have the output's shape {shape}")
    # The difference is taken before the sum: what all outputs have in common does not round away the rest.
    x = np.array(x)
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        value = x[index]
        x[index] = value + h
        above = f(x).copy()
        x[index] = value - h
        below = f(x).copy()
        x[index] = value
        gradient[index] = ((above - below) * grad_y).sum() / (2 * h)
    return gradient


def _check(x: Array, h: float) -> None:
    if x.dtype != np.float64:
        raise TypeError(f"numeric gradients need float64, not {x.dtype}: x.astype(np.float64)")
    if not h > 0:
        raise ValueError(f"h (={h}) must be positive, such as 1e-6")
