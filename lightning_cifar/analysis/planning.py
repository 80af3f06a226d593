"""Number of seeds that a comparison needs: power of the paired t test and of the test of equivalence.

Given the standard deviation s of n differences, the probability of a verdict follows from the normal distribution. It
is averaged over s, which has a chi-squared distribution (t test: Cohen 1988, "Statistical power analysis for the
behavioral sciences"; test of equivalence: Phillips 1990, doi:10.1007/BF01063556).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

_MOST = 100_000  # seeds
_GRID = (np.arange(1000) + 0.5) / 1000  # quantiles of the chi-squared distribution


def power_of_difference(n: int, effect: float, std: float, alpha: float = 0.05) -> float:
    """Return the probability that a two-sided paired t test with ``n`` seeds detects a difference.

    Args:
        n: Number of seeds, at least 2.
        effect: True mean difference.
        std: Standard deviation of the differences between seeds, above 0.
        alpha: Probability of a false positive of this comparison.

    Example:
        >>> round(power_of_difference(10, effect=1.0, std=1.0), 2)
        0.8
    """
    shift = abs(effect) / std * math.sqrt(n)
    return _average(n, alpha / 2, lambda limit: stats.norm.sf(limit - shift) + stats.norm.cdf(-limit - shift))


def power_of_equivalence(n: int, margin: float, std: float, alpha: float = 0.05) -> float:
    """Return the probability that two one-sided t tests show equivalence of two arms without any difference.

    Args:
        n: Number of seeds, at least 2.
        margin: Largest difference that does not matter.
        std: Standard deviation of the differences between seeds, above 0.
        alpha: Probability of a wrong equivalence of this comparison.

    Example:
        >>> round(power_of_equivalence(11, margin=1.0, std=1.0), 2)
        0.85
    """
    room = margin / std * math.sqrt(n)
    return _average(n, alpha, lambda limit: np.maximum(2 * stats.norm.cdf(room - limit) - 1, 0))


def _average(n: int, tail: float, power: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> float:
    """Average a power, which depends on the limit of a test in true standard errors, over the estimates of s."""
    spread = np.sqrt(stats.chi2.ppf(_GRID, n - 1) / (n - 1))
    return float(power(stats.t.isf(tail, n - 1) * spread).mean())


def seeds_needed(power: Callable[[int], float], target: float = 0.8) -> int | None:
    """Return the smallest number of seeds with a power of at least ``target``; None above 100,000.

    Example:
        >>> seeds_needed(lambda n: power_of_difference(n, effect=0.5, std=1.0))
        34
    """
    high = 2
    while power(high) < target:
        if high >= _MOST:
            return None
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= target else (middle, high)
    return max(high, 2)


def pooled_std(variances: list[float], degrees: int, confidence: float = 0.8) -> tuple[float, float]:
    """Return a standard deviation from several variances, and its upper confidence limit (chi-squared distribution).

    A pilot of few seeds estimates a standard deviation badly; Browne (1995, doi:10.1002/sim.4780141709) plans with the
    limit. The differences to a common baseline are not independent, so the limit uses the degrees of freedom of one.

    Args:
        variances: Variance of each comparison.
        degrees: Number of seeds minus 1.
        confidence: Confidence of the limit.

    Example:
        >>> [round(value, 2) for value in pooled_std([1.0, 4.0], degrees=4)]
        [1.58, 2.46]
    """
    std = math.sqrt(sum(variances) / len(variances))
    return std, std * math.sqrt(degrees / float(stats.chi2.ppf(1 - confidence, degrees)))
