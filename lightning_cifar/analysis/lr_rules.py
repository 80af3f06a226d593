"""Rules of the learning-rate range test: each finds a learning rate from the curve of a sweep.

A rule uses the curve over log10(lr), and does not depend on scale and offset of the loss or on the unit of the rate. It
takes increasing learning rates (T,) and raw losses (T,), without those that are not finite, and raises a ValueError if
the arrays are invalid or fewer than 10 losses are finite. It smooths the losses without delay: an exponential mean with
beta 0.98 lags 50 steps behind, more than a decade of the usual sweep.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d

Array = NDArray[np.float64]

MIN_STEPS = 10
"""Number of steps of the shortest valid sweep."""

# Chosen on nine networks with several batch sizes and input scales, on drawn shapes of 16 pixels (other seeds than in
# benchmarks/lr_finder_rules.py, which uses 32): the best constant rate of a plain SGD training of 300 to 500 steps was
# a third to a twentieth of the upturn. Tried: a tenth of the rate at which the loss is back at its start, which fails
# where a BatchNorm keeps the loss low up to the end of the sweep.
UPTURN_RATIO = 8.0


def steepest(lrs: ArrayLike, losses: ArrayLike) -> float:
    """Learning rate at which the loss falls fastest over log10(lr); the first one if the loss never falls."""
    curve = read_curve(lrs, losses)
    slope = np.gradient(curve.losses, curve.log_lrs)
    if slope.min() >= -1e-9 * np.abs(slope).max():  # only rounding errors
        return curve.lr_at(0)
    return curve.lr_at(slope.argmin())


def valley(lrs: ArrayLike, losses: ArrayLike) -> float:
    """Middle, over log10(lr), of the longest falling subsequence of the smoothed losses."""
    curve = read_curve(lrs, losses)
    first, last = _longest_fall(curve.losses)
    return float(10 ** ((curve.log_lrs[first] + curve.log_lrs[last]) / 2))


def minimum_tenth(lrs: ArrayLike, losses: ArrayLike) -> float:
    """A tenth of the learning rate with the lowest smoothed loss, but at least the first learning rate."""
    curve = read_curve(lrs, losses)
    return max(curve.lr_at(curve.losses.argmin()) / 10, curve.lr_at(0))


def upturn_eighth(lrs: ArrayLike, losses: ArrayLike) -> float:
    """An eighth of the learning rate at which the smoothed loss has risen half-way from its minimum to its start.

    In a sweep that is too short to learn, the loss stays constant until it diverges. Its minimum and its steepest fall
    are then random, but the upturn is not. A rise counts if it exceeds the noise of the losses. Without a rise the
    upturn is the last learning rate.
    """
    curve = read_curve(lrs, losses)
    upturn = upturn_of(curve)
    return max(curve.lr_at(-1 if upturn is None else upturn) / UPTURN_RATIO, curve.lr_at(0))


def upturn_of(curve: Curve) -> int | None:
    """Index of the upturn, None if the loss does not rise back."""
    lowest = int(curve.losses.argmin())
    risen = np.flatnonzero(curve.losses[lowest:] > 1.5 * curve.noise - curve.drop / 2)
    return max(lowest + int(risen[0]) - 1, 0) if len(risen) else None


class Curve(NamedTuple):
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


def read_curve(lrs: ArrayLike, losses: ArrayLike) -> Curve:
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
    return Curve(log_lrs[:end], smoothed[:end], noise, float(start))


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


RULES: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "steepest": steepest,
    "valley": valley,
    "minimum_tenth": minimum_tenth,
    "upturn_eighth": upturn_eighth,
}
