"""Learning-rate range test: learning rates of a sweep, smoothed losses and suggested learning rates.

A sweep trains for T steps with an increasing learning rate (Smith, 1506.01186); its curve is the loss of each batch
over the learning rate of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.signal import lfilter

from lightning_cifar.analysis.lr_rules import MIN_STEPS, RULES, read_curve, upturn_of

Array = NDArray[np.float64]

VERIFY_STEPS = 100
"""Number of steps of each training of :func:`verify`."""

_MOST_TESTS = 6  # trainings of `verify`: 600 steps, as many as three sweeps of 200
# Scores of `verify` that count as equal to the best. Chosen with `benchmarks/lr_finder_rules.py --choose`.
_NEAR = 0.02  # of the best score
_NEAR_SPREAD = 0.25  # of the difference between the worst and the best score
_FALLEN = 0.02  # smallest relative decrease of the loss that counts as learning


class Sweep(NamedTuple):
    """One sweep: float64 arrays (T,), with T up to the requested number of steps."""

    lrs: Array
    """Learning rate of each step, increasing."""
    losses: Array
    """Raw losses; the last one of a diverged sweep may be NaN or infinite."""
    smoothed: Array
    """``smooth(losses)``."""
    diverged: bool
    seed: int


class Suggestion(NamedTuple):
    """Learning rate, and the lowest and the highest suggestion of a single sweep."""

    value: float
    low: float
    high: float
    rules: dict[str, float]
    """Name of a rule -> median of its learning rates over the sweeps."""
    tested: tuple[tuple[float, float], ...] = ()
    """Learning rates that ``verify`` trained with, increasing, and their losses; infinite if it diverged."""


def sweep_lrs(
    min_lr: float, max_lr: float, num_steps: int, spacing: Literal["geometric", "linear"] = "geometric"
) -> Array:
    """Learning rates (num_steps,) that start exactly at ``min_lr`` and end exactly at ``max_lr``.

    Raises:
        ValueError: A rate is not positive and finite, ``min_lr`` is not below ``max_lr``, or ``num_steps`` is below 10.
    """
    for name, lr in {"min_lr": min_lr, "max_lr": max_lr}.items():
        if not (np.isfinite(lr) and lr > 0):
            raise ValueError(f"{name} (={lr}) must be a positive number.")
    if min_lr >= max_lr:
        raise ValueError(f"max_lr (={max_lr}) must be above min_lr (={min_lr}).")
    if num_steps < MIN_STEPS:
        raise ValueError(f"num_steps (={num_steps}) must be at least {MIN_STEPS}.")
    lrs: Array = (np.geomspace if spacing == "geometric" else np.linspace)(min_lr, max_lr, num_steps)
    return lrs


def smooth(losses: ArrayLike, beta: float = 0.98) -> Array:
    """Exponential mean of losses (T,) for pictures: ``(1 - beta) sum_k beta^(t - k) losses_k / (1 - beta^t)``.

    The division corrects the start: the first value is the first loss. A loss that is not finite gives NaN at its
    position and does not change the mean.

    Raises:
        ValueError: ``beta`` is outside [0, 1).
    """
    if not 0 <= beta < 1:
        raise ValueError(f"`beta` (={beta}) must be at least 0 and below 1.")
    losses = np.asarray(losses, np.float64)
    finite = np.isfinite(losses)
    values = losses[finite]
    smoothed: Array = np.full(losses.shape, np.nan)
    if len(values):
        weights = 1 - beta ** np.arange(1, len(values) + 1)
        # The first loss is subtracted and added back, so that equal losses stay exactly equal.
        smoothed[finite] = values[0] + lfilter([1 - beta], [1, -beta], values - values[0]) / weights
    return smoothed


def has_diverged(losses: ArrayLike, factor: float = 4.0, beta: float = 0.98) -> bool:
    """Whether a loss is not finite, or the last smoothed loss is above ``factor`` times the smallest smoothed loss.

    Raises:
        ValueError: ``factor`` is not above 1, or ``beta`` is outside [0, 1).
    """
    if not factor > 1:
        raise ValueError(f"`factor` (={factor}) must be above 1.")
    losses = np.asarray(losses, np.float64)
    if not np.isfinite(losses).all():
        return True
    smoothed = smooth(losses, beta)
    return bool(len(smoothed)) and bool(smoothed[-1] > factor * smoothed.min())


def suggest(sweeps: Sequence[Sweep]) -> Suggestion:
    """Median over the sweeps of ``upturn_eighth`` over log10(lr), its extremes, and the median of every rule.

    Raises:
        ValueError: ``sweeps`` is empty, or a sweep has fewer than 10 finite losses.
    """
    if not sweeps:
        raise ValueError("`sweeps` is empty: a suggestion needs at least one.")
    found = {name: np.log10([rule(sweep.lrs, sweep.losses) for sweep in sweeps]) for name, rule in RULES.items()}
    rules = {name: float(10 ** np.median(logs)) for name, logs in found.items()}
    low, high = (float(10 ** extreme(found["upturn_eighth"])) for extreme in (np.min, np.max))
    return Suggestion(rules["upturn_eighth"], low, high, rules)


def verify(suggestion: Suggestion, train: Callable[[list[float]], Sequence[float]]) -> Suggestion:
    """Test a suggestion with short trainings, and replace it if another learning rate is better.

    A training has 100 steps with a constant rate; its score is the mean loss of the last 25 steps. The rates are the
    suggestion, its half and its quarter. If the suggestion is the best, twice its value is tested too. As long as the
    lowest rate is near the best, half of it is tested too, up to six trainings in total. The result is the lowest rate
    near the best: its score is within 2 % of the best score, and within a quarter of the difference between the worst
    and the best. The lowest, because the best rate of a longer training is lower.

    This is needed where the loss of a sweep stays low up to very large rates, so that the rise comes too late: batch
    norm, and adaptive optimizers. Rates above twice the suggestion are not tested, because they can let a network leave
    its plateau sooner, but are too large for a longer training.

    Args:
        suggestion: Result of :func:`suggest`.
        train: Trains for one step at each of the given learning rates and returns the loss of each step, fewer if it
            diverges. Every call starts from the same weights and uses the same batches, so that the scores can be
            compared.

    Returns:
        The suggestion with the chosen rate as its value, and with all rates and scores in ``tested``. The interval of a
        replaced value consists of the neighbouring rates. If all scores are equal, the value stays.
    """
    scores: dict[int, float] = {}  # by the number of doublings

    def test(doublings: int) -> None:
        losses = train([suggestion.value * 2.0**doublings] * VERIFY_STEPS)
        finished = len(losses) == VERIFY_STEPS and np.isfinite(losses[-1])
        scores[doublings] = float(np.mean(losses[-(VERIFY_STEPS // 4) :])) if finished else np.inf

    def lowest_near_the_best() -> int:
        best = min(scores.values())
        spread = max((score for score in scores.values() if score < np.inf), default=best) - best
        near = best + min(_NEAR * abs(best), _NEAR_SPREAD * spread)
        return min(doublings for doublings, score in scores.items() if score <= near)

    for doublings in (0, -1, -2):
        test(doublings)
    if scores[0] < min(scores[-1], scores[-2]):
        test(1)
    while len(scores) < _MOST_TESTS and lowest_near_the_best() == min(scores):
        if len(set(scores.values())) == 1 and scores[0] < np.inf:
            break  # the rate makes no difference
        test(min(scores) - 1)
    rates = {doublings: suggestion.value * 2.0**doublings for doublings in sorted(scores)}
    suggestion = suggestion._replace(tested=tuple((rate, scores[doublings]) for doublings, rate in rates.items()))
    chosen = lowest_near_the_best()
    if chosen == 0 or len(set(scores.values())) == 1:
        return suggestion
    low, high = rates[max(chosen - 1, min(rates))], rates[min(chosen + 1, max(rates))]
    return suggestion._replace(value=rates[chosen], low=low, high=high)


def doubt(sweeps: Sequence[Sweep]) -> str:
    """Describe why the suggestion is uncertain, in a sentence without a capital; empty if the loss fell.

    The loss fell if it is lower than its start by 2 % and by more than the noise in at least half of the sweeps.

    Raises:
        ValueError: A sweep has fewer than 10 finite losses.
    """
    curves = [read_curve(sweep.lrs, sweep.losses) for sweep in sweeps]
    fallen = [curve.drop > _FALLEN * abs(curve.start) for curve in curves]
    if 2 * sum(fallen) >= len(curves):
        return ""
    if any(upturn_of(curve) is not None for curve in curves):
        return (
            "the loss never fell below its start, so only the divergence supports this suggestion: sweep longer "
            "(--num_steps)"
        )
    return "the loss neither fell nor rose: sweep longer (--num_steps) or to higher learning rates (--max_lr)"
