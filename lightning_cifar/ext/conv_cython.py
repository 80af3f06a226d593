"""Backend "cython": the register-blocked kernels of direct/*.c.

N batch, C in-channels, K out-channels, H W image, R S kernel, P Q output.
"""

from __future__ import annotations

import math
import os

import numpy as np

from lightning_cifar.ext import _conv_direct
from lightning_cifar.ext._conv_direct import instruction_set as instruction_set
from lightning_cifar.ext._conv_direct import use_instruction_set as use_instruction_set
from lightning_cifar.ext.conv_geometry import Array, Geometry


def cores() -> int:
    """Return the number of processor cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads() -> int:
    """Return LIGHTNING_CIFAR_EXT_THREADS, by default the number of cores.

    Raises:
        ValueError: If it is not a positive integer.
    """
    value = os.environ.get("LIGHTNING_CIFAR_EXT_THREADS", "")
    if value and not (value.isdecimal() and int(value) > 0):
        raise ValueError(f"LIGHTNING_CIFAR_EXT_THREADS (={value!r}) must be a positive integer")
    return int(value) if value else cores()


num_threads = default_threads()
use_instruction_set(os.environ.get("LIGHTNING_CIFAR_EXT_ISA", ""))


def settings(geometry: Geometry) -> tuple[int, ...]:
    return (*geometry.stride, *geometry.padding, *geometry.dilation, geometry.groups)


def in_elements(array: Array) -> Array:
    """Return the array, or a copy if its elements are not aligned to their size."""
    flags, size = array.flags, array.itemsize
    if flags.aligned and (flags.c_contiguous or not any(stride % size for stride in array.strides)):
        return array
    return array.copy()


def empty(shape: tuple[int, ...], dtype: np.dtype[np.float32 | np.float64]) -> Array:
    """Return an array aligned to a cache line, so that wide stores do not cross two lines."""
    count = math.prod(shape)
    raw: Array = np.empty(count + 64 // dtype.itemsize, dtype)
    first = _conv_direct.elements_to_cache_line(raw)
    return raw[first : first + count].reshape(shape)


def empty_like(images: Array, shape: tuple[int, int, int, int]) -> Array:
    """Return an array (N, C, H, W) in the memory format of ``images``, channels_last or contiguous."""
    if not images.flags.c_contiguous and images.transpose(0, 2, 3, 1).flags.c_contiguous:
        n, c, h, w = shape
        return empty((n, h, w, c), images.dtype).transpose(0, 3, 1, 2)
    return empty(shape, images.dtype)


def forward(x: Array, w: Array, b: Array | None, geometry: Geometry) -> Array:
    """Compute y (N, K, P, Q) in the memory format of x."""
    y = empty_like(x, geometry.y_shape)
    bias = None if b is None else np.ascontiguousarray(in_elements(b))
    _conv_direct.forward(in_elements(x), in_elements(w), bias, y, settings(geometry), num_threads)
    return y


def grad_input(grad_y: Array, w: Array, geometry: Geometry) -> Array:
    """Compute grad_x (N, C, H, W) in the memory format of grad_y."""
    grad_x = empty_like(grad_y, geometry.x_shape)
    _conv_direct.grad_input(in_elements(grad_y), in_elements(w), grad_x, settings(geometry), num_threads)
    return grad_x


def grad_weight(grad_y: Array, x: Array, geometry: Geometry) -> tuple[Array, Array]:
    """Compute grad_w (K, C / groups, R, S) and grad_b (K,)."""
    grad_w, grad_b = np.empty(geometry.w_shape, x.dtype), np.empty(geometry.w_shape[0], x.dtype)
    _conv_direct.grad_weight(in_elements(grad_y), in_elements(x), grad_w, grad_b, settings(geometry), num_threads)
    return grad_w, grad_b
