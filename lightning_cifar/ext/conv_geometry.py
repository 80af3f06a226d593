"""Shapes and settings of a convolution, and their validation.

N batch, C in-channels, K out-channels, H W image, R S kernel, P Q output.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float32 | np.float64]
IntPair: TypeAlias = int | Sequence[int]


@dataclass(frozen=True)
class Geometry:
    """Shapes of x (N, C, H, W), w (K, C / groups, R, S) and y (N, K, P, Q), and settings as (height, width)."""

    x_shape: tuple[int, int, int, int]
    w_shape: tuple[int, int, int, int]
    y_shape: tuple[int, int, int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @property
    def extent(self) -> tuple[int, int]:
        """Size of the dilated kernel in pixels."""
        return (self.w_shape[2] - 1) * self.dilation[0] + 1, (self.w_shape[3] - 1) * self.dilation[1] + 1


def pair(name: str, value: IntPair, at_least: int) -> tuple[int, int]:
    """Convert one or two integers to (height, width).

    Raises:
        TypeError: If they are not integers.
        ValueError: If there are not two, or one is below ``at_least``.
    """
    if isinstance(value, int) and value >= at_least:  # the most frequent case
        return int(value), int(value)
    try:
        values = tuple(value) if isinstance(value, Sequence | np.ndarray) else (value, value)
        numbers = tuple(operator.index(number) for number in values)
    except TypeError:
        raise TypeError(f"{name} (={value!r}) must be an integer or a pair of integers (height, width)") from None
    if len(numbers) != 2:
        raise ValueError(f"{name} (={value!r}) has {len(numbers)} entries: give one integer or two (height, width)")
    if min(numbers) < at_least:
        raise ValueError(f"{name} (={value!r}) must be at least {at_least}")
    return numbers[0], numbers[1]


def as_array(name: str, value: Array, axes: str) -> Array:
    """Convert to a native float32 or float64 array with one axis for each letter of ``axes``; only N may be empty.

    Raises:
        TypeError: If the dtype is neither float32 nor float64.
        ValueError: If the number of axes differs, or an axis is empty.
    """
    array = np.asarray(value)
    if array.dtype.char not in ("f", "d"):
        raise TypeError(
            f"{name} is {array.dtype}: convolution needs float32 or float64, e.g. {name}.astype(np.float32)"
        )
    if array.ndim != len(axes):
        raise ValueError(f"{name} has shape {array.shape}: expected {len(axes)} axes ({', '.join(axes)})")
    if 0 in array.shape and 0 in (array.shape[1:] if axes[0] == "N" else array.shape):
        raise ValueError(f"{name} has shape {array.shape}: only the batch axis may be empty of ({', '.join(axes)})")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def same_type(name: str, array: Array, other_name: str, other: Array) -> None:
    """Raise TypeError if the dtypes of two arrays differ."""
    if array.dtype != other.dtype:
        raise TypeError(f"{name} is {array.dtype}, {other_name} is {other.dtype}: convert them to one dtype")


def measure(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    stride: IntPair,
    padding: IntPair,
    dilation: IntPair,
    groups: int,
) -> Geometry:
    """Validate the shapes of images (N, C, H, W) and filters (K, C / groups, R, S), and the settings.

    Raises:
        TypeError: If settings are not integers.
        ValueError: If channels, groups or sizes do not fit.
    """
    try:
        groups = operator.index(groups)
    except TypeError:
        raise TypeError(f"groups (={groups!r}) must be an integer") from None
    if groups < 1:
        raise ValueError(f"groups (={groups}) must be at least 1")
    strides, paddings, dilations = pair("stride", stride, 1), pair("padding", padding, 0), pair("dilation", dilation, 1)
    return fit(tuple(x_shape), tuple(w_shape), strides, paddings, dilations, groups)


@lru_cache(maxsize=256)  # validation takes half of the time of a tiny convolution
def fit(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Geometry:
    N, C, H, W = x_shape
    K, per_group, R, S = w_shape
    if C % groups or K % groups:
        raise ValueError(f"in-channels (={C}) and out-channels (={K}) must be divisible by groups (={groups})")
    if per_group * groups != C:
        raise ValueError(
            f"x {x_shape} has {C} channels, but w {w_shape} with groups={groups} "
            f"expects {per_group * groups}: w must be (K, {C // groups}, R, S)"
        )
    out = []
    for size, kernel, step, pad, gap in zip((H, W), (R, S), stride, padding, dilation, strict=True):
        extent = (kernel - 1) * gap + 1
        if extent > size + 2 * pad:
            raise ValueError(
                f"the kernel {(R, S)} with dilation {dilation} covers {extent} pixels, more than the image {(H, W)} "
                f"with padding {padding} has ({size + 2 * pad}): use a smaller kernel or dilation, or more padding"
            )
        out.append((size + 2 * pad - extent) // step + 1)
    # Unused strides and dilations may be larger than the machine words of the compiled code.
    stride = (min(stride[0], H + 2 * padding[0]), min(stride[1], W + 2 * padding[1]))
    dilation = (dilation[0] if R > 1 else 1, dilation[1] if S > 1 else 1)
    return Geometry((N, C, H, W), (K, per_group, R, S), (N, K, out[0], out[1]), stride, padding, dilation, groups)
