"""Statistics of training runs: means over seeds with Student t intervals, and mean curves.

The intervals are those of Student (1908), "The probable error of a mean".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


class Mean(NamedTuple):
    """Mean of n values, standard deviation (over n - 1) and interval of the mean; the last two are NaN for n = 1."""

    mean: float
    std: float
    low: float
    high: float
    n: int


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Mean:
    """Compute a mean with its Student t interval.

    Args:
        values: For example one value per seed.
        confidence: Confidence of the interval, between 0 and 1.

    Raises:
        ValueError: ``values`` is empty, or the confidence is not between 0 and 1.

    Example:
        >>> mean_interval([1.0, 2.0, 3.0])
        Mean(mean=2.0, std=1.0, low=-0.48..., high=4.48..., n=3)
    """
    check_confidence(confidence)
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not len(array):
        raise ValueError("values is empty: the mean needs at least one")
    n, mean = len(array), float(array.mean())
    if n < 2:
        return Mean(mean, math.nan, math.nan, math.nan, n)
    std = float(array.std(ddof=1))
    half = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * std / math.sqrt(n)
    return Mean(mean, std, mean - half, mean + half, n)


class Band(NamedTuple):
    """Mean curve and interval of the mean at each position, all (P,); ``n`` is the number of curves there."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    n: NDArray[np.int64]


def mean_curve(curves: ArrayLike, confidence: float = 0.95) -> Band:
    """Compute the mean of curves (S, P) over seeds, with a Student t interval at each position.

    NaN is a missing value. The interval is NaN where fewer than two curves have a value.
    """
    check_confidence(confidence)
    array = np.atleast_2d(np.asarray(curves, dtype=float))
    present = np.isfinite(array)
    n = present.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(n > 0, np.where(present, array, 0).sum(axis=0) / n, np.nan)
        deviation = np.where(present, array - mean, 0)
        std = np.sqrt((deviation**2).sum(axis=0) / (n - 1))
        half = stats.t.ppf(0.5 + confidence / 2, np.maximum(n - 1, 1)) * std / np.sqrt(n)
    half = np.where(n > 1, half, np.nan)
    return Band(mean, mean - half, mean + half, n)


def first_reaching(
    positions: Sequence[float], values: Sequence[float], target: float, *, higher_is_better: bool = True
) -> float:
    """First position (epoch, seconds) at which the curve reaches the target; NaN if it never does."""
    for position, value in zip(positions, values, strict=True):
        if value >= target if higher_is_better else value <= target:
            return float(position)
    return math.nan


def check_confidence(confidence: float) -> None:
    """Raise a ValueError if a confidence is not between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence (={confidence}) must be between 0 and 1, such as 0.95")
