"""One axis of a convolution with fewer products than outputs times taps.

Along an axis a convolution maps inputs x and a kernel w to outputs ``y = A [(G w) * (B x)]``: B transforms the inputs,
G the kernel's taps, the values are multiplied elementwise, and A transforms the products. For 3 adjacent taps a tile of
m outputs needs m + 2 products instead of 3 m (Winograd's minimal filtering; Lavin & Gray, 1509.09308). A product of
polynomials is determined by its values at as many points as it has coefficients, and a filter is the transpose of such
a product. In other cases each product is one input times one tap. Inputs outside the image are zero and not multiplied.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Outputs of a tile -> points, besides infinity. The usual 0, ±1, ±2 for 4 outputs lose a digit of float32; these lose a
# bit, and those for 5 and 6 lose two.
POINTS: dict[int, tuple[float, ...]] = {
    2: (0, 1, -1),
    3: (0, 1, -0.5, -1.5),
    4: (0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5)),
    5: (0, 0.5, -0.5, 1.2, -1.2, 2.5),
    6: (0, 0.5, -0.5, 1, -1, 2, -2),
}


class ConvolutionAxis(NamedTuple):
    """A one-dimensional convolution: kernel and numbers of inputs and outputs."""

    kernel: int
    stride: int
    dilation: int
    before: int
    """Zeros before the first input."""
    inputs: int
    outputs: int

    def input_of(self, output: int, tap: int) -> int:
        """Index of the input that a tap multiplies for an output; the input is zero outside 0 to ``inputs`` - 1."""
        return output * self.stride + tap * self.dilation - self.before


class Tile(NamedTuple):
    """Some outputs of an axis: ``y[outputs] = out [(G w) * (into x[first:last])]``."""

    outputs: range
    first: int
    last: int
    into: Tensor
    """(products, last - first) float64."""
    out: Tensor
    """(outputs, products) float64."""


class Filter(NamedTuple):
    """All outputs of an axis."""

    kernel: Tensor
    """G (products of a tile, taps) float64, the same for all tiles."""
    tiles: tuple[Tile, ...]


@cache
def count_of(axis: ConvolutionAxis) -> tuple[int, int]:
    """Smallest number of products, and its number of tiles; faster than :func:`filter_of`."""
    side = _best_side(axis)
    if side is None:
        return len(_met(axis)), 1
    tiles = _num_tiles(axis, side)
    return tiles * (side + 2), tiles


@cache
def filter_of(axis: ConvolutionAxis) -> Filter:
    """The computation with the fewest products."""
    side = _best_side(axis)
    return _by_taps(axis) if side is None else _by_tiles(axis, side)


@cache
def _best_side(axis: ConvolutionAxis) -> int | None:
    """Number of outputs of a tile; None if single taps need the fewest products."""
    counts: dict[int | None, int] = {None: len(_met(axis))}
    if axis.kernel == 3 and axis.stride == 1:
        counts |= {side: (side + 2) * _num_tiles(axis, side) for side in POINTS}
    return min(counts, key=counts.__getitem__)


def _num_tiles(axis: ConvolutionAxis, side: int) -> int:
    # A dilated convolution consists of interleaved convolutions.
    phases = min(axis.dilation, axis.outputs)
    return sum(-(-len(range(phase, axis.outputs, axis.dilation)) // side) for phase in range(phases))


def _met(axis: ConvolutionAxis) -> list[tuple[int, int]]:
    """Pairs of an output and a tap with an input inside the image."""
    pairs = [(i, k) for i in range(axis.outputs) for k in range(axis.kernel) if 0 <= axis.input_of(i, k) < axis.inputs]
    return pairs or [(0, 0)]


def _by_taps(axis: ConvolutionAxis) -> Filter:
    pairs = _met(axis)
    outputs, taps = torch.tensor(pairs).T
    into = torch.tensor([[axis.input_of(i, k) == j for j in range(axis.inputs)] for i, k in pairs]).double()
    out = F.one_hot(outputs, axis.outputs).double().T.contiguous()
    tile = Tile(range(axis.outputs), 0, axis.inputs, into, out)
    return Filter(F.one_hot(taps, axis.kernel).double(), (tile,))


def _by_tiles(axis: ConvolutionAxis, side: int) -> Filter:
    points = torch.tensor(POINTS[side], dtype=torch.float64)

    def values(size: int) -> Tensor:
        """Values of z^0 to z^(size - 1) at the points and at infinity, where only the last power counts."""
        return torch.cat([points[:, None] ** torch.arange(size), F.one_hot(torch.tensor([size - 1]), size).double()])

    into, out = torch.linalg.inv(values(side + 2)).T, values(side).T
    tiles = []
    for phase in range(min(axis.dilation, axis.outputs)):
        step = side * axis.dilation
        for begin in range(phase, axis.outputs, step):
            outputs = range(begin, min(begin + step, axis.outputs), axis.dilation)
            met = [axis.input_of(begin, 0) + i * axis.dilation for i in range(side + 2)]
            present = [i for i, j in enumerate(met) if 0 <= j < axis.inputs]
            first, last = (met[present[0]], met[present[-1]] + 1) if present else (0, 1)
            matrix = torch.zeros(side + 2, last - first, dtype=torch.float64)
            matrix[:, [met[i] - first for i in present]] = into[:, present]
            tiles.append(Tile(outputs, first, last, matrix, out[: len(outputs)].contiguous()))
    return Filter(values(3), tuple(tiles))
