"""Curves with fewer points that keep every spike: each piece keeps its smallest, largest and mean value.

Dropping points loses spikes, and a mean flattens them. A polyline through the smallest and the largest value of each
piece, in the order in which they occur, looks like the whole curve where a piece is narrower than a pixel (the idea of
M4: Jugel et al. 2014, "M4: a visualization-oriented time series data aggregation"; here without the first and the last
value of a piece). The mean is also kept, so that means and smoothed curves stay exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Decimated(NamedTuple):
    """Curves (S, P) in B pieces. NaN where a curve has no value in a piece."""

    low: Floats
    """(B,): position of the first point of each piece."""
    high: Floats
    """(B,): position of the last point."""
    position: Floats
    """(B,): mean position."""
    weight: NDArray[np.int64]
    """(S, B): number of values of a curve in a piece."""
    mean: Floats
    """(S, B): mean of these values."""
    first: Floats
    """(S, B): the smallest or the largest value, whichever comes first."""
    second: Floats
    """(S, B): the other one."""

    @property
    def is_exact(self) -> bool:
        """Whether every piece is a single point, so that all values are kept."""
        return bool((self.low == self.high).all())


def decimate(positions: ArrayLike, values: ArrayLike, max_pieces: int) -> Decimated:
    """Divide curves over the same positions into at most ``max_pieces`` pieces with about the same number of points.

    Args:
        positions: (P,), such as steps, ascending.
        values: (S, P); a value that is not finite is missing.
        max_pieces: With this number of points or fewer, every point is a piece and nothing is lost.

    Raises:
        ValueError: The shapes do not match, there is no point, or ``max_pieces`` is not positive.
    """
    x, y = np.asarray(positions, dtype=float), np.atleast_2d(np.asarray(values, dtype=float))
    if x.ndim != 1 or not len(x) or y.ndim != 2 or y.shape[1] != len(x):
        raise ValueError(f"positions {x.shape} and values {y.shape} must be (P,) and (S, P), with P > 0.")
    if max_pieces < 1:
        raise ValueError(f"max_pieces (={max_pieces}) must be at least 1.")
    y = np.where(np.isfinite(y), y, np.nan)
    pieces = min(max_pieces, len(x))
    edges = np.linspace(0, len(x), pieces + 1).astype(int)
    starts, sizes = edges[:-1], np.diff(edges)
    there = np.isfinite(y)
    count = np.add.reduceat(there.astype(np.int64), starts, axis=1)
    total = np.add.reduceat(np.where(there, y, 0), starts, axis=1)
    lowest = np.fmin.reduceat(y, starts, axis=1)
    highest = np.fmax.reduceat(y, starts, axis=1)
    falls = _first_index(y, highest, starts, sizes) < _first_index(y, lowest, starts, sizes)
    return Decimated(
        low=x[starts],
        high=x[edges[1:] - 1],
        position=np.add.reduceat(x, starts) / sizes,
        weight=count,
        mean=np.where(count > 0, total / np.maximum(count, 1), np.nan),
        first=np.where(falls, highest, lowest),
        second=np.where(falls, lowest, highest),
    )


def _first_index(y: Floats, extreme: Floats, starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index in the curve at which each piece first has its extreme value, (S, B)."""
    is_extreme = y == np.repeat(extreme, sizes, axis=1)
    return np.minimum.reduceat(np.where(is_extreme, np.arange(y.shape[1]), y.shape[1]), starts, axis=1)
