"""Is the difference between two training choices real? Means over seeds, paired differences, and a plain sentence.

Runs with the same seed share their initial weights and their batches, so arms are compared by the differences within
each seed: what a lucky seed gives to both arms cancels out. Student's t gives intervals and p-values (Student 1908,
"The probable error of a mean"). With m comparisons each interval has the confidence 1 - (1 - confidence) / m and each
p-value is multiplied by m (Bonferroni; Dunn 1961): an interval leaves out zero exactly where its p-value is small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

_ROUNDING = 1e-6  # of the values: differences that agree so well are the same


class Mean(NamedTuple):
    """Mean of n values, their standard deviation (over n - 1), and the interval of the mean.

    With one value there is no standard deviation and no interval: they are NaN.
    """

    mean: float
    std: float
    low: float
    high: float
    n: int


class Difference(NamedTuple):
    """Mean difference of an arm from the baseline, over the seeds that both have, corrected for the comparisons."""

    arm: str
    baseline: str
    mean: float
    low: float
    high: float
    p: float
    n: int

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Mean:
    """Mean with its Student t interval.

    Args:
        values: one of each seed, say.
        confidence: of the interval, between 0 and 1.

    >>> mean_interval([1.0, 2.0, 3.0])
    Mean(mean=2.0, std=1.0, low=-0.48..., high=4.48..., n=3)

    Raises:
        ValueError: There are no values, or the confidence is not between 0 and 1.
    """
    _check_confidence(confidence)
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not len(array):
        raise ValueError("the mean of no values: give at least one")
    n, mean = len(array), float(array.mean())
    if n < 2:
        return Mean(mean, math.nan, math.nan, math.nan, n)
    std = float(array.std(ddof=1))
    half = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * std / math.sqrt(n)
    return Mean(mean, std, mean - half, mean + half, n)


def paired_differences(
    arms: Mapping[str, Mapping[int, float]], baseline: str | None = None, confidence: float = 0.95
) -> list[Difference]:
    """Each arm against the baseline, paired by seed.

    Args:
        arms: the metric of each arm and seed. A value that is not finite counts as missing.
        baseline: name of an arm; None is the first.
        confidence: that all intervals together hold.

    Returns:
        One difference for each other arm, in their order. With fewer than two common seeds, interval and p are NaN.
        Where the difference is the same with each seed there is no interval, and p is that of the sign test.

    Raises:
        ValueError: There is no such arm.
    """
    _check_confidence(confidence)
    baseline = next(iter(arms), "") if baseline is None else baseline
    if baseline not in arms:
        raise ValueError(f"baseline (={baseline!r}) must be one of the arms: {', '.join(arms)}")
    others = [arm for arm in arms if arm != baseline]
    level = 1 - (1 - confidence) / max(len(others), 1)
    return [_difference(arm, baseline, arms, level, len(others)) for arm in others]


def _difference(
    arm: str, baseline: str, arms: Mapping[str, Mapping[int, float]], level: float, count: int
) -> Difference:
    pairs = [(value, arms[baseline].get(seed, math.nan)) for seed, value in arms[arm].items()]
    pairs = [(value, base) for value, base in pairs if math.isfinite(value) and math.isfinite(base)]
    if not pairs:
        return Difference(arm, baseline, math.nan, math.nan, math.nan, math.nan, 0)
    mean = mean_interval([value - base for value, base in pairs], level)
    if mean.n < 2:
        p = math.nan
    elif mean.mean == mean.std == 0:  # the arms are equal
        p = 1.0
    elif mean.std <= _ROUNDING * max(max(abs(value), abs(base)) for value, base in pairs):
        # The same difference with each seed, one image in 300 say: an accuracy moves in steps, and the spread is below
        # one of them. Student's t would be certain. What is left is the sign test, and no interval.
        p = min(1.0, count * 2 * 0.5**mean.n)
        return Difference(arm, baseline, mean.mean, math.nan, math.nan, p, mean.n)
    else:
        t = mean.mean / (mean.std / math.sqrt(mean.n))
        p = min(1.0, count * 2 * float(stats.t.sf(abs(t), mean.n - 1)))
    return Difference(arm, baseline, mean.mean, mean.low, mean.high, p, mean.n)


def conclude(difference: Difference, *, unit: str = "", scale: float = 1.0, higher_is_better: bool = True) -> str:
    """One sentence on what can be concluded, and what cannot.

    Args:
        difference: of two arms.
        unit: behind the numbers, such as ``" points"``.
        scale: the numbers are multiplied by it, such as 100 for points of a percentage.
        higher_is_better: whether the metric is an accuracy, or a loss.
    """
    arm, base = difference.arm, difference.baseline
    if difference.n == 0:
        return f"{arm} and {base} have no seed in common that ended: nothing can be said."
    mean, low, high = (scale * value for value in difference[2:5])
    if difference.n < 2:
        return f"{arm} differs from {base} by {mean:+.3g}{unit} with one seed: nothing can be concluded from n = 1."
    if math.isnan(low):
        return (
            f"{arm} differs from {base} by {mean:+.3g}{unit} with each of {difference.n} seeds "
            f"({_p_text(difference.p)} by their signs): differences without a spread give no interval. More images to "
            "measure on, or more seeds, would."
        )
    numbers = f"{mean:+.3g}{unit} (interval {low:+.3g} to {high:+.3g}, {_p_text(difference.p)}, n = {difference.n})"
    if difference.is_shown:
        word = "better" if (difference.mean > 0) == higher_is_better else "worse"
        return f"{arm} is {word} than {base}: {numbers}."
    return f"No difference between {arm} and {base} is shown: {numbers}; either sign is compatible with these runs."


def _p_text(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


class Band(NamedTuple):
    """A mean curve and the interval of the mean at each position, all (P,). ``n`` (P,) counts the curves there."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    n: NDArray[np.int64]


def mean_curve(curves: ArrayLike, confidence: float = 0.95) -> Band:
    """Mean over seeds of curves (S, P), with a Student t interval at each position.

    NaN is a missing value. Where fewer than two curves have a value, the interval is NaN.
    """
    _check_confidence(confidence)
    array = np.atleast_2d(np.asarray(curves, dtype=float))
    there = np.isfinite(array)
    n = there.sum(axis=0)
    filled = np.where(there, array, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(n > 0, filled.sum(axis=0) / n, np.nan)
        deviation = np.where(there, array - mean, 0)
        std = np.sqrt((deviation**2).sum(axis=0) / (n - 1))
        half = stats.t.ppf(0.5 + confidence / 2, np.maximum(n - 1, 1)) * std / np.sqrt(n)
    half = np.where(n > 1, half, np.nan)
    return Band(mean, mean - half, mean + half, n)


def first_reaching(
    positions: Sequence[float], values: Sequence[float], target: float, *, higher_is_better: bool = True
) -> float:
    """The first position (an epoch, seconds) at which the curve reaches the target; NaN where it never does."""
    for position, value in zip(positions, values, strict=True):
        if value >= target if higher_is_better else value <= target:
            return float(position)
    return math.nan


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence (={confidence}) must be between 0 and 1, such as 0.95")
