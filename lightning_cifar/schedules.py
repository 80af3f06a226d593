"""Learning-rate regimes: one pure function of training progress.

A regime is a shape between ``final_lr`` and 1, by which the peak learning rate of every parameter group is multiplied:

============================  ==========================================================================
usual name                    settings
============================  ==========================================================================
constant                      ``schedule="constant"``
step decay                    ``schedule="step"``: drops after 1/2 and 3/4 of a cycle (He et al., 1512.03385)
exponential decay             ``schedule="exponential"``
linear decay                  ``schedule="linear"`` (Li et al., 1905.04753)
cosine annealing              ``schedule="cosine"`` (Loshchilov & Hutter, 1608.03983)
one-cycle                     ``schedule="cosine", warmup=0.3`` (Smith & Topin, 1708.07120)
triangular cyclic             ``schedule="linear", warmup=0.5, cycles=4`` (Smith, 1506.01186)
cosine with warm restarts     ``schedule="cosine", cycles=3, cycle_mult=2`` (1608.03983: cycles of 1, 2, 4)
============================  ==========================================================================

>>> [round(lr_factor(t / 4, schedule="linear"), 2) for t in range(5)]
[1.0, 0.75, 0.5, 0.25, 0.0]
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

Schedule: TypeAlias = Literal["constant", "linear", "cosine", "exponential", "step"]

# Where a regime ends by custom, as a fraction of the peak. One hundredth is two drops to a tenth.
CUSTOMARY_FINAL_LR: dict[Schedule, float] = {
    "constant": 0.0,
    "linear": 0.0,
    "cosine": 0.0,
    "exponential": 0.01,
    "step": 0.01,
}
STEP_DROPS = (0.5, 0.75)
# The longest cycle may be e ** 100 times as long as the shortest, which is far beyond use and well within floats.
MAX_LOG_LENGTH = 100.0

# Progress that differs from the edge of a cycle by rounding alone belongs to the next cycle.
_ROUNDING = 1e-12


def check_regime(
    *, schedule: Schedule, warmup: float = 0.0, cycles: int = 1, cycle_mult: float = 1.0, final_lr: float | None = None
) -> None:
    """Refuse settings that are not a regime.

    Raises:
        ValueError: naming the setting, its value and what it must be.
    """
    if schedule not in CUSTOMARY_FINAL_LR:
        raise ValueError(f"schedule (={schedule!r}) must be one of {', '.join(CUSTOMARY_FINAL_LR)}.")
    if not 0 <= warmup <= 1:
        raise ValueError(f"warmup (={warmup}) must be a fraction of the cycle, between 0 and 1.")
    if cycles < 1:
        raise ValueError(f"cycles (={cycles}) must be at least 1.")
    if not (math.isfinite(cycle_mult) and cycle_mult > 0):
        raise ValueError(f"cycle_mult (={cycle_mult}) must be a positive number.")
    if cycles * abs(math.log(cycle_mult)) > MAX_LOG_LENGTH:
        raise ValueError(
            f"cycle_mult (={cycle_mult}) ** cycles (={cycles}) is out of all proportion: lower one of them."
        )
    if final_lr is None:
        return
    if not 0 <= final_lr <= 1:
        raise ValueError(f"final_lr (={final_lr}) must be a fraction of the peak, between 0 and 1.")
    if final_lr == 0 and schedule in ("exponential", "step"):
        raise ValueError(f"final_lr (=0) must be above 0 for schedule={schedule!r}, which multiplies its way down.")


def lr_factor(
    progress: float,
    *,
    schedule: Schedule = "constant",
    warmup: float = 0.0,
    cycles: int = 1,
    cycle_mult: float = 1.0,
    final_lr: float | None = None,
) -> float:
    """Fraction of the peak learning rate at a point of training.

    Args:
        progress: Done part of training, in [0, 1]. The first of ``n`` optimizer steps trains at 0, the last at
            ``(n - 1) / n``.
        schedule: Shape of the way down. The way up, if any, has the same shape for ``cosine`` and is a line otherwise.
        warmup: Part of each cycle spent on the way up, from ``final_lr`` to the peak.
        cycles: Number of cycles. Each starts anew.
        cycle_mult: Length of a cycle over the length of the one before.
        final_lr: Lowest point, as a fraction of the peak. None is the schedule's custom: 0 for ``linear`` and
            ``cosine``, 0.01 for ``exponential`` and ``step``, and for ``constant`` the start of the way up: 0.

    Returns:
        A factor in [``final_lr``, 1].

    Raises:
        ValueError: If a setting is out of its range.
    """
    check_regime(schedule=schedule, warmup=warmup, cycles=cycles, cycle_mult=cycle_mult, final_lr=final_lr)
    low = CUSTOMARY_FINAL_LR[schedule] if final_lr is None else final_lr
    position = _position_in_cycle(min(max(progress, 0.0), 1.0), cycles, cycle_mult)
    if position < warmup:
        up = position / warmup
        if schedule == "cosine":
            up = (1 - math.cos(math.pi * up)) / 2
        return low + (1 - low) * up
    down = 1.0 if warmup == 1 else (position - warmup) / (1 - warmup)
    match schedule:
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
    """Done part of the running cycle, in [0, 1]; 1 only at the very end of training."""
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
