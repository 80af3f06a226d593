"""Distributions of the inputs and outputs of layers.

The bins of a histogram have a power of two as width, and their edges are multiples of the width. Histograms with
different ranges merge onto one axis without splitting a bin, so that the axis of an animation can be chosen at its end,
when all ranges are known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IntArray = NDArray[np.int64]
Array = NDArray[np.float64]

MAX_BINNED = 65_536
"""Largest number of values that are binned. Larger tensors are subsampled evenly. Moments use all values."""

_REACH = 6.0  # range of the bins on each side of the mean, in standard deviations


class Histogram(NamedTuple):
    """Counts (B,) over the bins ``[(first + i) * 2**exponent, (first + i + 1) * 2**exponent)``."""

    counts: IntArray
    first: int
    exponent: int
    below: int = 0
    """Number of finite values below the first bin."""
    above: int = 0
    zeros: int = 0
    """Values that are exactly zero. The counts leave them out: ReLU and dropout make a peak without width."""

    @property
    def width(self) -> float:
        return 2.0**self.exponent

    @property
    def edges(self) -> Array:
        """Edges of the bins, (B + 1,)."""
        return np.arange(self.first, self.first + len(self.counts) + 1, dtype=np.float64) * self.width

    @property
    def total(self) -> int:
        return int(self.counts.sum()) + self.below + self.above + self.zeros


class Summary(NamedTuple):
    """Statistics of one tensor (N, C, ...): N images, C units, over all further axes."""

    num_values: int
    mean: float
    std: float
    low: float
    high: float
    zeros: float
    """Share of the values that are exactly zero."""
    silent: float
    """Share of the units that are never above zero, so that the output of a following ReLU is zero."""
    broken: int
    """Number of values that are not finite; the other fields describe the finite values."""
    histogram: Histogram


class LayerSummary(NamedTuple):
    """Input and output of a layer in one forward pass."""

    before: Summary
    after: Summary

    @property
    def kept(self) -> float:
        """Share of the nonzero input values that are nonzero in the output: the values that dropout keeps."""
        alive = self.before.num_values * (1 - self.before.zeros)
        return self.after.num_values * (1 - self.after.zeros) / alive if alive else math.nan


class BinAxis(NamedTuple):
    """Bins of one width, shared by several histograms."""

    first: int
    exponent: int
    num_bins: int

    @property
    def edges(self) -> Array:
        """Edges of the bins, (num_bins + 1,)."""
        return np.arange(self.first, self.first + self.num_bins + 1, dtype=np.float64) * 2.0**self.exponent


class Density(NamedTuple):
    """Heights (B,) over an axis. Their area is 1, or 0 without values on the axis."""

    heights: Array
    outside: float
    """Share of the finite nonzero values beyond the axis."""
    zeros: float
    """Share of the finite values that are exactly zero, which the heights leave out."""


def summarise(values: Tensor, bins: int = 256) -> Summary:
    """Compute moments, extremes, silent units and histogram of values (N, C, ...) or (N,).

    The standard deviation divides by the number of values. Values more than six standard deviations from the mean may
    lie beyond the bins and are counted as ``below`` or ``above``.

    Raises:
        ValueError: The values are empty, or ``bins`` is below 8.
    """
    if bins < 8:
        raise ValueError(f"bins (={bins}) must be at least 8.")
    if not values.numel():
        raise ValueError(f"values {tuple(values.shape)} are empty.")
    values = values.detach().float()
    units = values[:, None] if values.ndim == 1 else values
    peaks = units.amax([axis for axis in range(units.ndim) if axis != 1])
    flat = _flat(values)
    found = _moments(flat, peaks)
    broken = 0
    if not math.isfinite(found.high - found.low):
        flat = flat[flat.isfinite()]
        broken = values.numel() - len(flat)
        if not len(flat):
            nan, empty = math.nan, Histogram(np.zeros(1, np.int64), 0, 0)
            return Summary(0, nan, nan, nan, nan, nan, found.silent, broken, empty)
        found = _moments(flat, peaks)
    mean, std, low, high, zeros, silent = found
    reach = _REACH * std
    histogram = _bin(flat, max(low, mean - reach), min(high, mean + reach), bins, int(zeros))
    return Summary(len(flat), mean, std, low, high, zeros / len(flat), silent, broken, histogram)


def _flat(values: Tensor) -> Tensor:
    """All values (M,) in memory order, so that channels_last images are not copied."""
    if values.is_contiguous():
        return values.view(-1)
    strides = values.stride()
    return values.permute(sorted(range(values.ndim), key=lambda axis: -strides[axis])).reshape(-1)


class _Moments(NamedTuple):
    mean: float
    std: float
    low: float
    high: float
    zeros: float
    """Number of zeros."""
    silent: float


def _moments(flat: Tensor, peaks: Tensor) -> _Moments:
    """Moments of values (M,); ``peaks`` are the largest values of the units."""
    mean = flat.mean()
    # On a CPU torch.std_mean takes ten times as long. The pieces fit into the cache.
    pieces = (piece - mean for piece in torch.split(flat, len(flat) if flat.is_cuda else MAX_BINNED))
    squares = [piece.dot(piece) for piece in pieces]
    low, high = flat.aminmax()
    found = [mean, low, high, flat.count_nonzero().to(mean.dtype), (peaks <= 0).float().mean(), *squares]
    # One transfer: on a GPU each separate transfer would wait for all launched work.
    mean_, low_, high_, nonzero, silent, *squares_ = torch.stack(found).tolist()
    return _Moments(mean_, math.sqrt(sum(squares_) / len(flat)), low_, high_, len(flat) - nonzero, silent)


def _bin(flat: Tensor, low: float, high: float, bins: int, zeros: int) -> Histogram:
    if len(flat) > MAX_BINNED:
        stride = len(flat) // MAX_BINNED + 1
        while math.gcd(stride, len(flat)) > 1:  # or the same channels would be selected repeatedly
            stride += 1
        flat = flat[::stride]
        zeros = int(len(flat) - flat.count_nonzero())
    exponent = bin_exponent(low, high, bins)
    first = math.floor(math.ldexp(low, -exponent))
    num_bins = math.floor(math.ldexp(high, -exponent)) - first + 1
    # Exact, since the width is a power of two. The first and the last bin count values beyond the range.
    indices = torch.floor(flat * 2.0**-exponent).sub_(first - 1).clamp_(0, num_bins + 1).long()
    counts: IntArray = torch.bincount(indices, minlength=num_bins + 2).cpu().numpy()
    counts[min(max(1 - first, 0), num_bins + 1)] -= zeros
    return Histogram(counts[1:-1], first, exponent, int(counts[0]), int(counts[-1]), zeros)


def bin_exponent(low: float, high: float, bins: int) -> int:
    """Exponent of the smallest power of two for which ``bins`` aligned bins of this width contain both ends."""
    # The resolution of float32: bins narrower than 2**-20 of the values would stay empty.
    width = max((high - low) / (bins - 1), max(abs(low), abs(high)) * 2.0**-20, 2.0**-100)
    fraction, exponent = math.frexp(width)  # exact, unlike a logarithm
    return exponent - (fraction == 0.5)


def shared_axis(histograms: Sequence[Histogram], num_bins: int = 100, share: float = 0.0005) -> BinAxis:
    """Choose an axis of up to ``num_bins`` bins for all histograms.

    The range of a histogram leaves out ``share`` of its values on either side. The axis extends at most four median
    widths beyond the median ends, so that one diverged histogram does not determine it.

    Raises:
        ValueError: ``histograms`` is empty.
    """
    if not histograms:
        raise ValueError("histograms is empty: the axis needs at least one")
    ranges = [_range(histogram, share) for histogram in histograms if histogram.counts.any()] or [(-1.0, 1.0)]
    lows, highs = (np.asarray(ends) for ends in zip(*ranges, strict=True))
    widest = 4 * float(np.median(highs - lows))
    low = max(float(lows.min()), float(np.median(lows)) - widest)
    high = min(float(highs.max()), float(np.median(highs)) + widest)
    exponent = bin_exponent(low, high, num_bins)
    first = math.floor(math.ldexp(low, -exponent))
    return BinAxis(first, exponent, max(math.ceil(math.ldexp(high, -exponent)) - first, 1))


def _range(histogram: Histogram, share: float) -> tuple[float, float]:
    """Edges of the bins between which all but ``share`` of the counts on either side lie."""
    cumulative = histogram.counts.cumsum()
    first = int(np.searchsorted(cumulative, share * cumulative[-1], side="right"))
    last = int(np.searchsorted(cumulative, (1 - share) * cumulative[-1]))
    edges = histogram.edges
    return float(edges[first]), float(edges[last + 1])


def density(histogram: Histogram, axis: BinAxis) -> Density:
    """Convert a histogram to the bins of an axis. Narrower bins merge exactly; wider ones are spread evenly."""
    shift = axis.exponent - histogram.exponent
    parts = 1 << max(-shift, 0)
    weights = np.repeat(histogram.counts / parts, parts)
    indices = (histogram.first * parts + np.arange(len(weights)) >> max(shift, 0)) - axis.first
    is_inside = (indices >= 0) & (indices < axis.num_bins)
    heights = np.bincount(indices[is_inside], weights[is_inside], axis.num_bins).astype(np.float64)
    inside = float(heights.sum())
    drawn = histogram.total - histogram.zeros
    if inside:
        heights /= inside * 2.0**axis.exponent
    zeros = histogram.zeros / histogram.total if histogram.total else 0.0
    return Density(heights, 1 - inside / drawn if drawn else 0.0, zeros)


def merged(histogram: Histogram, most: int) -> Histogram:
    """Merge neighbouring bins until at most ``most`` bins are left, but not below two."""
    counts, first, exponent = histogram.counts, histogram.first, histogram.exponent
    while len(counts) > max(most, 2):  # zero always stays an edge
        counts = np.pad(counts, (first % 2, (first + len(counts)) % 2)).reshape(-1, 2).sum(1)
        first, exponent = first // 2, exponent + 1
    return histogram._replace(counts=counts, first=first, exponent=exponent)
