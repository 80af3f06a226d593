"""What a learning-rate range test says: a sweep's learning rates, its smoothed losses, and the rates that it suggests.

A sweep trains for T steps while the learning rate grows from step to step (Smith, 1506.01186); its curve is the loss
of each batch over the learning rate that the batch trained with. Learning rates act by ratio, so every rule here looks
at the curve over log10(lr), and does not change with the loss's scale and offset or with the unit of the rate.

The rules take the losses raw, as they were measured, and smooth them themselves, without delay: an exponential mean
lags behind, by a quarter of a decade and more at 40 steps a decade, which is fine for a picture and wrong for a rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.signal import lfilter

Array = NDArray[np.float64]

MIN_STEPS = 10
"""Shortest sweep that says anything."""


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
    """A learning rate, the interval that holds what repeated sweeps say, and what each rule says."""

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
    """Where the loss falls fastest by log10(lr)."""
    raise NotImplementedError


def valley(lrs: ArrayLike, losses: ArrayLike) -> float:
    """The middle, by log10(lr), of the longest stretch on which the loss falls."""
    raise NotImplementedError


def minimum_tenth(lrs: ArrayLike, losses: ArrayLike) -> float:
    """A tenth of where the loss is lowest, and no less than the first learning rate."""
    raise NotImplementedError


def suggest(sweeps: Sequence[Sweep]) -> Suggestion:
    """Our own suggestion."""
    raise NotImplementedError
