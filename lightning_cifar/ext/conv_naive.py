"""Backend "naive": two loops over the output positions with a matrix product at each.

N batch, C in-channels, K out-channels, H W image, R S kernel, P Q output, G groups.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lightning_cifar.ext.conv_geometry import Array, Geometry


def pad(x: Array, geometry: Geometry) -> Array:
    """Return x with zero padding."""
    (top, left) = geometry.padding
    return np.pad(x, ((0, 0), (0, 0), (top, top), (left, left))) if top or left else x


def windows(geometry: Geometry) -> Iterator[tuple[int, int, slice, slice]]:
    """Yield each output position (p, q) with the rows and columns of its window in the padded image."""
    _, _, P, Q = geometry.y_shape
    rows, columns = geometry.extent
    for p in range(P):
        for q in range(Q):
            h, v = p * geometry.stride[0], q * geometry.stride[1]
            yield p, q, slice(h, h + rows, geometry.dilation[0]), slice(v, v + columns, geometry.dilation[1])


def forward(x: Array, w: Array, b: Array | None, geometry: Geometry) -> Array:
    """Compute y (N, K, P, Q)."""
    N, G, K = geometry.x_shape[0], geometry.groups, geometry.w_shape[0]
    padded = pad(x, geometry)
    y = np.empty(geometry.y_shape, x.dtype)
    w_GFK = w.reshape(G, K // G, -1).transpose(0, 2, 1)  # F: size of a window, C / G * R * S
    F = w_GFK.shape[1]
    for p, q, rows, columns in windows(geometry):
        seen_GNF = padded[:, :, rows, columns].reshape(N, G, F).transpose(1, 0, 2)
        y[:, :, p, q] = (seen_GNF @ w_GFK).transpose(1, 0, 2).reshape(N, K)
    if b is not None:
        y += b[:, None, None]
    return y


def grad_input(grad_y: Array, w: Array, geometry: Geometry) -> Array:
    """Compute grad_x (N, C, H, W)."""
    N, _, H, W = geometry.x_shape
    G, K, (top, left) = geometry.groups, geometry.w_shape[0], geometry.padding
    padded = np.zeros((N, geometry.x_shape[1], H + 2 * top, W + 2 * left), grad_y.dtype)
    w_GKF = w.reshape(G, K // G, -1)
    for p, q, rows, columns in windows(geometry):
        grad_GNK = grad_y[:, :, p, q].reshape(N, G, K // G).transpose(1, 0, 2)
        seen = padded[:, :, rows, columns]
        seen += (grad_GNK @ w_GKF).transpose(1, 0, 2).reshape(seen.shape)
    return padded[:, :, top : top + H, left : left + W]


def grad_weight(grad_y: Array, x: Array, geometry: Geometry) -> tuple[Array, Array]:
    """Compute grad_w (K, C / groups, R, S) and grad_b (K,)."""
    N, G = geometry.x_shape[0], geometry.groups
    K, C, R, S = geometry.w_shape
    F = C * R * S
    padded = pad(x, geometry)
    grad_w = np.zeros((G, K // G, F), grad_y.dtype)
    for p, q, rows, columns in windows(geometry):
        seen_GNF = padded[:, :, rows, columns].reshape(N, G, F).transpose(1, 0, 2)
        grad_w += grad_y[:, :, p, q].reshape(N, G, K // G).transpose(1, 2, 0) @ seen_GNF
    return grad_w.reshape(K, C, R, S), grad_y.sum((0, 2, 3))
