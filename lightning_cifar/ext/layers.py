"""The other layers by hand, on NumPy arrays: forward keeps what backward needs, backward follows the chain rule.

Axes: N batch, C channels, H W image, P Q output, D features in, M features out.

A backward function takes the gradient of the loss for the layer's output and gives those for its inputs. Losses are
means over the batch. All work in the type of their input, float32 or float64.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.floating]


class FCCache(NamedTuple):
    """What ``fc_backward`` needs."""

    x: Array
    w: Array  # (D, M)


def fc_forward(x: Array, w_DM: Array, b_M: Array) -> tuple[Array, FCCache]:
    """Fully connected: y = x w + b.

    Args:
        x: (N, D), or (N, ...) with D numbers behind the first axis.
        w_DM: weights.
        b_M: biases.

    Returns:
        y (N, M), and what the backward function needs.

    Raises:
        ValueError: The shapes do not fit.
    """
    _check(x, w_DM, b_M)
    if w_DM.ndim != 2 or x.ndim < 1 or b_M.shape != w_DM.shape[1:]:
        raise ValueError(f"fc takes x (N, D), w (D, M), b (M,); these are {x.shape}, {w_DM.shape}, {b_M.shape}")
    size = int(np.prod(x.shape[1:]))
    if size != len(w_DM):
        raise ValueError(f"x {x.shape} has {size} numbers a sample, w {w_DM.shape} takes {len(w_DM)}")
    return x.reshape(len(x), size) @ w_DM + b_M, FCCache(x, w_DM)


def fc_backward(grad_y_NM: Array, cache: FCCache) -> tuple[Array, Array, Array]:
    """Gradients for x (in its own shape), w (D, M) and b (M,)."""
    x, w_DM = cache
    _check_grad(grad_y_NM, (len(x), w_DM.shape[1]))
    grad_x = (grad_y_NM @ w_DM.T).reshape(x.shape)
    return grad_x, x.reshape(len(x), len(w_DM)).T @ grad_y_NM, grad_y_NM.sum(axis=0)


def relu_forward(x: Array) -> tuple[Array, Array]:
    """max(x, 0); a NaN stays one."""
    _check(x)
    return np.maximum(x, 0), x


def relu_backward(grad_y: Array, cache: Array) -> Array:
    """The gradient passes where x was above 0; at 0 it is 0."""
    _check_grad(grad_y, cache.shape)
    return grad_y * (cache > 0)


class PoolCache(NamedTuple):
    """What a pooling's backward function needs."""

    shape: tuple[int, ...]
    size: int
    stride: int
    chosen: NDArray[np.intp] | None  # (N, C, P, Q): which pixel of the window


def max_pool_forward(x_NCHW: Array, size: int, stride: int | None = None) -> tuple[Array, PoolCache]:
    """The highest value of each ``size`` x ``size`` window, without padding; of equal ones, the first.

    Args:
        x_NCHW: images.
        size: of a window, in pixels.
        stride: from window to window, in pixels; None is ``size``.

    Returns:
        (N, C, P, Q) with P = (H - size) // stride + 1, and what the backward function needs.

    Raises:
        ValueError: A window does not fit into the image, or a number is below 1.
    """
    windows_NCPQK, stride = _windows(x_NCHW, size, stride)
    chosen = windows_NCPQK.argmax(axis=-1)
    y_NCPQ = np.take_along_axis(windows_NCPQK, chosen[..., None], axis=-1)[..., 0]
    return y_NCPQ, PoolCache(x_NCHW.shape, size, stride, chosen)


def average_pool_forward(x_NCHW: Array, size: int, stride: int | None = None) -> tuple[Array, PoolCache]:
    """The mean of each window; otherwise as :func:`max_pool_forward`."""
    windows_NCPQK, stride = _windows(x_NCHW, size, stride)
    y_NCPQ: Array = windows_NCPQK.mean(axis=-1, dtype=x_NCHW.dtype)
    return y_NCPQ, PoolCache(x_NCHW.shape, size, stride, None)


def max_pool_backward(grad_y_NCPQ: Array, cache: PoolCache) -> Array:
    """All of a window's gradient goes to the pixel that was the highest; overlapping windows add up."""
    assert cache.chosen is not None
    grad_x_NCHW, n, c, rows, columns = _scatter_places(grad_y_NCPQ, cache)
    down, right = np.divmod(cache.chosen, cache.size)
    np.add.at(grad_x_NCHW, (n, c, rows + down, columns + right), grad_y_NCPQ)
    return grad_x_NCHW


