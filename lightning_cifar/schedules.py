"""Learning-rate schedules as a pure function of training progress.

A regime is a factor between ``final_lr`` and 1 by which the peak learning rate of each parameter group is multiplied:

============================  ==========================================================================
name                          settings
============================  ==========================================================================
constant                      ``schedule="constant"``
step                          ``schedule="step"``: drops after 1/2 and 3/4 of a cycle (He et al., 1512.03385)
exponential                   ``schedule="exponential"``
linear                        ``schedule="linear"`` (Li et al., 1905.04753)
cosine                        ``schedule="cosine"`` (Loshchilov & Hutter, 1608.03983)
one-cycle                     ``schedule="cosine", warmup=0.3`` (Smith & Topin, 1708.07120)
triangular                    ``schedule="linear", warmup=0.5, cycles=4`` (Smith, 1506.01186)
warm-restarts                 ``schedule="cosine", cycles=3, cycle_mult=2`` (1608.03983: cycles of 1, 2, 4)
============================  ==========================================================================

The last three are combinations. Their names are also values of ``schedule``.

>>> [round(lr_factor(t / 4, schedule="linear"), 2) for t in range(5)]
[1.0, 0.75, 0.5, 0.25, 0.0]
>>> lr_factor(0.1, schedule="one-cycle") == lr_factor(0.1, schedule="cosine", warmup=0.3)
True
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, TypedDict

Shape: TypeAlias = Literal["constant", "linear", "cosine", "exponential", "step"]
Schedule: TypeAlias = Shape | Literal["one-cycle", "triangular", "warm-restarts"]


class Regime(TypedDict, total=False):
    """Arguments of :func:`lr_factor`, which are also arguments of the models."""

    schedule: Schedule
    warmup: float | None
    cycles: int | None
    cycle_mult: float | None
    final_lr: float | None


REGIMES: dict[Schedule, Regime] = {
    "constant": {"schedule": "constant"},
    "step": {"schedule": "step"},
    "exponential": {"schedule": "exponential"},
    "linear": {"schedule": "linear"},
    "cosine": {"schedule": "cosine"},
    "one-cycle": {"schedule": "cosine", "warmup": 0.3},
    "triangular": {"schedule": "linear", "warmup": 0.5, "cycles": 4},
    "warm-restarts": {"schedule": "cosine", "cycles": 3, "cycle_mult": 2},
}
"""Settings by name. The name of a combination fixes ``warmup``, ``cycles`` and ``cycle_mult``."""

_DEFAULTS: Regime = {"warmup": 0.0, "cycles": 1, "cycle_mult": 1.0}
# Default of final_lr. For step, 0.01 means two drops by a factor of 10.
CUSTOMARY_FINAL_LR: dict[Shape, float] = {
    "constant": 0.0,
    "linear": 0.0,
    "cosine": 0.0,
    "exponential": 0.01,
    "step": 0.01,
}
STEP_DROPS = (0.5, 0.75)
# The longest cycle can be e ** 100 times as long as the shortest, which avoids overflow.
MAX_LOG_LENGTH = 100.0

# Progress that differs from the end of a cycle only by rounding belongs to the next cycle.
_ROUNDING = 1e-12


def check_regime(
    *,
    schedule: Schedule,
    warmup: float | None = None,
    cycles: int | None = None,
    cycle_mult: float | None = None,
    final_lr: float | None = None,
) -> tuple[Shape, float, int, float, float]:
    """Check the settings of a regime.

    Returns:
        The shape, ``warmup``, ``cycles``, ``cycle_mult`` and ``final_lr``, with the name of a combination resolved.

    Raises:
        ValueError: If a setting is out of range, or contradicts the combination.
    """
    if schedule not in REGIMES:
        raise ValueError(f"schedule (={schedule!r}) must be one of {', '.join(REGIMES)}.")
    named: dict[str, Any] = {**_DEFAULTS, **REGIMES[schedule]}
    shape: Shape = named["schedule"]
    given = {"warmup": warmup, "cycles": cycles, "cycle_mult": cycle_mult}
    for name, value in given.items():
        if value is not None and value != named[name]:
            if schedule != shape:
                means = ", ".join(f"{key} {setting}" for key, setting in REGIMES[schedule].items())
                raise ValueError(
                    f"{name} (={value}) contradicts schedule={schedule!r}, which means {means}: "
                    f"set {name} to null (--model.{name} null), or pass schedule {shape} with your own settings."
                )
            named[name] = value
    warmup, cycles, cycle_mult = (named[name] for name in given)
    _check_ranges(shape, warmup, cycles, cycle_mult, final_lr)
    return shape, warmup, cycles, cycle_mult, CUSTOMARY_FINAL_LR[shape] if final_lr is None else final_lr


def _check_ranges(shape: Shape, warmup: float, cycles: int, cycle_mult: float, final_lr: float | None) -> None:
    if not 0 <= warmup <= 1:
        raise ValueError(f"warmup (={warmup}) must be a fraction of the cycle, between 0 and 1.")
    if cycles < 1:
        raise ValueError(f"cycles (={cycles}) must be at least 1.")
    if not (math.isfinite(cycle_mult) and cycle_mult > 0):
        raise ValueError(f"cycle_mult (={cycle_mult}) must be a positive number.")
    if cycles * abs(math.log(cycle_mult)) > MAX_LOG_LENGTH:
        raise ValueError(
            f"cycle_mult (={cycle_mult}) ** cycles (={cycles}) is too large or too small: lower one of them."
        )
    if final_lr is None:
        return
    if not 0 <= final_lr <= 1:
        raise ValueError(f"final_lr (={final_lr}) must be a fraction of the peak, between 0 and 1.")
    if final_lr == 0 and shape in ("exponential", "step"):
        raise ValueError(f"final_lr (=0) must be above 0 for schedule={shape!r}, which decays by multiplication.")


def lr_factor(
    progress: float,
    *,
    schedule: Schedule = "constant",
    warmup: float | None = None,
    cycles: int | None = None,
    cycle_mult: float | None = None,
    final_lr: float | None = None,
) -> float:
    """Compute the learning rate at a point of training, as a fraction of the peak.

    Args:
        progress: Completed fraction of the training, in [0, 1]. Of ``n`` optimizer steps, the first has 0 and the last
            ``(n - 1) / n``.
        schedule: Shape of the decay, or the name of a combination (``one-cycle``, ``triangular``, ``warm-restarts``).
            The warm-up has the same shape for ``cosine``, and is linear otherwise.
        warmup: Fraction of each cycle for the warm-up from ``final_lr`` to the peak. None means 0, or the value of the
            combination.
        cycles: Number of cycles. None means 1, or the value of the combination.
        cycle_mult: Length of each cycle relative to the previous one. None means 1, or the value of the combination.
        final_lr: Lowest learning rate, as a fraction of the peak. None means 0.01 for ``exponential`` and ``step``, and
            0 otherwise.

    Returns:
        A factor in [``final_lr``, 1].

    Raises:
        ValueError: If a setting is out of range, or contradicts the combination.

    Example:
        >>> [round(lr_factor(t / 4, schedule="cosine"), 2) for t in range(5)]
        [1.0, 0.85, 0.5, 0.15, 0.0]
    """
    shape, warmup, cycles, cycle_mult, low = check_regime(
        schedule=schedule, warmup=warmup, cycles=cycles, cycle_mult=cycle_mult, final_lr=final_lr
    )
    position = _position_in_cycle(min(max(progress, 0.0), 1.0), cycles, cycle_mult)
    if position < warmup:
        up = position / warmup
        if shape == "cosine":
            up = (1 - math.cos(math.pi * up)) / 2
        return low + (1 - low) * up
    down = 1.0 if warmup == 1 else (position - warmup) / (1 - warmup)
    match shape:
        case "constant":
            return 1.0
        case "linear":
            return 1 - (1 - low) * down
        case "cosine":
            return low + (1 - low) * (1 + math.cos(math.pi * down)) / 2
        case "exponential":
            return float(low**down)
        case "step":
            drops = sum(down >= drop - _ROUNDING for drop in STEP_DROPS)
            return float(low ** (drops / len(STEP_DROPS)))


def _position_in_cycle(progress: float, cycles: int, cycle_mult: float) -> float:
    """Return the completed fraction of the current cycle, in [0, 1]; 1 only at the end of the training."""
    if cycles == 1:
        return progress
    lengths = [cycle_mult**i for i in range(cycles)]
    total = sum(lengths)
    start = 0.0
    for i, length in enumerate(lengths):
        end = (start + length) / total
        if progress < end - _ROUNDING or i == cycles - 1:
            break
        start += length
    return min(max((progress * total - start) / length, 0.0), 1.0)
