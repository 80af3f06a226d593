"""Backend "loops": the definition of convolution as seven loops, for reading and for checks on tiny arrays.

N batch, C in-channels, K out-channels, H W image, R S kernel, P Q output.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lightning_cifar.ext.conv_geometry import Array, Geometry


def products(geometry: Geometry) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Yield the indices of every product: into y (n, k, p, q), x (n, c, h, v) and w (k, c of the group, r, s)."""
    N, K, P, Q = geometry.y_shape
    _, _, H, W = geometry.x_shape
    _, C, R, S = geometry.w_shape
    for n in range(N):
        for k in range(K):
            first_channel = k // (K // geometry.groups) * C
            for p in range(P):
                for q in range(Q):
                    for c in range(C):
                        for r in range(R):
                            for s in range(S):
                                h = p * geometry.stride[0] - geometry.padding[0] + r * geometry.dilation[0]
                                v = q * geometry.stride[1] - geometry.padding[1] + s * geometry.dilation[1]
                                if 0 <= h < H and 0 <= v < W:  # otherwise in the zero padding
                                    yield (n, k, p, q), (n, first_channel + c, h, v), (k, c, r, s)


def forward(x: Array, w: Array, b: Array | None, geometry: Geometry) -> Array:
    """Compute y (N, K, P, Q)."""
    y = np.zeros(geometry.y_shape, x.dtype)
    if b is not None:
        y += b[:, None, None]
    for i, j, m in products(geometry):
        y[i] += x[j] * w[m]
    return y


def grad_input(grad_y: Array, w: Array, geometry: Geometry) -> Array:
    """Compute grad_x (N, C, H, W): each product adds the gradient of its y times its w to its x."""
    grad_x = np.zeros(geometry.x_shape, grad_y.dtype)
    for i, j, m in products(geometry):
        grad_x[j] += grad_y[i] * w[m]
    return grad_x


def grad_weight(grad_y: Array, x: Array, geometry: Geometry) -> tuple[Array, Array]:
    """Compute grad_w (K, C / groups, R, S) and grad_b (K,)."""
    grad_w = np.zeros(geometry.w_shape, grad_y.dtype)
    for i, j, m in products(geometry):
        grad_w[m] += grad_y[i] * x[j]
    return grad_w, grad_y.sum((0, 2, 3))
