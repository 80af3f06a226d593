"""Numeric gradients by central differences, for checking analytic ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lightning_cifar.ext.layers import Array


def numeric_gradient(f: Callable[[Array], float], x: Array, h: float = 1e-6) -> Array:
    """Return the gradient of a scalar function: (f(x + h) - f(x - h)) / 2h for each element of x.

    The truncation error is of order h^2, the rounding error of order eps / h. The default is for float64.

    Args:
        f: Function from an array of the shape of x to a number.
        x: Array of any shape, float64.
        h: Step.

    Raises:
        TypeError: If x is not float64; in float32, rounding errors are too large.
        ValueError: If h is not positive.

    Example:
        >>> import numpy as np
        >>> from lightning_cifar import numeric_gradient
        >>> numeric_gradient(lambda x: float((x**2).sum()), np.array([1.0, 3.0])).round(6)
        array([2., 6.])
    """
    return numeric_backward(lambda x: np.asarray(f(x)), x, np.ones(()), h)


def numeric_backward(f: Callable[[Array], Array], x: Array, grad_y: Array, h: float = 1e-6) -> Array:
    """Return the gradient of sum(f(x) grad_y) with respect to x, which a layer's backward function should return.

    Raises:
        TypeError: If x is not float64.
        ValueError: If h is not positive, or grad_y does not have the shape of the output.
    """
    if x.dtype != np.float64:
        raise TypeError(f"numeric gradients need float64, not {x.dtype}: x.astype(np.float64)")
    if not h > 0:
        raise ValueError(f"h (={h}) must be positive, such as 1e-6")
    shape = f(x).shape
    if grad_y.shape != shape:
        raise ValueError(f"grad_y {grad_y.shape} must have the output's shape {shape}")
    x = np.array(x)  # a copy, because elements are changed
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        value = x[index]
        x[index] = value + h
        above = f(x).copy()
        x[index] = value - h
        below = f(x).copy()
        x[index] = value
        # The difference is computed before the sum, to avoid cancellation.
        gradient[index] = ((above - below) * grad_y).sum() / (2 * h)
    return gradient
