"""Hand-written layers on NumPy arrays, apart from the convolution: pairs of forward and backward functions.

Axes: N batch, C channels, H W image, P Q output, D features in, M features out.

A forward function returns the output and a cache. The backward function takes the gradient of the loss with
respect to the output and the cache, and returns the gradients with respect to the inputs. Losses are means over the
batch. Arrays are float32 or float64.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.floating]


class FCCache(NamedTuple):
    """Cache of ``fc_forward``."""

    x: Array
    w: Array  # (D, M)


def fc_forward(x: Array, w_DM: Array, b_M: Array) -> tuple[Array, FCCache]:
    """Compute a fully connected layer: y = x w + b.

    Args:
        x: (N, D), or (N, ...) with D values in each sample.
        w_DM: Weights.
        b_M: Biases.

    Returns:
        y (N, M), and the cache for ``fc_backward``.

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> import numpy as np
        >>> y, cache = fc_forward(np.ones((1, 2)), np.array([[1.0], [2.0]]), np.array([0.5]))
        >>> y, fc_backward(np.ones((1, 1)), cache)[0]
        (array([[3.5]]), array([[1., 2.]]))
    """
    _check(x, w_DM, b_M)
    if w_DM.ndim != 2 or x.ndim < 1 or b_M.shape != w_DM.shape[1:]:
        raise ValueError(f"fc needs x (N, D), w (D, M), b (M,), not {x.shape}, {w_DM.shape}, {b_M.shape}")
    size = int(np.prod(x.shape[1:]))
    if size != len(w_DM):
        raise ValueError(f"x {x.shape} has {size} values per sample, but w {w_DM.shape} needs {len(w_DM)}")
    return x.reshape(len(x), size) @ w_DM + b_M, FCCache(x, w_DM)


def fc_backward(grad_y_NM: Array, cache: FCCache) -> tuple[Array, Array, Array]:
    """Return the gradients with respect to x (in the shape of x), w (D, M) and b (M,)."""
    x, w_DM = cache
    _check_grad(grad_y_NM, (len(x), w_DM.shape[1]))
    grad_x = (grad_y_NM @ w_DM.T).reshape(x.shape)
    return grad_x, x.reshape(len(x), len(w_DM)).T @ grad_y_NM, grad_y_NM.sum(axis=0)


def relu_forward(x: Array) -> tuple[Array, Array]:
    """Return max(x, 0) and the cache; NaN is preserved."""
    _check(x)
    return np.maximum(x, 0), x


def relu_backward(grad_y: Array, cache: Array) -> Array:
    """Return the gradient with respect to x, which is 0 where x is at most 0."""
    _check_grad(grad_y, cache.shape)
    return grad_y * (cache > 0)


class PoolCache(NamedTuple):
    """Cache of a pooling."""

    shape: tuple[int, ...]
    size: int
    stride: int
    chosen: NDArray[np.intp] | None  # (N, C, P, Q): index of the maximum in its window


def max_pool_forward(x_NCHW: Array, size: int, stride: int | None = None) -> tuple[Array, PoolCache]:
    """Compute the maximum of each ``size`` x ``size`` window, without padding.

    Args:
        x_NCHW: Images.
        size: Size of a window in pixels.
        stride: Stride in pixels; None is ``size``.

    Returns:
        (N, C, P, Q) with P = (H - size) // stride + 1, and the cache for ``max_pool_backward``.

    Raises:
        ValueError: If the window is larger than the image, or a number is below 1.
    """
    windows_NCPQK, stride = _windows(x_NCHW, size, stride)
    chosen = windows_NCPQK.argmax(axis=-1)
    y_NCPQ = np.take_along_axis(windows_NCPQK, chosen[..., None], axis=-1)[..., 0]
    return y_NCPQ, PoolCache(x_NCHW.shape, size, stride, chosen)


def average_pool_forward(x_NCHW: Array, size: int, stride: int | None = None) -> tuple[Array, PoolCache]:
    """Compute the mean of each window; see :func:`max_pool_forward`."""
    windows_NCPQK, stride = _windows(x_NCHW, size, stride)
    y_NCPQ: Array = windows_NCPQK.mean(axis=-1, dtype=x_NCHW.dtype)
    return y_NCPQ, PoolCache(x_NCHW.shape, size, stride, None)


def max_pool_backward(grad_y_NCPQ: Array, cache: PoolCache) -> Array:
    """Return the gradient with respect to x: that of each output is added to the first maximum of its window."""
    assert cache.chosen is not None
    _check_grad(grad_y_NCPQ, _pooled(cache.shape, cache.size, cache.stride))
    grad_x_NCHW = np.zeros(cache.shape, grad_y_NCPQ.dtype)
    n, c, p, q = np.ogrid[tuple(slice(length) for length in grad_y_NCPQ.shape)]
    down, right = np.divmod(cache.chosen, cache.size)
    np.add.at(grad_x_NCHW, (n, c, p * cache.stride + down, q * cache.stride + right), grad_y_NCPQ)
    return grad_x_NCHW


def average_pool_backward(grad_y_NCPQ: Array, cache: PoolCache) -> Array:
    """Return the gradient with respect to x: that of each output is distributed evenly over its window."""
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
    """Compute the mean cross-entropy of softmax(x) and the labels y.

    The maximum is subtracted first, so that large scores do not overflow.

    Returns:
        The loss, and its gradient with respect to x (N, C). The loss of an empty batch is 0.

    Raises:
        TypeError: If labels are not integers.
        ValueError: If the shapes do not fit, or a label is not a class.
    """
    _check(x_NC)
    if x_NC.ndim != 2 or y_N.shape != x_NC.shape[:1]:
        raise ValueError(f"softmax_loss needs x (N, C) and y (N,), not {x_NC.shape} and {y_N.shape}")
    if not np.issubdtype(y_N.dtype, np.integer):
        raise TypeError(f"y must contain integer labels, not {y_N.dtype}")
    count, num_classes = x_NC.shape
    if count == 0:
        return 0.0, np.zeros_like(x_NC)
    if y_N.min() < 0 or y_N.max() >= num_classes:
        raise ValueError(f"labels ({y_N.min()} to {y_N.max()}) must be 0 to {num_classes - 1}")
    shifted = x_NC - x_NC.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(axis=1))
    samples = np.arange(count)
    losses = log_sums - shifted[samples, y_N]
    grad_NC = np.exp(shifted - log_sums[:, None])
    grad_NC[samples, y_N] -= 1
    return float(losses.mean()), grad_NC / x_NC.dtype.type(count)


def l2_loss(x: Array, target: Array) -> tuple[float, Array]:
    """Return half the squared distance, averaged over the batch, and its gradient with respect to x.

    Raises:
        ValueError: If the shapes differ.
    """
    _check(x, target)
    if x.shape != target.shape:
        raise ValueError(f"x {x.shape} and target {target.shape} must have the same shape")
    if not len(x):
        return 0.0, np.zeros_like(x)
    difference = x - target
    return float((difference**2).sum() / (2 * len(x))), difference / x.dtype.type(len(x))


def l2_regularization(w: Array, reg: float) -> tuple[float, Array]:
    """Return (reg / 2) sum w^2 and its gradient reg w.

    Raises:
        ValueError: If ``reg`` is negative.
    """
    _check(w)
    if not reg >= 0:
        raise ValueError(f"reg (={reg}) must be at least 0")
    return float(reg / 2 * (w**2).sum()), w.dtype.type(reg) * w


def _windows(x_NCHW: Array, size: int, stride: int | None) -> tuple[Array, int]:
    """Return the windows as an array (N, C, P, Q, size * size), and the stride."""
    _check(x_NCHW)
    stride = size if stride is None else stride
    _pooled(x_NCHW.shape, size, stride)
    view = np.lib.stride_tricks.sliding_window_view(x_NCHW, (size, size), axis=(2, 3))
    view = view[:, :, ::stride, ::stride]
    return view.reshape(*view.shape[:4], size * size), stride


def _pooled(shape: tuple[int, ...], size: int, stride: int) -> tuple[int, ...]:
    if len(shape) != 4:
        raise ValueError(f"pooling needs images (N, C, H, W), not {shape}")
    if size < 1 or stride < 1:
        raise ValueError(f"size (={size}) and stride (={stride}) must be at least 1")
    if size > min(shape[2:]):
        raise ValueError(f"size (={size}) must be at most the size of the images {shape[2]} x {shape[3]}")
    return (*shape[:2], *((side - size) // stride + 1 for side in shape[2:]))


def _check(*arrays: Array) -> None:
    for array in arrays:
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(f"arrays must be float32 or float64, not {array.dtype}")


def _check_grad(grad: Array, shape: tuple[int, ...]) -> tuple[int, ...]:
    if grad.shape != shape:
        raise ValueError(f"the gradient {grad.shape} must have the output's shape {shape}")
    return shape
