"""Learning-rate range test: learning rates of a sweep, smoothed losses and suggested learning rates.

A sweep trains for T steps with an increasing learning rate (Smith, 1506.01186); its curve is the loss of each batch
over the learning rate of the batch. Every rule uses the curve over log10(lr), and does not depend on scale and offset
of the loss or on the unit of the rate.

The rules take raw losses and smooth them without delay. An exponential mean with beta 0.98 lags 50 steps behind, more
than a decade of the usual sweep: it is used for pictures only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter

Array = NDArray[np.float64]

MIN_STEPS = 10
"""Number of steps of the shortest valid sweep."""

# Chosen on nine networks with several batch sizes and input scales, on drawn shapes of 16 pixels (other seeds than in
# benchmarks/lr_finder_rules.py, which uses 32): the best constant rate of a plain SGD training of 300 to 500 steps was
# a third to a twentieth of the upturn. Tried: a tenth of the rate at which the loss is back at its start, which fails
# where a BatchNorm keeps the loss low up to the end of the sweep.
UPTURN_RATIO = 8.0
VERIFY_STEPS = 100
"""Number of steps of each training of :func:`verify`."""

_VERIFIED = 6  # largest number of trainings of `verify`: 600 steps, as many as three sweeps of 200
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
            raise ValueError(f"`{name}` (={lr}) must be a positive number.")
    if min_lr >= max_lr:
        raise ValueError(f"`min_lr` (={min_lr}) must be below `max_lr` (={max_lr}).")
    if num_steps < MIN_STEPS:
        raise ValueError(f"`num_steps` (={num_steps}) must be at least {MIN_STEPS}.")
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


def steepest(lrs: ArrayLike, losses: ArrayLike) -> float:
    """Learning rate at which the loss falls fastest over log10(lr); the first one if the loss never falls.

    As for every rule, ``lrs`` (T,) increase and ``losses`` (T,) are raw. Losses that are not finite are left out.

    Raises:
        ValueError: The arrays are invalid, or fewer than 10 losses are finite.
    """
    curve = _read(lrs, losses)
    slope = np.gradient(curve.losses, curve.log_lrs)
    if slope.min() >= -1e-9 * np.abs(slope).max():  # only rounding errors
        return curve.lr_at(0)
    return curve.lr_at(slope.argmin())


def valley(lrs: ArrayLike, losses: ArrayLike) -> float:
    """Middle, over log10(lr), of the longest falling subsequence of the smoothed losses.

    Raises:
        ValueError: See :func:`steepest`.
    """
    curve = _read(lrs, losses)
    first, last = _longest_fall(curve.losses)
    return float(10 ** ((curve.log_lrs[first] + curve.log_lrs[last]) / 2))


def minimum_tenth(lrs: ArrayLike, losses: ArrayLike) -> float:
    """A tenth of the learning rate with the lowest smoothed loss, but at least the first learning rate.

    Raises:
        ValueError: See :func:`steepest`.
    """
    curve = _read(lrs, losses)
    return max(curve.lr_at(curve.losses.argmin()) / 10, curve.lr_at(0))


def upturn_eighth(lrs: ArrayLike, losses: ArrayLike) -> float:
    """An eighth of the learning rate at which the smoothed loss has risen half-way from its minimum to its start.

    In a sweep that is too short to learn, the loss stays constant until it diverges. Its minimum and its steepest fall
    are then random, but the upturn is not. A rise counts if it exceeds the noise of the losses. Without a rise the
    upturn is the last learning rate.

    Raises:
        ValueError: See :func:`steepest`.
    """
    curve = _read(lrs, losses)
    upturn = _upturn(curve)
    return max(curve.lr_at(-1 if upturn is None else upturn) / UPTURN_RATIO, curve.lr_at(0))


def _upturn(curve: _Curve) -> int | None:
    """Index of the upturn, None if the loss does not rise back."""
    lowest = int(curve.losses.argmin())
    risen = np.flatnonzero(curve.losses[lowest:] > 1.5 * curve.noise - curve.drop / 2)
    return max(lowest + int(risen[0]) - 1, 0) if len(risen) else None


RULES: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "steepest": steepest,
    "valley": valley,
    "minimum_tenth": minimum_tenth,
    "upturn_eighth": upturn_eighth,
}


def suggest(sweeps: Sequence[Sweep]) -> Suggestion:
    """Median over the sweeps of :func:`upturn_eighth` over log10(lr), its extremes, and the median of every rule.

    Raises:
        ValueError: ``sweeps`` is empty, or a sweep is too short, see :func:`steepest`.
    """
    if not sweeps:
        raise ValueError("`sweeps` is empty: a suggestion needs at least one.")
    found = {name: np.log10([rule(sweep.lrs, sweep.losses) for sweep in sweeps]) for name, rule in RULES.items()}
    rules = {name: float(10 ** np.median(logs)) for name, logs in found.items()}
    low, high = (float(10 ** extreme(found["upturn_eighth"])) for extreme in (np.min, np.max))
    return Suggestion(rules["upturn_eighth"], low, high, rules)


def verify(suggestion: Suggestion, train: Callable[[list[float]], Sequence[float]]) -> Suggestion:
    """Test a suggestion with short trainings, and replace it by a smaller learning rate if that is better.

    A training has 100 steps, in which the learning rate decreases linearly from its peak to zero. Its score is the mean
    loss of the last 25 steps. The peaks are the suggestion, its half and its quarter. As long as the lowest peak is the
    best, half of it is tested too, up to six trainings in total.

    This is needed where the loss of a sweep stays low up to very large rates, so that the rise comes too late: batch
    norm with adaptive optimizers. Larger peaks are not tested: the best rate of 100 steps can be too large for a longer
    training. (Tried: 4 and 8 times the suggestion for LeNet with SGD, which then leaves its plateau sooner; this was 2
    and 3 times the best rate of 400 steps.)

    Args:
        suggestion: Result of :func:`suggest`.
        train: Trains for one step at each of the given learning rates and returns the loss of each step, fewer if it
            diverges. Every call starts from the same weights and uses the same batches, so that the scores can be
            compared.

    Returns:
        The suggestion, with the best peak as its value, and with all peaks and scores in ``tested``. The interval of a
        replaced value consists of the neighbouring peaks.
    """
    peaks = [suggestion.value / 2**halvings for halvings in range(_VERIFIED)]
    scores: list[float] = []
    for peak in peaks:
        if len(scores) >= 3 and np.argmin(scores) < len(scores) - 1:
            break
        losses = train([peak * (1 - step / VERIFY_STEPS) for step in range(VERIFY_STEPS)])
        finished = len(losses) == VERIFY_STEPS and np.isfinite(losses[-1])
        scores.append(float(np.mean(losses[-(VERIFY_STEPS // 4) :])) if finished else np.inf)
    best = int(np.argmin(scores))  # the first, which is the highest peak, in a tie
    tested = tuple(zip(peaks, scores, strict=False))[::-1]
    if best == 0:
        return suggestion._replace(tested=tested)
    return Suggestion(peaks[best], peaks[min(best + 1, len(scores) - 1)], peaks[best - 1], suggestion.rules, tested)


def doubt(sweeps: Sequence[Sweep]) -> str:
    """Describe why the suggestion is uncertain, in a sentence without a capital; empty if the loss fell.

    The loss fell if it is lower than its start by 2 % and by more than the noise in at least half of the sweeps.

    Raises:
        ValueError: A sweep is too short, see :func:`steepest`.
    """
    curves = [_read(sweep.lrs, sweep.losses) for sweep in sweeps]
    fallen = [curve.drop > _FALLEN * abs(curve.start) for curve in curves]
    if 2 * sum(fallen) >= len(curves):
        return ""
    if any(_upturn(curve) is not None for curve in curves):
        return (
            "the loss never fell below its start, so only the divergence supports this suggestion: sweep longer "
            "(--num_steps)"
        )
    return "the loss neither fell nor rose: sweep longer (--num_steps) or to higher learning rates (--max_lr)"


class _Curve(NamedTuple):
    """A sweep prepared for the rules: evenly spaced over log10(lr), smoothed, cut off where it diverged."""

    log_lrs: Array
    losses: Array
    """Difference from the loss at the start."""
    noise: float
    """Standard deviation of a raw loss."""
    start: float
    """Loss at the start."""

    @property
    def drop(self) -> float:
        """Decrease of the loss below its start, without noise."""
        return float(max(0.0, -self.losses.min() - self.noise / 2))

    def lr_at(self, index: int | np.intp) -> float:
        return float(10 ** self.log_lrs[index])


def _read(lrs: ArrayLike, losses: ArrayLike) -> _Curve:
    lrs, losses = _check(lrs, losses)
    # Second differences, so that a slope is not noise; the median, so that a divergence is not noise.
    noise = 1.4826 * float(np.median(np.abs(np.diff(losses, 2)))) / 6**0.5
    log_lrs = np.linspace(np.log10(lrs[0]), np.log10(lrs[-1]), len(lrs))
    losses = np.interp(log_lrs, np.log10(lrs), losses)
    start = np.median(losses[: max(3, len(losses) // 10)])
    losses = losses - start
    # A divergence reaches 1e13: without the cap, smoothing would spread it to its neighbours.
    width = len(lrs) / 64
    drop = max(0.0, -float(gaussian_filter1d(np.minimum(losses, 6 * noise), width).min()))
    if drop == 0 and noise == 0:  # constant until it diverges
        noise = 1e-3 * float(np.ptp(losses))
    cap = max(drop, 6 * noise)
    smoothed: Array = gaussian_filter1d(np.minimum(losses, cap), width)
    # Losses after a divergence are ignored: the loss of a dead network is low and constant again.
    over = np.flatnonzero(smoothed > 0.9 * cap)
    end = len(lrs) if cap == 0 or not len(over) else max(int(over[0]) + 1, 2)
    return _Curve(log_lrs[:end], smoothed[:end], noise, float(start))


def _check(lrs: ArrayLike, losses: ArrayLike) -> tuple[Array, Array]:
    """Return both arrays as float64, without the steps whose loss is not finite."""
    lrs, losses = np.asarray(lrs, np.float64), np.asarray(losses, np.float64)
    if lrs.ndim != 1 or lrs.shape != losses.shape:
        raise ValueError(f"`lrs` {lrs.shape} and `losses` {losses.shape} must have the same length.")
    if not (np.isfinite(lrs).all() and (lrs > 0).all() and (np.diff(lrs) > 0).all()):
        raise ValueError("`lrs` must be positive and increase from step to step.")
    finite = np.isfinite(losses)
    if finite.sum() < MIN_STEPS:
        raise ValueError(
            f"A sweep with {finite.sum()} finite losses is too short: at least {MIN_STEPS} are needed. If it "
            "diverged immediately, lower `min_lr`."
        )
    return lrs[finite], losses[finite]


def _longest_fall(losses: Array) -> tuple[int, int]:
    """First and last index of the longest strictly falling subsequence (patience sorting); the first one in a tie."""
    tails: list[int] = []  # for each length, the index of the end of the subsequence that ends highest
    keys: list[float] = []  # -losses at tails, increasing
    begins = np.zeros(len(losses), np.int64)
    first = last = 0
    for index, loss in enumerate(losses):
        length = bisect_left(keys, -loss)
        begins[index] = begins[tails[length - 1]] if length else index
        if length == len(tails):
            tails.append(index)
            keys.append(-loss)
            first, last = int(begins[index]), index
        else:
            tails[length], keys[length] = index, -loss
    return first, last
