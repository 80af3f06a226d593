"""Number of seeds that a study needs, from its finished runs or from a given standard deviation. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lightning_cifar.analysis.comparisons import Difference, Rules
from lightning_cifar.analysis.planning import pooled_std, power_of_difference, power_of_equivalence, seeds_needed
from lightning_cifar.studies.report.results import RunResult, finals, mean_of, number_text
from lightning_cifar.studies.units import scale_of, unit_of

_POWER = 0.8
_FEW = 20  # seeds below which the uncertainty of a standard deviation is stated


class Spread(NamedTuple):
    """Standard deviation of the differences between two arms over seeds, in the unit of the metric."""

    std: float
    upper: float
    """Upper limit with 80 % confidence; equal to ``std`` if that was given."""
    seeds: int
    """Number of seeds from which it was estimated; 0 if it was given."""


def spread_of(values: Mapping[str, Mapping[int, float]], found: Sequence[Difference]) -> Spread | None:
    """Return the standard deviation over all comparisons of a study; None with fewer than two seeds."""
    variances, seeds = [], []
    for each in found:
        first, second = values[each.arm], values[each.baseline]
        differences = np.array([first[seed] - second.get(seed, math.nan) for seed in first])
        differences = differences[np.isfinite(differences)]
        if len(differences) > 1:
            variances.append(float(differences.var(ddof=1)))
            seeds.append(len(differences))
    if not variances or not any(variances):
        return None
    return Spread(*pooled_std(variances, min(seeds) - 1), min(seeds))


def advice(
    runs: Sequence[RunResult], arms: Sequence[str], metric: str, rules: Rules, found: Sequence[Difference]
) -> list[str]:
    """Return what a study without a verdict can detect, and how many seeds it would need; empty with all verdicts.

    The number of seeds is that for the margin, or else for half of what is detected now.
    """
    unclear = [each for each in found if each.verdict() == "not shown" and math.isfinite(each.low)]
    if not unclear:
        return []
    scale, unit = scale_of(metric)[0], unit_of(metric)
    widest = max((each.high - each.low) / 2 for each in unclear)
    lines = [
        "No significant difference does not mean that the arms are equal: with these runs, differences below "
        f"{number_text(scale * widest)}{unit} can remain undetected. With more seeds, this limit is smaller."
    ]
    spread = spread_of(finals(runs, arms, metric), found)
    if spread is None:
        return lines
    return lines + plan_lines(
        spread,
        widest / 2 if rules.margin is None else rules.margin,
        metric=metric,
        comparisons=len(found),
        looks=rules.looks,
        arms=len(arms),
        seconds=mean_of([run.seconds for run in runs if run.state == "done"]),
    )


def plan_lines(
    spread: Spread,
    detect: float,
    *,
    metric: str,
    comparisons: int,
    looks: int = 1,
    arms: int,
    seconds: float = math.nan,
    jobs: int = 1,
) -> list[str]:
    """Return how many seeds show a difference, or equivalence, with 80 % power, and how long that takes.

    Args:
        detect: Difference to detect, in the unit of the metric.
        seconds: Time of a run; NaN if it is unknown.
        jobs: Number of runs at the same time.
    """
    alpha, scale, unit = 0.05 / comparisons / looks, scale_of(metric)[0], unit_of(metric)
    size = f"{scale * detect:.3g}{unit}"
    source = f"from {spread.seeds} seeds" if spread.seeds else "given"
    if 0 < spread.seeds < _FEW:
        source += f", at most {number_text(scale * spread.upper)}{unit} with 80 % confidence"
    lines = [
        f"Standard deviation of the difference between two arms over seeds: {number_text(scale * spread.std)}{unit} "
        f"({source}).",
    ]
    for goal, power in (
        ("detect a difference of", power_of_difference),
        ("show that equal arms are equivalent within", power_of_equivalence),
    ):
        needed, most = (_seeds(power, detect, std, alpha) for std in (spread.std, spread.upper))
        known = "more than 100,000" if needed is None else f"{needed:,}"
        limit = "more than 100,000" if most is None else f"{most:,}"
        text = f"To {goal} {size} with {_POWER:.0%} power: {known} seeds"
        text += f" (up to {limit} with the upper limit of the standard deviation)" * (most != needed)
        if needed is not None and math.isfinite(seconds):
            text += f"; about {_duration(needed * arms * seconds / jobs)} for {arms} arms with {jobs} run(s) at a time"
        lines.append(f"{text}.")
    looked = f" and {looks} looks" if looks > 1 else ""
    lines.append(
        f"Each comparison is planned at a level of {alpha:.2g}: 5 % for {comparisons} comparison(s){looked} "
        "(Bonferroni), as if only one arm differs; Holm's method needs fewer seeds if several differ."
    )
    return lines


def _seeds(power: Callable[[int, float, float, float], float], detect: float, std: float, alpha: float) -> int | None:
    return seeds_needed(lambda n: power(n, detect, std, alpha), _POWER)


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"
