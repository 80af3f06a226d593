"""Convolution, forward and backward, five ways: from the definition to a kernel as fast as the library's.

    loops         seven loops in Python, the definition
    naive         two loops over the output positions, a matrix product at each
    im2col        no loop over positions: windows as columns, one matrix product
    cython_naive  the seven loops, typed and compiled
    cython        register-blocked, vectorised, threaded; AVX-512, AVX2 or portable, chosen when it runs

The last two are compiled when the package is installed, where a C compiler is found. LIGHTNING_CIFAR_EXT_REQUIRE=1
makes their absence an error, LIGHTNING_CIFAR_EXT_DISABLE=1 leaves them out; both when installing and when importing.
"cython" uses all cores, or LIGHTNING_CIFAR_EXT_THREADS of them, or what set_num_threads said;
LIGHTNING_CIFAR_EXT_ISA=avx2 names an instruction set.

What is called convolution here is the cross-correlation that networks compute: the kernel is not flipped.
N batch, C in-channels, K out-channels, H W image, R S kernel, P Q output:
P = floor((H + 2 padding - dilation (R - 1) - 1) / stride) + 1.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

from lightning_cifar.ext import conv_im2col, conv_loops, conv_naive
from lightning_cifar.ext.conv_geometry import Array, Geometry, IntPair, as_array, measure, same_type

BackendName: TypeAlias = Literal["loops", "naive", "im2col", "cython_naive", "cython"]


class Backend(Protocol):
    """What each rung of the ladder provides; arguments are checked beforehand."""

    def forward(self, x: Array, w: Array, b: Array | None, geometry: Geometry) -> Array: ...
    def grad_input(self, grad_y: Array, w: Array, geometry: Geometry) -> Array: ...
    def grad_weight(self, grad_y: Array, x: Array, geometry: Geometry) -> tuple[Array, Array]: ...


BACKENDS: dict[str, Backend] = {"loops": conv_loops, "naive": conv_naive, "im2col": conv_im2col}
NOT_BUILT = ""  # why the compiled backends are missing

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
    """The backend in use where none is named: "cython" where it is built, else "im2col"."""
    return "cython" if "cython" in BACKENDS else "im2col"


def instruction_set() -> str:
    """What "cython" runs on: avx512, avx2 or portable; empty where it is not built."""
    return conv_cython.instruction_set() if "cython" in BACKENDS else ""


def get_num_threads() -> int:
    """Threads that "cython" uses; 1 where it is not built."""
    return conv_cython.threads.count if "cython" in BACKENDS else 1


def set_num_threads(count: int) -> None:
    """Sets the threads that "cython" uses in this process; without effect where it is not built.

    Raises:
        ValueError: below 1.
    """
    if count < 1:
        raise ValueError(f"count (={count}) must be at least 1")
    if "cython" in BACKENDS:
        conv_cython.threads.count = count


def choose(backend: BackendName | None) -> Backend:
    """The backend of a name, or the active one.

    Raises:
        ValueError: unknown, or not built.
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
    """Convolves a batch of images.

    Args:
        x_NCHW: (N, C, H, W), float32 or float64, with any strides in memory. Where the channels lie last in memory,
            "cython" returns an array whose channels do so too.
        w_KCRS: (K, C / groups, R, S), of the same type.
        b_K: (K,), added to each out-channel.
        stride, padding, dilation: pixels, one number or (height, width). The padding is zero.
        groups: the channels are cut into so many groups, convolved each with its own filters.
        backend: see above; None is active_backend().

    Returns:
        (N, K, P, Q), of the same type.

    Raises:
        TypeError: another type of number, or mixed ones.
        ValueError: shapes or settings that do not fit, a backend that does not exist.
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
    """The gradients of a loss by x, w and b, given its gradient by y = conv2d(x, w, b).

    Args:
        grad_y_NKPQ: the gradient by y, of y's shape and type.
        x_NCHW, w_KCRS: as :func:`conv2d` took them.
        stride, padding, dilation, groups, backend: likewise.

    Returns:
        grad_x (N, C, H, W), grad_w (K, C / groups, R, S), grad_b (K,).
    """
    grad_y, x, w = as_array("grad_y", grad_y_NKPQ, "NKPQ"), as_array("x", x_NCHW, "NCHW"), as_array("w", w_KCRS, "KCRS")
    same_type("grad_y", grad_y, "x", x)
    same_type("x", x, "w", w)
    geometry = measure(x.shape, w.shape, stride, padding, dilation, groups)
    check_grad(grad_y, geometry)
    chosen = choose(backend)
    return chosen.grad_input(grad_y, w, geometry), *chosen.grad_weight(grad_y, x, geometry)


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
    """grad_x of conv2d_backward alone; x_shape is (N, C, H, W)."""
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
    """grad_w and grad_b of conv2d_backward alone, for a first layer; w_shape is (K, C / groups, R, S)."""
    grad_y, x = as_array("grad_y", grad_y_NKPQ, "NKPQ"), as_array("x", x_NCHW, "NCHW")
    same_type("grad_y", grad_y, "x", x)
    geometry = measure(x.shape, w_shape, stride, padding, dilation, groups)
    check_grad(grad_y, geometry)
    return choose(backend).grad_weight(grad_y, x, geometry)


def check_grad(grad_y: Array, geometry: Geometry) -> None:
    """Raises ValueError where grad_y is not of y's shape."""
    if grad_y.shape != geometry.y_shape:
        raise ValueError(f"grad_y has shape {grad_y.shape}, but y has {geometry.y_shape}")
