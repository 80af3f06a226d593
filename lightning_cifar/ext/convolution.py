"""Convolution, forward and backward, with five backends: from the definition to a kernel as fast as the library's.

    loops         seven loops in Python, the definition
    naive         two loops over the output positions, a matrix product at each
    im2col        no loop over positions: windows as columns, one matrix product
    cython_naive  the seven loops, typed and compiled
    cython        register-blocked, vectorised, threaded; AVX-512, AVX2 or portable, selected at run time

The last two are compiled when the package is installed, if there is a C compiler. LIGHTNING_CIFAR_EXT_REQUIRE=1
raises an error if they are missing, LIGHTNING_CIFAR_EXT_DISABLE=1 omits them; both at installation and at import.
"cython" uses all cores, LIGHTNING_CIFAR_EXT_THREADS, or the number passed to set_num_threads;
LIGHTNING_CIFAR_EXT_ISA=avx2 selects an instruction set.

Convolution here is the cross-correlation of neural networks: the kernel is not flipped.
N batch, C in-channels, K out-channels, H W image, R S kernel, P Q output:
P = floor((H + 2 padding - dilation (R - 1) - 1) / stride) + 1.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias

from lightning_cifar.ext import conv_im2col, conv_loops, conv_naive
from lightning_cifar.ext.conv_geometry import Array, Geometry, IntPair, as_array, measure, same_type

BackendName: TypeAlias = Literal["loops", "naive", "im2col", "cython_naive", "cython"]


class Backend(Protocol):
    """Interface of a backend; arguments are checked beforehand."""

    def forward(self, x: Array, w: Array, b: Array | None, geometry: Geometry) -> Array: ...
    def grad_input(self, grad_y: Array, w: Array, geometry: Geometry) -> Array: ...
    def grad_weight(self, grad_y: Array, x: Array, geometry: Geometry) -> tuple[Array, Array]: ...


BACKENDS: dict[str, Backend] = {"loops": conv_loops, "naive": conv_naive, "im2col": conv_im2col}
NOT_BUILT = ""  # reason why the compiled backends are missing

if os.environ.get("LIGHTNING_CIFAR_EXT_DISABLE") == "1" and os.environ.get("LIGHTNING_CIFAR_EXT_REQUIRE") != "1":
    NOT_BUILT = "LIGHTNING_CIFAR_EXT_DISABLE is set"
else:
    try:
        from lightning_cifar.ext import conv_cython, conv_cython_naive
    except ImportError as error:
        NOT_BUILT = f"they were not compiled when the package was installed ({error})"
        if os.environ.get("LIGHTNING_CIFAR_EXT_REQUIRE") == "1":
            raise ImportError(
                f"LIGHTNING_CIFAR_EXT_REQUIRE is set, but {NOT_BUILT}: "
                "install a C compiler and Cython, then the package"
            ) from error
    else:
        BACKENDS |= {"cython_naive": conv_cython_naive, "cython": conv_cython}


def active_backend() -> BackendName:
    """Return the default backend: "cython" if it is built, otherwise "im2col"."""
    return "cython" if "cython" in BACKENDS else "im2col"


def instruction_set() -> str:
    """Return the instruction set of "cython": avx512, avx2 or portable; empty if it is not built."""
    return conv_cython.instruction_set() if "cython" in BACKENDS else ""


def get_num_threads() -> int:
    """Return the number of threads of "cython"; 1 if it is not built."""
    return conv_cython.num_threads if "cython" in BACKENDS else 1


def set_num_threads(count: int) -> None:
    """Set the number of threads of "cython" in this process; no effect if it is not built.

    Raises:
        ValueError: If it is below 1.
    """
    if count < 1:
        raise ValueError(f"count (={count}) must be at least 1")
    if "cython" in BACKENDS:
        conv_cython.num_threads = count


def choose(backend: BackendName | None) -> Backend:
    """Return a backend by name, or the default one.

    Raises:
        ValueError: If it is unknown or not built.
    """
    name = active_backend() if backend is None else backend
    if name not in BACKENDS:
        if name in ("cython", "cython_naive"):
            raise ValueError(f"backend {name!r} is not available: {NOT_BUILT}; use one of {', '.join(BACKENDS)}")
        raise ValueError(f"backend (={name!r}) must be one of {', '.join(BACKENDS)}")
    return BACKENDS[name]


def conv2d(
    x_NCHW: Array,
    w_KCRS: Array,
    b_K: Array | None = None,
    *,
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    backend: BackendName | None = None,
) -> Array:
    """Compute the convolution of a batch of images.

    Args:
        x_NCHW: Images (N, C, H, W), float32 or float64, with any strides. If the channels are last in memory, "cython"
            returns an array in the same format.
        w_KCRS: Filters (K, C / groups, R, S), of the same dtype.
        b_K: Biases (K,).
        stride, padding, dilation: In pixels, one number or (height, width). The padding is zero.
        groups: Number of groups of channels with separate filters.
        backend: Name of a backend of this module; None is ``active_backend()``.

    Returns:
        (N, K, P, Q), of the same dtype.

    Raises:
        TypeError: If dtypes are mixed, or neither float32 nor float64.
        ValueError: If shapes or settings do not fit, or the backend does not exist.

    Example:
        >>> import numpy as np
        >>> from lightning_cifar import conv2d
        >>> conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)))[0, 0]
        array([[4., 4.],
               [4., 4.]])
    """
    x, w = as_array("x", x_NCHW, "NCHW"), as_array("w", w_KCRS, "KCRS")
    same_type("x", x, "w", w)
    b = None
    if b_K is not None:
        b = as_array("b", b_K, "K")
        same_type("x", x, "b", b)
        if b.shape != w.shape[:1]:
            raise ValueError(
                f"b has shape {b.shape}, but w {w.shape} has {w.shape[0]} out-channels: b must be ({w.shape[0]},)"
            )
    geometry = measure(x.shape, w.shape, stride, padding, dilation, groups)
    return choose(backend).forward(x, w, b, geometry)


def conv2d_backward(
    grad_y_NKPQ: Array,
    x_NCHW: Array,
    w_KCRS: Array,
    *,
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    backend: BackendName | None = None,
) -> tuple[Array, Array, Array]:
    """Compute the gradients of a loss with respect to x, w and b from that with respect to y = conv2d(x, w, b).

    Args:
        grad_y_NKPQ: Gradient with respect to y, with the shape and dtype of y.
        x_NCHW, w_KCRS: See :func:`conv2d`.
        stride, padding, dilation, groups, backend: See :func:`conv2d`.

    Returns:
        grad_x (N, C, H, W), grad_w (K, C / groups, R, S), grad_b (K,).

    Raises:
        TypeError, ValueError: See :func:`conv2d`.

    Example:
        >>> import numpy as np
        >>> from lightning_cifar import conv2d_backward
        >>> grad_x, grad_w, grad_b = conv2d_backward(
        ...     np.ones((1, 1, 2, 2)), np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))
        ... )
        >>> grad_x[0, 0], grad_b
        (array([[1., 2., 1.],
               [2., 4., 2.],
               [1., 2., 1.]]), array([4.]))
    """
    x, w = as_array("x", x_NCHW, "NCHW"), as_array("w", w_KCRS, "KCRS")
    settings: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    grad_x = conv2d_grad_input(grad_y_NKPQ, w, x.shape, **settings, backend=backend)
    return grad_x, *conv2d_grad_weight(grad_y_NKPQ, x, w.shape, **settings, backend=backend)


def conv2d_grad_input(
    grad_y_NKPQ: Array,
    w_KCRS: Array,
    x_shape: Sequence[int],
    *,
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    backend: BackendName | None = None,
) -> Array:
    """Compute only grad_x of :func:`conv2d_backward`; ``x_shape`` is (N, C, H, W)."""
    grad_y, w = as_array("grad_y", grad_y_NKPQ, "NKPQ"), as_array("w", w_KCRS, "KCRS")
    same_type("grad_y", grad_y, "w", w)
    geometry = measure(x_shape, w.shape, stride, padding, dilation, groups)
    check_grad(grad_y, geometry)
    return choose(backend).grad_input(grad_y, w, geometry)


def conv2d_grad_weight(
    grad_y_NKPQ: Array,
    x_NCHW: Array,
    w_shape: Sequence[int],
    *,
    stride: IntPair = 1,
    padding: IntPair = 0,
    dilation: IntPair = 1,
    groups: int = 1,
    backend: BackendName | None = None,
) -> tuple[Array, Array]:
    """Compute only grad_w and grad_b of :func:`conv2d_backward`; ``w_shape`` is (K, C / groups, R, S)."""
    grad_y, x = as_array("grad_y", grad_y_NKPQ, "NKPQ"), as_array("x", x_NCHW, "NCHW")
    same_type("grad_y", grad_y, "x", x)
    geometry = measure(x.shape, w_shape, stride, padding, dilation, groups)
    check_grad(grad_y, geometry)
    return choose(backend).grad_weight(grad_y, x, geometry)


def check_grad(grad_y: Array, geometry: Geometry) -> None:
    """Raise ValueError if grad_y does not have the shape of y."""
    if grad_y.shape != geometry.y_shape:
        raise ValueError(f"grad_y has shape {grad_y.shape}, but y has {geometry.y_shape}")
