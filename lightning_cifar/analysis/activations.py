"""How the values that enter and leave a layer are distributed.

A distribution is kept as counts over bins whose width is a power of two and whose edges are multiples of the width. Two
such histograms, made at different times and with different ranges, merge onto one axis without splitting a bin, so that
an animation's axis may be chosen at its end, when all ranges are known, and little has to be kept until then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_cifar.analysis.layers import find_layer, uncompiled

IntArray = NDArray[np.int64]
Array = NDArray[np.float64]

MAX_BINNED = 65_536
"""Values of one tensor that are binned: of more, a part spread evenly. Moments and silent units are of all."""

# Standard deviations on each side of the mean that the bins reach, where the values do.
_REACH = 6.0


class Histogram(NamedTuple):
    """Counts (B,) over the bins ``[(first + i) * 2**exponent, (first + i + 1) * 2**exponent)``."""

    counts: IntArray
    first: int
    exponent: int
    below: int = 0
    """Values beyond the first bin; finite ones, as everywhere here."""
    above: int = 0
    zeros: int = 0
    """Values that are exactly zero. They are not among the counts: ReLU and dropout make a peak of no width."""

    @property
    def width(self) -> float:
        return 2.0**self.exponent

    @property
    def edges(self) -> Array:
        """(B + 1,)"""
        return np.arange(self.first, self.first + len(self.counts) + 1, dtype=np.float64) * self.width

    @property
    def total(self) -> int:
        return int(self.counts.sum()) + self.below + self.above + self.zeros


class Summary(NamedTuple):
    """The values of one tensor (N, C, ...): N images, C units, over all further axes."""

    num_values: int
    mean: float
    std: float
    low: float
    high: float
    zeros: float
    """Share of the values that are exactly zero."""
    silent: float
    """Share of the units that are above zero for no image, nowhere: a ReLU behind them lets nothing through."""
    broken: int
    """Values that are not finite; all else here is of the others."""
    histogram: Histogram


class LayerSummary(NamedTuple):
    """A layer's input and output in one forward pass."""

    before: Summary
    after: Summary

    @property
    def kept(self) -> float:
        """Of the input's values that are not zero, the share that is not zero in the output either: dropout's."""
        alive = self.before.num_values * (1 - self.before.zeros)
        return self.after.num_values * (1 - self.after.zeros) / alive if alive else math.nan


class Axis(NamedTuple):
    """Bins of one width, on which histograms are drawn together."""

    first: int
    exponent: int
    num_bins: int

    @property
    def edges(self) -> Array:
        """(num_bins + 1,)"""
        return np.arange(self.first, self.first + self.num_bins + 1, dtype=np.float64) * 2.0**self.exponent


class Density(NamedTuple):
    """Heights (B,) over an axis, whose area is 1 if there is anything at all on it."""

    heights: Array
    outside: float
    """Share of the values that are finite and not zero and lie beyond the axis."""
    zeros: float
    """Share of the finite values that are exactly zero, which the heights leave out."""


def summarise(values: Tensor, bins: int = 256) -> Summary:
    """Moments, extremes, silent units and histogram of values (N, C, ...) or (N,).

    The standard deviation is that of the values, not an estimate of another one. Values more than six standard
    deviations from the mean may fall beyond the bins, and are counted there.

    Raises:
        ValueError: If there are no values, or fewer than 8 bins.
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
    """All values in a row, in the order of memory, so that channels_last images are not copied."""
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
    """How many."""
    silent: float


def _moments(flat: Tensor, peaks: Tensor) -> _Moments:
    """Of values (M,) of which each unit's highest one is among the peaks."""
    mean = flat.mean()
    # On a CPU torch.std_mean takes ten times as long. In pieces that the cache holds.
    pieces = (piece - mean for piece in torch.split(flat, len(flat) if flat.is_cuda else MAX_BINNED))
    squares = [piece.dot(piece) for piece in pieces]
    low, high = flat.aminmax()
    found = [mean, low, high, flat.count_nonzero().to(mean.dtype), (peaks <= 0).float().mean(), *squares]
    # One transfer: on a GPU each number asked for by itself would wait for all that was launched.
    mean_, low_, high_, nonzero, silent, *squares_ = torch.stack(found).tolist()
    return _Moments(mean_, math.sqrt(sum(squares_) / len(flat)), low_, high_, len(flat) - nonzero, silent)


def _bin(flat: Tensor, low: float, high: float, bins: int, zeros: int) -> Histogram:
    if len(flat) > MAX_BINNED:
        stride = len(flat) // MAX_BINNED + 1
        while math.gcd(stride, len(flat)) > 1:  # or it would meet the same channels again and again
            stride += 1
        flat = flat[::stride]
        zeros = int(len(flat) - flat.count_nonzero())
    exponent = bin_exponent(low, high, bins)
    first = math.floor(math.ldexp(low, -exponent))
    num_bins = math.floor(math.ldexp(high, -exponent)) - first + 1
    # Exact, since the width is a power of two. The two outer places take what lies beyond.
    places = torch.floor(flat * 2.0**-exponent).sub_(first - 1).clamp_(0, num_bins + 1).long()
    counts: IntArray = torch.bincount(places, minlength=num_bins + 2).cpu().numpy()
    counts[min(max(1 - first, 0), num_bins + 1)] -= zeros
    return Histogram(counts[1:-1], first, exponent, int(counts[0]), int(counts[-1]), zeros)


