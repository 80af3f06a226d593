"""Backend "cython_naive": the seven typed loops of _conv_naive.pyx.

N batch, C in-channels, K out-channels, H W image, R S kernel, P Q output.
"""

from __future__ import annotations

import numpy as np

from lightning_cifar.ext import _conv_naive
from lightning_cifar.ext.conv_geometry import Array, Geometry


def rows(array: Array) -> Array:
    """Return a contiguous, aligned array, which the compiled loops require."""
    return np.require(array, requirements=["C", "A"])


def forward(x: Array, w: Array, b: Array | None, geometry: Geometry) -> Array:
    """Compute y (N, K, P, Q)."""
    y = np.zeros(geometry.y_shape, x.dtype)
    if b is not None:
        y += b[:, None, None]
    _conv_naive.forward(rows(x), rows(w), y, geometry.stride, geometry.padding, geometry.dilation, geometry.groups)
    return y


def grad_input(grad_y: Array, w: Array, geometry: Geometry) -> Array:
    """Compute grad_x (N, C, H, W)."""
    grad_x = np.zeros(geometry.x_shape, grad_y.dtype)
    _conv_naive.grad_input(
        rows(grad_y), rows(w), grad_x, geometry.stride, geometry.padding, geometry.dilation, geometry.groups
    )
    return grad_x


def grad_weight(grad_y: Array, x: Array, geometry: Geometry) -> tuple[Array, Array]:
    """Compute grad_w (K, C / groups, R, S) and grad_b (K,)."""
    grad_w = np.zeros(geometry.w_shape, grad_y.dtype)
    _conv_naive.grad_weight(
        rows(grad_y), rows(x), grad_w, geometry.stride, geometry.padding, geometry.dilation, geometry.groups
    )
    return grad_w, grad_y.sum((0, 2, 3))
