"""Windows that slide over images: positions, fill values, and averages for each pixel."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Span = tuple[int, int]
Fill = float | Tensor | Literal["mean", "blur"]


class Windows(NamedTuple):
    """Positions of windows. Along each axis a window covers the pixels from begin to end, ``(begin, end)``."""

    rows: tuple[Span, ...]
    columns: tuple[Span, ...]

    def average(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        """Average the windows that cover each pixel, (N, P, Q) -> (N, H, W); NaN if no window covers it."""
        down, across = (coverage(spans, (0, length)).to(values) for spans, length in zip(self, size, strict=True))
        counts = down.sum(0)[:, None] * across.sum(0)
        return (down.T @ values @ across / counts).masked_fill(counts == 0, math.nan)


def coverage(windows: Sequence[Span], pixels: Span, device: torch.device | None = None) -> Tensor:
    """Return whether each window covers each pixel: bool (windows, pixels)."""
    return torch.tensor([[begin <= i < end for i in range(*pixels)] for begin, end in windows], device=device)


def place_windows(size: tuple[int, int], window: int | tuple[int, int], stride: int | tuple[int, int]) -> Windows:
    """Place windows on images, starting in the top left corner; the border cuts off the last ones.

    A stride above the window leaves pixels uncovered: a warning states how many.

    Raises:
        ValueError: A number is not an integer or below 1, or the window does not fit.
    """
    window, stride = _pair("window", window), _pair("stride", stride)
    if window[0] > size[0] or window[1] > size[1]:
        raise ValueError(
            f"`window` (={window[0]} x {window[1]}) does not fit into images of {size[0]} x {size[1]} pixels: use a "
            "smaller one."
        )
    rows, columns = (
        tuple((begin, min(begin + extent, length)) for begin in range(0, min(length, length - extent + step), step))
        for extent, step, length in zip(window, stride, size, strict=True)
    )
    covered = math.prod(len({i for span in spans for i in range(*span)}) for spans in (rows, columns))
    if covered < math.prod(size):
        warnings.warn(
            f"`stride` (={stride[0]} x {stride[1]}) is above `window` (={window[0]} x {window[1]}): no window covers "
            f"{math.prod(size) - covered} of {math.prod(size)} pixels, which are NaN in `pixels`.",
            stacklevel=3,
        )
    return Windows(rows, columns)


def thin(spans: Sequence[Span]) -> tuple[list[int], Tensor]:
    """Positions a quarter of a window apart, with the last one, and the weights (P, p) of linear interpolation."""
    (begin, end), *others = spans
    step = max(1, (end - begin) // (4 * (others[0][0] - begin))) if others else 1
    kept = sorted({*range(0, len(spans), step), len(spans) - 1})
    weights = torch.zeros(len(spans), len(kept))
    for i in range(len(spans)):
        after = next(j for j, k in enumerate(kept) if k >= i)
        share = (i - kept[after - 1]) / (kept[after] - kept[after - 1]) if kept[after] > i else 1.0
        weights[i, after - 1] = 1 - share
        weights[i, after] = share
    return kept, weights


def _pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(number, int) and number >= 1 for number in pair):
        raise ValueError(f"`{name}` (={value}) must be one or two integers (pixels), at least 1.")
    return pair


def make_fills(images: Tensor, fill: Fill, window: int | tuple[int, int]) -> Tensor:
    """Fill values for images (N, C, H, W), in the same shape.

    Raises:
        ValueError: The fill is an unknown word, is not finite, or does not broadcast to the images.
    """
    if isinstance(fill, Tensor):
        value = fill.detach().to(images)
        if value.ndim == 1:
            value = value[:, None, None]
        try:
            return value.expand_as(images)
        except RuntimeError as error:
            shape = tuple(images.shape)
            raise ValueError(f"`fill` {tuple(fill.shape)} must be ({shape[1]},) or broadcast to {shape}.") from error
    if fill == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    if fill == "blur":
        return _blur(images, max(_pair("window", window)) / 2)
    if isinstance(fill, int | float) and math.isfinite(fill):
        return torch.full_like(images, fill)
    raise ValueError(f"`fill` (={fill!r}) must be a finite number, 'mean', 'blur' or a tensor.")


def _blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian means over the pixels inside the image."""
    mixes = []
    for length in images.shape[2:]:
        at = torch.arange(length, device=images.device, dtype=images.dtype)
        weights = torch.exp(-((at[:, None] - at) ** 2) / (2 * sigma**2))
        mixes.append(weights / weights.sum(1, keepdim=True))
    return mixes[0] @ images @ mixes[1].T
