"""What a learning-rate range test says: a sweep's learning rates, its smoothed losses, and the rates that it suggests.

A sweep trains for T steps while the learning rate grows from step to step (Smith, 1506.01186); its curve is the loss
of each batch over the learning rate that the batch trained with. Learning rates act by ratio, so every rule here looks
at the curve over log10(lr), and does not change with the loss's scale and offset or with the unit of the rate.

The rules take the losses raw, as they were measured, and smooth them themselves, without delay: an exponential mean
with beta 0.98 lags 50 steps behind, more than a decade of the usual sweep, which is fine for a picture and wrong for a
rule.
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
"""Shortest sweep that says anything."""

# Chosen on nine networks with several batch sizes and input scales, on drawn shapes of 16 pixels (other seeds than in
# benchmarks/lr_finder_rules.py, which uses 32): the best constant rate of a plain SGD training of 300 to 500 steps was
# a third to a twentieth of the upturn. Tried: a tenth of where the loss is all the way back, which fails where a
# BatchNorm keeps it low up to the end of the sweep.
UPTURN_RATIO = 8.0
_FALLEN = 0.02  # of the loss at the start: less is no learning


class Sweep(NamedTuple):
    """One sweep: arrays (T,) as float64, T up to the number of steps asked for."""

    lrs: Array
    """What each step trained with, increasing."""
    losses: Array
    """As measured; the last one of a diverged sweep may be NaN or infinite."""
    smoothed: Array
    """``smooth(losses)``."""
    diverged: bool
    seed: int


class Suggestion(NamedTuple):
    """A learning rate, and the interval from the lowest to the highest that a single sweep suggests."""

    value: float
    low: float
    high: float
    rules: dict[str, float]
    """Name of a rule -> its learning rate, the median over the sweeps."""


def sweep_lrs(
    min_lr: float, max_lr: float, num_steps: int, spacing: Literal["geometric", "linear"] = "geometric"
) -> Array:
    """Learning rates (num_steps,) that begin exactly at ``min_lr`` and end exactly at ``max_lr``.

    Raises:
        ValueError: If a rate is not positive and finite, the two are not in order, or ``num_steps`` is below 10.
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
    """Exponential mean of losses (T,), for the eye: ``(1 - beta) sum_k beta^(t - k) losses_k / (1 - beta^t)``.

    The division, by the sum of the weights of what was seen so far, corrects the start: the first value is the first
    loss. A loss that is not finite gives NaN in its place and leaves the mean as it is.

    Raises:
        ValueError: If ``beta`` is outside [0, 1).
    """
    if not 0 <= beta < 1:
        raise ValueError(f"`beta` (={beta}) must be at least 0 and below 1.")
    losses = np.asarray(losses, np.float64)
    finite = np.isfinite(losses)
    values = losses[finite]
    smoothed: Array = np.full(losses.shape, np.nan)
    if len(values):
        weights = 1 - beta ** np.arange(1, len(values) + 1)
        # The first loss is taken out and put back, so that equal losses come out exactly as they went in.
        smoothed[finite] = values[0] + lfilter([1 - beta], [1, -beta], values - values[0]) / weights
    return smoothed


def has_diverged(losses: ArrayLike, factor: float = 4.0, beta: float = 0.98) -> bool:
    """Whether a sweep is over: a loss is not finite, or the last smoothed one is above ``factor`` times the best.

    Meant to be asked after each step. ``factor`` counts from zero, as it should for a loss that is never negative.

    Raises:
        ValueError: If ``factor`` is not above 1 or ``beta`` is outside [0, 1).
    """
    if not factor > 1:
        raise ValueError(f"`factor` (={factor}) must be above 1.")
    losses = np.asarray(losses, np.float64)
    if not np.isfinite(losses).all():
        return True
    smoothed = smooth(losses, beta)
    return bool(len(smoothed)) and bool(smoothed[-1] > factor * smoothed.min())


def steepest(lrs: ArrayLike, losses: ArrayLike) -> float:
    """Where the loss falls fastest by log10(lr); the first learning rate if it never falls.

    Like each rule here: ``lrs`` (T,) are increasing, ``losses`` (T,) raw. Losses that are not finite are left out.

    Raises:
        ValueError: If the arrays are not such, or hold fewer than 10 finite losses.
    """
    curve = _read(lrs, losses)
    slope = np.gradient(curve.losses, curve.log_lrs)
    # Rounding makes slopes of its own.
    if slope.min() >= -1e-9 * np.abs(slope).max():
        return curve.lr_at(0)
    return curve.lr_at(slope.argmin())


def valley(lrs: ArrayLike, losses: ArrayLike) -> float:
    """The middle, by log10(lr), of the longest falling subsequence of the smoothed losses.

    Raises:
        ValueError: As :func:`steepest`.
    """
    curve = _read(lrs, losses)
    first, last = _longest_fall(curve.losses)
    return float(10 ** ((curve.log_lrs[first] + curve.log_lrs[last]) / 2))


def minimum_tenth(lrs: ArrayLike, losses: ArrayLike) -> float:
    """A tenth of where the smoothed loss is lowest, and no less than the first learning rate.

    Raises:
        ValueError: As :func:`steepest`.
    """
    curve = _read(lrs, losses)
    return max(curve.lr_at(curve.losses.argmin()) / 10, curve.lr_at(0))


