"""Comparison of arms paired by seed: intervals, tests of difference and of equivalence, and the verdict as a sentence.

Runs with the same seed have the same initial weights and batches. Arms are therefore compared by the differences within
each seed, so that the effect of the seed cancels out. Four verdicts are possible:

- *better* and *worse*: Student's paired t test (Student 1908) rejects that the mean difference is zero;
- *equivalent*: two one-sided t tests (TOST; Schuirmann 1987, doi:10.1007/BF01068419) reject that the mean difference
  is at least ``margin`` in either direction;
- *not shown*: none of these.

The p-values of m comparisons are adjusted by the step-down method of Holm (1979, "A simple sequentially rejective
multiple test procedure"): the probability of one or more wrong differences in a study is at most 5 %, and that of one
or more wrong equivalences too. The intervals hold for all comparisons together; each has the confidence 1 - 0.05 / m
(Bonferroni; Dunn 1961). Where results are looked at k times while seeds are added, p-values are multiplied by k, and
0.05 is divided by k.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from lightning_cifar.analysis.statistics import check_confidence

Floats = NDArray[np.float64]
Compare = Literal["baseline", "all"]

_ROUNDING = 1e-6  # relative spread up to which differences are equal


class Rules(NamedTuple):
    """How the arms of a study are compared.

    Attributes:
        compare: ``baseline`` compares each other arm with the baseline, ``all`` compares each pair.
        margin: Largest difference that does not matter, for the test of equivalence; None for no such test.
        looks: Number of times that results are looked at while seeds are added.
    """

    compare: Compare = "baseline"
    margin: float | None = None
    looks: int = 1


class Difference(NamedTuple):
    """Mean difference of an arm from another over their common seeds, corrected for the number of comparisons."""

    arm: str
    baseline: str
    mean: float
    low: float
    high: float
    p: float
    n: int
    p_equivalence: float = math.nan
    """p-value of the test of equivalence; NaN without a margin."""
    margin: float | None = None
    alpha: float = 0.05
    """Probability of a false positive in the whole study."""

    @property
    def is_shown(self) -> bool:
        """Whether a difference is shown."""
        return self.p < self.alpha

    @property
    def is_equivalent(self) -> bool:
        """Whether the difference is shown to be smaller than the margin."""
        return self.p_equivalence < self.alpha

    def verdict(self, *, higher_is_better: bool = True) -> str:
        """Return ``better``, ``worse``, ``equivalent``, ``not shown``, or ``too few runs``."""
        if self.n < 2:
            return "too few runs"
        if self.is_shown:
            return "better" if (self.mean > 0) == higher_is_better else "worse"
        return "equivalent" if self.is_equivalent else "not shown"


class PairedTests(NamedTuple):
    """Results of m comparisons in each of any number of studies; all (..., m)."""

    mean: Floats
    low: Floats
    high: Floats
    p: Floats
    p_equivalence: Floats
    n: NDArray[np.int64]


def holm(p: ArrayLike) -> Floats:
    """Adjust p-values (..., m) by the step-down method of Holm (1979); a NaN counts as a comparison and stays NaN.

    The k-th smallest p-value is multiplied by m - k + 1; an adjusted value is never below that of a smaller p-value,
    nor above that of Bonferroni.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        array([0.03, 0.06, 0.06])
    """
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, axis=-1)  # NaN last
    factors = np.arange(values.shape[-1], 0, -1)
    stepped = np.maximum.accumulate(np.take_along_axis(values, order, axis=-1) * factors, axis=-1)
    adjusted = np.empty_like(values)
    np.put_along_axis(adjusted, order, np.minimum(stepped, 1), axis=-1)
    return adjusted


def paired_tests(
    differences: ArrayLike,
    *,
    margin: float | None = None,
    looks: int = 1,
    confidence: float = 0.95,
    magnitude: ArrayLike = 0.0,
) -> PairedTests:
    """Test the mean differences of m comparisons.

    Args:
        differences: (..., m, n): m comparisons with n seeds in any number of studies; NaN for missing seeds.
        margin: Largest difference that does not matter, for the test of equivalence.
        looks: Number of times that results are looked at.
        confidence: Confidence with which all intervals of a study hold together.
        magnitude: (..., m): largest absolute value of which differences were taken, to recognise rounding.

    Returns:
        With fewer than two seeds, interval and p are NaN. If the difference is the same with each seed, the interval is
        NaN and p comes from the sign test: an accuracy has discrete steps, and the spread is below one step, so
        Student's t would report certainty.
    """
    values = np.asarray(differences, dtype=float)
    there = np.isfinite(values)
    n, m = there.sum(axis=-1), values.shape[-2]
    enough = n > 1
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(there, values, 0).sum(axis=-1) / n
        std = np.sqrt((np.where(there, values - mean[..., None], 0) ** 2).sum(axis=-1) / (n - 1))
        error, free = std / np.sqrt(n), np.maximum(n - 1, 1)
        half = stats.t.ppf(1 - (1 - confidence) / (2 * m * looks), free) * error
        p = 2 * stats.t.sf(np.abs(mean / error), free)
        room = math.nan if margin is None else margin - np.abs(mean)  # the larger p-value of both one-sided tests
        p_equivalence = stats.t.sf(room / error, free)
    equal = enough & (std <= _ROUNDING * np.maximum(magnitude, np.abs(mean)))
    same = equal & (mean == 0)
    p = np.where(same, 1.0, np.where(equal, 2 * 0.5**n, p))
    half = np.where(enough, np.where(same, 0.0, np.where(equal, math.nan, half)), math.nan)
    p_equivalence = np.where(equal, np.where(room > 0, 0.5**n, 0 * room + 1), p_equivalence)
    p, p_equivalence = (np.minimum(looks * holm(np.where(enough, each, math.nan)), 1) for each in (p, p_equivalence))
    return PairedTests(mean, mean - half, mean + half, p, p_equivalence, n)


def paired_differences(
    arms: Mapping[str, Mapping[int, float]],
    baseline: str | None = None,
    confidence: float = 0.95,
    *,
    compare: Compare = "baseline",
    margin: float | None = None,
    looks: int = 1,
) -> list[Difference]:
    """Compare each arm with the baseline, or all pairs of arms, paired by seed.

    Args:
        arms: Metric by arm and seed. A value that is not finite is missing.
        baseline: Name of an arm; None is the first.
        confidence: Confidence with which all intervals together hold.
        compare: ``baseline`` compares each other arm with the baseline, ``all`` compares each pair.
        margin: Largest difference that does not matter, for the test of equivalence.
        looks: Number of times that results are looked at while seeds are added.

    Returns:
        Differences in the order of the arms, those to the baseline first; see ``paired_tests``.

    Raises:
        ValueError: The baseline is not one of the arms, or the margin is not positive.

    Example:
        >>> (found,) = paired_differences({"plain": {0: 0.5, 1: 0.6}, "augmented": {0: 0.6, 1: 0.8}})
        >>> found.arm, round(found.mean, 2), found.verdict()
        ('augmented', 0.15, 'not shown')
    """
    check_confidence(confidence)
    baseline = next(iter(arms), "") if baseline is None else baseline
    if baseline not in arms:
        raise ValueError(f"baseline (={baseline!r}) must be one of the arms: {', '.join(arms)}")
    if margin is not None and not 0 < margin < math.inf:
        raise ValueError(f"margin (={margin}) must be a positive number")
    names = [baseline, *(arm for arm in arms if arm != baseline)]
    pairs = list(combinations(range(len(names)), 2))
    pairs = pairs if compare == "all" else pairs[: len(names) - 1]
    if not pairs:
        return []
    values = _to_matrix([arms[name] for name in names])
    first, second = np.array(pairs).T
    differences = values[second] - values[first]
    largest = np.where(np.isfinite(differences), np.maximum(np.abs(values[second]), np.abs(values[first])), 0)
    magnitude = largest.max(axis=-1, initial=0)
    tests = paired_tests(differences, margin=margin, looks=looks, confidence=confidence, magnitude=magnitude)
    return [
        Difference(names[b], names[a], mean, low, high, p, int(n), p_equivalence, margin, 1 - confidence)
        for (a, b), (mean, low, high, p, p_equivalence, n) in zip(pairs, np.transpose(tests).tolist(), strict=True)
    ]


def _to_matrix(arms: Sequence[Mapping[int, float]]) -> Floats:
    """Return values (arms, seeds); NaN for missing ones."""
    seeds = list(dict.fromkeys(seed for arm in arms for seed in arm))
    values = np.array([[arm.get(seed, math.nan) for seed in seeds] for arm in arms], dtype=float)
    return np.where(np.isfinite(values), values, math.nan)


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
    margin = "" if difference.margin is None else f"the margin of {scale * difference.margin:.3g}{unit}"
    if math.isnan(low):
        within = f", equivalence within {margin} {_p_text(difference.p_equivalence)}" if margin else ""
        return (
            f"{arm} differs from {base} by {mean:+.3g}{unit} with each of {difference.n} seeds "
            f"({_p_text(difference.p)} in a sign test{within}): equal differences give no interval. "
            "Use more images or more seeds."
        )
    interval = f"{mean:+.3g}{unit} (interval {low:+.3g} to {high:+.3g}"
    numbers = f"{interval}, {_p_text(difference.p)}, n = {difference.n})"
    verdict = difference.verdict(higher_is_better=higher_is_better)
    if difference.is_shown:
        wide = "; the interval, which holds for all comparisons together, is wider than the test" * (low <= 0 <= high)
        end = f". {_size(difference)} than {margin}" if margin else ""
        return f"{arm} is {verdict} than {base}: {numbers}{wide}{end}."
    if difference.is_equivalent:
        p = f"equivalence {_p_text(difference.p_equivalence)}"
        return f"{arm} and {base} are equivalent within {margin}: {interval}, {p}, n = {difference.n})."
    if margin:
        p = f"{_p_text(difference.p)}, equivalence {_p_text(difference.p_equivalence)}"
        return (
            f"Neither a difference between {arm} and {base} nor equivalence within {margin} is shown: {interval}, {p}, "
            f"n = {difference.n})."
        )
    return f"No difference between {arm} and {base} is shown: {numbers}; either sign is compatible with these runs."


def _size(difference: Difference) -> str:
    """Compare a difference with its margin."""
    if difference.is_equivalent:
        return "The difference is smaller"
    larger = (
        min(abs(difference.low), abs(difference.high)) > (difference.margin or 0)
        and difference.low * difference.high > 0
    )
    return "The difference is larger" if larger else "The difference can be smaller or larger"


def _p_text(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"
