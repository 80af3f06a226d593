"""Statistics of training runs: means over seeds, paired differences, and a sentence with the conclusion.

Runs with the same seed have the same initial weights and batches. Arms are therefore compared by the differences within
each seed, so that the effect of the seed cancels out. Student's t gives intervals and p-values (Student 1908, "The
probable error of a mean"). With m comparisons each interval has the confidence 1 - (1 - confidence) / m and each
p-value is multiplied by m (Bonferroni; Dunn 1961): an interval excludes zero exactly where its p-value is small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

_ROUNDING = 1e-6  # relative spread up to which differences are equal


class Mean(NamedTuple):
    """Mean of n values, standard deviation (over n - 1) and interval of the mean; the last two are NaN for n = 1."""

    mean: float
    std: float
    low: float
    high: float
    n: int


class Difference(NamedTuple):
    """Mean difference of an arm from the baseline over their common seeds, corrected for the number of comparisons."""

    arm: str
    baseline: str
    mean: float
    low: float
    high: float
    p: float
    n: int

    @property
    def is_shown(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


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
    _check_confidence(confidence)
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not len(array):
        raise ValueError("values is empty: the mean needs at least one")
    n, mean = len(array), float(array.mean())
    if n < 2:
        return Mean(mean, math.nan, math.nan, math.nan, n)
    std = float(array.std(ddof=1))
    half = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * std / math.sqrt(n)
    return Mean(mean, std, mean - half, mean + half, n)


def paired_differences(
    arms: Mapping[str, Mapping[int, float]], baseline: str | None = None, confidence: float = 0.95
) -> list[Difference]:
    """Compare each arm with the baseline, paired by seed.

    Args:
        arms: Metric by arm and seed. A value that is not finite is missing.
        baseline: Name of an arm; None is the first.
        confidence: Confidence with which all intervals together hold.

    Returns:
        One difference for each other arm, in their order. With fewer than two common seeds, interval and p are NaN. If
        the difference is the same with each seed, the interval is NaN and p comes from the sign test.

    Raises:
        ValueError: The baseline is not one of the arms.

    Example:
        >>> (found,) = paired_differences({"plain": {0: 0.5, 1: 0.6}, "augmented": {0: 0.6, 1: 0.8}})
        >>> found.arm, round(found.mean, 2), found.is_shown
        ('augmented', 0.15, False)
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
        # The same difference with each seed, for example one image in 300: an accuracy has discrete steps, and the
        # spread is below one step. Student's t would report certainty, so only the sign test is used.
        p = min(1.0, count * 2 * 0.5**mean.n)
        return Difference(arm, baseline, mean.mean, math.nan, math.nan, p, mean.n)
    else:
        t = mean.mean / (mean.std / math.sqrt(mean.n))
        p = min(1.0, count * 2 * float(stats.t.sf(abs(t), mean.n - 1)))
    return Difference(arm, baseline, mean.mean, mean.low, mean.high, p, mean.n)


def conclude(difference: Difference, *, unit: str = "", scale: float = 1.0, higher_is_better: bool = True) -> str:
    """Describe in one sentence what can be concluded.

    Args:
        difference: Difference of two arms.
        unit: Text after the numbers, such as ``" points"``.
        scale: Factor for the numbers, such as 100 for percentage points.
        higher_is_better: Whether the metric is an accuracy, not a loss.
    """
    arm, base = difference.arm, difference.baseline
    if difference.n == 0:
        return f"{arm} and {base} have no finished seed in common: nothing can be concluded."
    mean, low, high = (scale * value for value in difference[2:5])
    if difference.n < 2:
        return f"{arm} differs from {base} by {mean:+.3g}{unit} with one seed: nothing can be concluded from n = 1."
    p = "p < 0.0001" if difference.p < 1e-4 else f"p = {difference.p:.2g}"
    if math.isnan(low):
        return (
            f"{arm} differs from {base} by {mean:+.3g}{unit} with each of {difference.n} seeds "
            f"({p} in a sign test): equal differences give no interval. Use more images or more seeds."
        )
    numbers = f"{mean:+.3g}{unit} (interval {low:+.3g} to {high:+.3g}, {p}, n = {difference.n})"
    if difference.is_shown:
        word = "better" if (difference.mean > 0) == higher_is_better else "worse"
        return f"{arm} is {word} than {base}: {numbers}."
    return f"No difference between {arm} and {base} is shown: {numbers}; either sign is compatible with these runs."


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
    _check_confidence(confidence)
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


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence (={confidence}) must be between 0 and 1, such as 0.95")