def upturn_eighth(lrs: ArrayLike, losses: ArrayLike) -> float:
    """An eighth of where the smoothed loss has risen half-way back from its minimum to where it began.

    On a sweep too short to learn anything the loss stays where it began until it diverges, and where it is lowest or
    falls fastest is an accident; the upturn is not. A rise counts if the noise of the losses does not explain it.
    Without one the upturn is the last learning rate, and a wider sweep would know more.

    Raises:
        ValueError: As :func:`steepest`.
    """
    curve = _read(lrs, losses)
    upturn = _upturn(curve)
    return max(curve.lr_at(-1 if upturn is None else upturn) / UPTURN_RATIO, curve.lr_at(0))


def _upturn(curve: _Curve) -> int | None:
    """The place of the upturn, None where the loss does not rise back."""
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
    """The median by log10(lr) over the sweeps of :func:`upturn_eighth`, its extremes, and every rule's median.

    Raises:
        ValueError: If there is no sweep, or one is too short, see :func:`steepest`.
    """
    if not sweeps:
        raise ValueError("`sweeps` is empty: a suggestion needs at least one.")
    found = {name: np.log10([rule(sweep.lrs, sweep.losses) for sweep in sweeps]) for name, rule in RULES.items()}
    rules = {name: float(10 ** np.median(logs)) for name, logs in found.items()}
    low, high = (float(10 ** extreme(found["upturn_eighth"])) for extreme in (np.min, np.max))
    return Suggestion(rules["upturn_eighth"], low, high, rules)


def doubt(sweeps: Sequence[Sweep]) -> str:
    """Why the suggestion is to be taken with care, in a sentence without a capital; empty where nothing is known.

    The loss counts as fallen if it was lower than its start by 2 % and more than the noise explains, in at least half
    of the sweeps.

    Raises:
        ValueError: A sweep is too short, see :func:`steepest`.
    """
    curves = [_read(sweep.lrs, sweep.losses) for sweep in sweeps]
    fallen = [curve.drop > _FALLEN * abs(curve.start) for curve in curves]
    if 2 * sum(fallen) >= len(curves):
        return ""
    if any(_upturn(curve) is not None for curve in curves):
        return (
            "the loss never fell below its start, so this rests on the divergence alone: take it with care, or sweep "
            "longer (--num_steps)"
        )
    return "the loss neither fell nor rose, so this says nothing: sweep longer (--num_steps) or further (--max_lr)"


class _Curve(NamedTuple):
    """A sweep made fit for the rules: evenly spaced by log10(lr), smoothed, cut where it diverged."""

    log_lrs: Array
    losses: Array
    """Above the start: the start is 0."""
    noise: float
    """Standard deviation of a raw loss."""
    start: float
    """The loss there."""

    @property
    def drop(self) -> float:
        """How far the loss fell below its start, without what is noise."""
        return float(max(0.0, -self.losses.min() - self.noise / 2))

    def lr_at(self, index: int | np.intp) -> float:
        return float(10 ** self.log_lrs[index])


def _read(lrs: ArrayLike, losses: ArrayLike) -> _Curve:
    lrs, losses = _check(lrs, losses)
    # Of second differences, so that a slope is not taken for noise; the median, so that a divergence is not.
    noise = 1.4826 * float(np.median(np.abs(np.diff(losses, 2)))) / 6**0.5
    log_lrs = np.linspace(np.log10(lrs[0]), np.log10(lrs[-1]), len(lrs))
    losses = np.interp(log_lrs, np.log10(lrs), losses)
    start = np.median(losses[: max(3, len(losses) // 10)])  # by log10(lr)
    losses = losses - start
    # A divergence reaches 1e13: all above the cap is equally bad, or it would leak into its neighbours.
    width = len(lrs) / 64
    drop = max(0.0, -float(gaussian_filter1d(np.minimum(losses, 6 * noise), width).min()))
    if drop == 0 and noise == 0:  # calm until it diverges
        noise = 1e-3 * float(np.ptp(losses))
    cap = max(drop, 6 * noise)
    smoothed: Array = gaussian_filter1d(np.minimum(losses, cap), width)
    # What comes after a divergence says nothing: a dead network's loss is low and calm again.
    over = np.flatnonzero(smoothed > 0.9 * cap)
    end = len(lrs) if cap == 0 or not len(over) else max(int(over[0]) + 1, 2)
    return _Curve(log_lrs[:end], smoothed[:end], noise, float(start))


def _check(lrs: ArrayLike, losses: ArrayLike) -> tuple[Array, Array]:
    """The two as float64, without the places where the loss is not finite."""
    lrs, losses = np.asarray(lrs, np.float64), np.asarray(losses, np.float64)
    if lrs.ndim != 1 or lrs.shape != losses.shape:
        raise ValueError(f"`lrs` {lrs.shape} and `losses` {losses.shape} must be of one and the same length.")
    if not (np.isfinite(lrs).all() and (lrs > 0).all() and (np.diff(lrs) > 0).all()):
        raise ValueError("`lrs` must be positive and increase from step to step.")
    finite = np.isfinite(losses)
    if finite.sum() < MIN_STEPS:
        raise ValueError(
            f"A sweep with {finite.sum()} finite losses is too short, {MIN_STEPS} are needed: if it diverged at once, "
            "lower `min_lr`."
        )
    return lrs[finite], losses[finite]


def _longest_fall(losses: Array) -> tuple[int, int]:
    """First and last index of the longest strictly falling subsequence (patience sorting); the first one of equals."""
    tails: list[int] = []  # of the subsequences of each length the one that ends highest, by index
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
