"""Main effects and interactions of a factorial experiment, and resampled intervals and probabilities of improvement.

In a grid of settings, the main effect of a level is its mean difference from the first level over all combinations of
the other factors; an interaction of two levels is how much the effect of one changes with the other (Fisher 1935, "The
design of experiments"). Each is computed within a seed, so seeds give its interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]


class Effect(NamedTuple):
    """An effect of one factor, or the interaction of two, against the first levels."""

    factors: tuple[int, ...]
    """Indices of the factors."""
    levels: tuple[int, ...]
    """Index of a level of each of them; never 0."""
    by_seed: Floats
    """(S,): NaN for a seed without all runs."""


def factorial_effects(values: ArrayLike) -> list[Effect]:
    """Return all main effects, then all interactions of two factors.

    Args:
        values: (L1, ..., Lk, S): metric by level of each of k factors and by seed; NaN for missing runs.

    Raises:
        ValueError: If there are fewer than two factors.

    Example:
        >>> values = np.zeros((2, 2, 3))
        >>> values[1] += 1.0
        >>> values[1, 1] += 0.5
        >>> [(each.factors, each.levels, float(each.by_seed.mean())) for each in factorial_effects(values)]
        [((0,), (1,), 1.25), ((1,), (1,), 0.25), ((0, 1), (1, 1), 0.5)]
    """
    array = np.asarray(values, dtype=float)
    num_factors = array.ndim - 1
    if num_factors < 2:
        raise ValueError(f"values has the shape {array.shape}: it must have at least two factors and the seeds")
    effects = []
    for size in (1, 2):
        for factors in combinations(range(num_factors), size):
            table = np.moveaxis(array, factors, range(size))
            table = table.mean(axis=tuple(range(size, num_factors)))  # (levels of the factors, S)
            for level in np.ndindex(*table.shape[:-1]):
                if all(level):
                    first = table[level] - table[(0, *level[1:])]
                    other = table[(level[0], 0)] - table[0, 0] if size == 2 else 0.0
                    effects.append(Effect(factors, level, first - other))
    return effects


def bootstrap_interval(values: Sequence[float], confidence: float) -> tuple[float, float]:
    """Return the bootstrap interval of a mean, bias-corrected and accelerated (Efron 1987, doi:10.2307/2289144).

    It does not assume a normal distribution, but needs more than a few values.

    Args:
        values: One value per seed, at least two different ones.
        confidence: Confidence of the interval.

    Example:
        >>> low, high = bootstrap_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 30.0], 0.95)
        >>> 4 < low < 6.8 < high < 17
        True
    """
    found = stats.bootstrap(
        (np.asarray(values, dtype=float),),
        np.mean,
        confidence_level=confidence,
        n_resamples=9999,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def probability_of_improvement(first: ArrayLike, second: ArrayLike, *, higher_is_better: bool = True) -> float:
    """Return the share of all pairs of runs in which the first arm is better; a tie is half (Agarwal 2021, 2108.13264).

    Args:
        first: (n,): metric of the runs of an arm.
        second: (m,): metric of the runs of another arm.
        higher_is_better: Whether the metric is an accuracy, not a loss.

    Example:
        >>> probability_of_improvement([2.0, 3.0], [1.0, 2.0])
        0.875
    """
    gaps = np.subtract.outer(np.asarray(first, dtype=float), np.asarray(second, dtype=float))
    sign = 1 if higher_is_better else -1
    return float((np.sign(sign * gaps) + 1).mean() / 2)