def bin_exponent(low: float, high: float, bins: int) -> int:
    """The smallest power of two as a width so that ``bins`` aligned bins hold both ends."""
    # float32 has no numbers between its neighbours: bins narrower than 2**-20 of the values would stay empty.
    width = max((high - low) / (bins - 1), max(abs(low), abs(high)) * 2.0**-20, 2.0**-100)
    fraction, exponent = math.frexp(width)  # exact, unlike a logarithm
    return exponent - (fraction == 0.5)


def shared_axis(histograms: Sequence[Histogram], num_bins: int = 100, share: float = 0.0005) -> Axis:
    """An axis of up to ``num_bins`` bins for all of them, as they follow each other in time.

    Each gives the range without ``share`` of its values on either side. One range that is more than four times as wide
    as the middle one, as when a training explodes, does not set the axis alone: the rest of it lies outside.

    Raises:
        ValueError: If there is no histogram.
    """
    if not histograms:
        raise ValueError("There is no histogram to choose an axis for.")
    ranges = [_range(histogram, share) for histogram in histograms if histogram.counts.any()] or [(-1.0, 1.0)]
    lows, highs = (np.asarray(ends) for ends in zip(*ranges, strict=True))
    widest = 4 * float(np.median(highs - lows))
    low = max(float(lows.min()), float(np.median(lows)) - widest)
    high = min(float(highs.max()), float(np.median(highs)) + widest)
    exponent = bin_exponent(low, high, num_bins)
    first = math.floor(math.ldexp(low, -exponent))
    return Axis(first, exponent, max(math.ceil(math.ldexp(high, -exponent)) - first, 1))


def _range(histogram: Histogram, share: float) -> tuple[float, float]:
    """Edges of the bins between which all but ``share`` of the counts on either side lie."""
    cumulative = histogram.counts.cumsum()
    first = int(np.searchsorted(cumulative, share * cumulative[-1], side="right"))
    last = int(np.searchsorted(cumulative, (1 - share) * cumulative[-1]))
    edges = histogram.edges
    return float(edges[first]), float(edges[last + 1])


def density(histogram: Histogram, axis: Axis) -> Density:
    """The histogram over the bins of an axis. Narrower bins merge exactly; wider ones are spread evenly."""
    shift = axis.exponent - histogram.exponent
    heights: Array = np.zeros(axis.num_bins)
    if shift >= 0:
        places = (histogram.first + np.arange(len(histogram.counts)) >> shift) - axis.first
        weights = histogram.counts.astype(np.float64)
    else:
        parts = 1 << -shift
        start = histogram.first * parts - axis.first
        places = start + np.arange(len(histogram.counts) * parts)
        weights = np.repeat(histogram.counts / parts, parts)
    held = (places >= 0) & (places < axis.num_bins)
    np.add.at(heights, places[held], weights[held])
    inside = float(heights.sum())
    drawn = histogram.total - histogram.zeros
    if inside:
        heights /= inside * 2.0**axis.exponent
    zeros = histogram.zeros / histogram.total if histogram.total else 0.0
    return Density(heights, 1 - inside / drawn if drawn else 0.0, zeros)


def merged(histogram: Histogram, most: int) -> Histogram:
    """The same over at most so many bins, two or more: neighbours are added up until there are no more."""
    counts, first, exponent = histogram.counts, histogram.first, histogram.exponent
    while len(counts) > max(most, 2):  # zero is an edge for ever
        counts = np.pad(counts, (first % 2, (first + len(counts)) % 2)).reshape(-1, 2).sum(1)
        first, exponent = first // 2, exponent + 1
    return histogram._replace(counts=counts, first=first, exponent=exponent)


@contextmanager
def observed(model: nn.Module, names: Sequence[str], bins: int = 256) -> Iterator[dict[str, LayerSummary]]:
    """Inside, each forward pass of the model leaves ``name -> LayerSummary`` of the named layers in the dict.

    Summaries are made on the spot, so that no tensor is copied or held, and a layer that works in place changes
    nothing. A layer that is used twice leaves its last call. The hooks are gone afterwards, on exception too.

    Raises:
        ValueError: There is no such layer.
    """
    found: dict[str, LayerSummary] = {}
    inputs: dict[str, Summary] = {}

    def before(name: str, given: tuple[object, ...]) -> None:
        if given and isinstance(given[0], Tensor):
            inputs[name] = summarise(given[0], bins)

    def after(name: str, output: object) -> None:
        if isinstance(output, Tensor) and name in inputs:
            found[name] = LayerSummary(inputs[name], summarise(output, bins))

    modules = dict(model.named_modules())
    layers = {name: modules[name] if name and name in modules else find_layer(model, name) for name in names}
    with ExitStack() as stack:
        stack.enter_context(uncompiled(model))
        for name, layer in layers.items():
            handle = layer.register_forward_pre_hook(lambda _, given, name=name: before(name, given))
            stack.callback(handle.remove)
            handle = layer.register_forward_hook(lambda _, __, output, name=name: after(name, output))
            stack.callback(handle.remove)
        yield found