def average_pool_backward(grad_y_NCPQ: Array, cache: PoolCache) -> Array:
    """Each pixel of a window gets an equal share; overlapping windows add up."""
    grad_x_NCHW = np.zeros(cache.shape, grad_y_NCPQ.dtype)
    _, _, num_rows, num_columns = _check_grad(grad_y_NCPQ, _pooled(cache.shape, cache.size, cache.stride))
    share = grad_y_NCPQ / cache.size**2
    for down in range(cache.size):
        for right in range(cache.size):
            rows = slice(down, down + num_rows * cache.stride, cache.stride)
            columns = slice(right, right + num_columns * cache.stride, cache.stride)
            grad_x_NCHW[:, :, rows, columns] += share
    return grad_x_NCHW


def softmax_loss(x_NC: Array, y_N: NDArray[np.integer]) -> tuple[float, Array]:
    """Mean cross-entropy of softmax(x) with the labels y.

    The maximum is subtracted first, so that scores of a thousand are as good as any: their loss is exactly 0 where the
    right one leads.

    Returns:
        The loss, and its gradient for x (N, C). An empty batch has loss 0.

    Raises:
        ValueError: The shapes do not fit, or a label is not a class.
    """
    _check(x_NC)
    if x_NC.ndim != 2 or y_N.shape != x_NC.shape[:1]:
        raise ValueError(f"softmax_loss takes x (N, C) and y (N,); these are {x_NC.shape} and {y_N.shape}")
    if not np.issubdtype(y_N.dtype, np.integer):
        raise TypeError(f"y must hold integer labels, not {y_N.dtype}")
    count, num_classes = x_NC.shape
    if count == 0:
        return 0.0, np.zeros_like(x_NC)
    if y_N.min() < 0 or y_N.max() >= num_classes:
        raise ValueError(f"labels must be 0 to {num_classes - 1}; there are {y_N.min()} to {y_N.max()}")
    shifted = x_NC - x_NC.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(axis=1))
    samples = np.arange(count)
    losses = log_sums - shifted[samples, y_N]
    grad_NC = np.exp(shifted - log_sums[:, None])
    grad_NC[samples, y_N] -= 1
    return float(losses.mean()), grad_NC / x_NC.dtype.type(count)


def l2_loss(x: Array, target: Array) -> tuple[float, Array]:
    """Mean over the batch of half the squared distance, and its gradient for x.

    Raises:
        ValueError: The shapes differ.
    """
    _check(x, target)
    if x.shape != target.shape:
        raise ValueError(f"x {x.shape} and target {target.shape} must have one shape")
    if not len(x):
        return 0.0, np.zeros_like(x)
    difference = x - target
    return float((difference**2).sum() / (2 * len(x))), difference / x.dtype.type(len(x))


def l2_regularization(w: Array, reg: float) -> tuple[float, Array]:
    """(reg / 2) sum w^2, and its gradient reg w.

    Raises:
        ValueError: ``reg`` is negative.
    """
    _check(w)
    if not reg >= 0:
        raise ValueError(f"reg (={reg}) must be 0 or more")
    return float(reg / 2 * (w**2).sum()), w.dtype.type(reg) * w


def _windows(x_NCHW: Array, size: int, stride: int | None) -> tuple[Array, int]:
    """(N, C, P, Q, size * size), a copy."""
    _check(x_NCHW)
    stride = size if stride is None else stride
    _pooled(x_NCHW.shape, size, stride)
    view = np.lib.stride_tricks.sliding_window_view(x_NCHW, (size, size), axis=(2, 3))
    view = view[:, :, ::stride, ::stride]
    return view.reshape(*view.shape[:4], size * size), stride


def _pooled(shape: tuple[int, ...], size: int, stride: int) -> tuple[int, ...]:
    if len(shape) != 4:
        raise ValueError(f"pooling takes images (N, C, H, W); these are {shape}")
    if size < 1 or stride < 1:
        raise ValueError(f"size (={size}) and stride (={stride}) must be at least 1")
    if size > min(shape[2:]):
        raise ValueError(f"a window of {size} pixels does not fit into images of {shape[2]} x {shape[3]}")
    return (*shape[:2], *((side - size) // stride + 1 for side in shape[2:]))


def _scatter_places(
    grad_y_NCPQ: Array, cache: PoolCache
) -> tuple[Array, NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Zeros for grad_x, and the indices of each window's first pixel, ready to broadcast."""
    _check_grad(grad_y_NCPQ, _pooled(cache.shape, cache.size, cache.stride))
    n, c, rows, columns = np.ogrid[tuple(slice(length) for length in grad_y_NCPQ.shape)]
    return np.zeros(cache.shape, grad_y_NCPQ.dtype), n, c, rows * cache.stride, columns * cache.stride


def _check(*arrays: Array) -> None:
    for array in arrays:
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(f"arrays must be float32 or float64, not {array.dtype}")


def _check_grad(grad: Array, shape: tuple[int, ...]) -> tuple[int, ...]:
    if grad.shape != shape:
        raise ValueError(f"the gradient {grad.shape} must have the output's shape {shape}")
    return shape
