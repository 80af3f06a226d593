"""Backend "im2col": every window is a column of one matrix, multiplied by BLAS.

N batch, C in-channels, K out-channels, H W image, R S kernel, P Q output, G groups. The columns are R * S times as
large as the image, so a large batch is processed in parts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from lightning_cifar.ext.conv_geometry import Array, Geometry

BYTES_OF_COLUMNS = 4 * 2**20  # at a time; larger ones do not fit in the cache: measured on 128 x 32 x 32 x 32 images


def pieces(geometry: Geometry, itemsize: int) -> Iterator[slice]:
    """Yield slices of the batch whose columns fit into BYTES_OF_COLUMNS."""
    N, _, P, Q = geometry.y_shape
    _, _, R, S = geometry.w_shape
    images = max(1, BYTES_OF_COLUMNS // (geometry.x_shape[1] * R * S * P * Q * itemsize))
    return (slice(n, n + images) for n in range(0, N, images))


def columns_of(x: Array, geometry: Geometry) -> Array:
    """Return the window of each output position: (N, G, C / G * R * S, P * Q)."""
    (top, left), (sh, sw), (dh, dw) = geometry.padding, geometry.stride, geometry.dilation
    padded = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left))) if top or left else x
    seen_NCPQRS = sliding_window_view(padded, geometry.extent, axis=(2, 3))[:, :, ::sh, ::sw, ::dh, ::dw]
    N, C, P, Q, R, S = seen_NCPQRS.shape
    G = geometry.groups
    columns: Array = seen_NCPQRS.transpose(0, 1, 4, 5, 2, 3).reshape(N, G, C // G * R * S, P * Q)
    return columns


def images_of(columns: Array, geometry: Geometry) -> Array:
    """Add up columns (N, G, C / G * R * S, P * Q) to images (N, C, H, W), the transpose of ``columns_of``."""
    _, C, H, W = geometry.x_shape
    _, _, P, Q = geometry.y_shape
    _, _, R, S = geometry.w_shape
    (top, left), (sh, sw), (dh, dw) = geometry.padding, geometry.stride, geometry.dilation
    N = columns.shape[0]
    padded = np.zeros((N, C, H + 2 * top, W + 2 * left), columns.dtype)
    seen_NCRSPQ = columns.reshape(N, C, R, S, P, Q)
    for r in range(R):
        for s in range(S):
            h, v = r * dh, s * dw
            padded[:, :, h : h + (P - 1) * sh + 1 : sh, v : v + (Q - 1) * sw + 1 : sw] += seen_NCRSPQ[:, :, r, s]
    return padded[:, :, top : top + H, left : left + W]


def forward(x: Array, w: Array, b: Array | None, geometry: Geometry) -> Array:
    """Compute y (N, K, P, Q)."""
    N, K, P, Q = geometry.y_shape
    G = geometry.groups
    y = np.empty((N, G, K // G, P * Q), x.dtype)
    w_GKF = w.reshape(G, K // G, -1)
    for some in pieces(geometry, x.itemsize):
        np.matmul(w_GKF, columns_of(x[some], geometry), out=y[some])
    if b is not None:
        y += b.reshape(G, K // G, 1)
    return y.reshape(N, K, P, Q)


def grad_input(grad_y: Array, w: Array, geometry: Geometry) -> Array:
    """Compute grad_x (N, C, H, W)."""
    N, K, P, Q = geometry.y_shape
    G = geometry.groups
    grad_x = np.empty(geometry.x_shape, grad_y.dtype)
    w_GFK = w.reshape(G, K // G, -1).transpose(0, 2, 1)
    grad_NGKO = grad_y.reshape(N, G, K // G, P * Q)
    for some in pieces(geometry, grad_y.itemsize):
        grad_x[some] = images_of(w_GFK @ grad_NGKO[some], geometry)
    return grad_x


def grad_weight(grad_y: Array, x: Array, geometry: Geometry) -> tuple[Array, Array]:
    """Compute grad_w (K, C / groups, R, S) and grad_b (K,)."""
    N, K, P, Q = geometry.y_shape
    G = geometry.groups
    grad_w = np.zeros((G, K // G, geometry.w_shape[1] * geometry.w_shape[2] * geometry.w_shape[3]), grad_y.dtype)
    grad_NGKO = grad_y.reshape(N, G, K // G, P * Q)
    for some in pieces(geometry, grad_y.itemsize):
        grad_w += (grad_NGKO[some] @ columns_of(x[some], geometry).transpose(0, 1, 3, 2)).sum(0)
    return grad_w.reshape(geometry.w_shape), grad_y.sum((0, 2, 3))
