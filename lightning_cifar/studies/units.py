"""Units in which metrics and their differences are shown and read."""

from __future__ import annotations

import math
import re

from lightning_cifar.errors import UsageError


def is_share(metric: str) -> bool:
    """Whether a metric is a fraction that is shown in percent."""
    return "accuracy" in metric


def read_difference(given: object, metric: str, where: str) -> float:
    """Return a difference in the unit of a metric: ``0.5 points`` of an accuracy is 0.005.

    Args:
        given: number, with the unit ``points`` (percentage points) for an accuracy and without a unit otherwise.
        metric: the metric.
        where: name for messages.

    Raises:
        UsageError: If it is not a positive number, or the unit does not fit the metric.

    >>> read_difference("0.5 points", "val/accuracy", "margin"), read_difference(0.02, "val/loss", "margin")
    (0.005, 0.02)
    """
    found = re.fullmatch(r"([0-9.eE+-]+) ?(points?)?", str(given).strip())
    try:
        value = float(found[1]) if found else math.nan
    except ValueError:
        value = math.nan
    example = "0.5 points" if is_share(metric) else "0.02"
    if found is None or not 0 < value < math.inf:
        raise UsageError(f"{where} (={given}) must be a positive difference, such as {example}.")
    if is_share(metric) != bool(found[2]):
        unit = "percentage points" if is_share(metric) else "no unit"
        raise UsageError(f"{where} (={given}) does not fit {metric}, which has {unit}: write it like {example}.")
    if is_share(metric) and value >= 100:
        raise UsageError(f"{where} (={given}) must be below 100 points.")
    return value / 100 if is_share(metric) else value


def scale_of(metric: str) -> tuple[float, str]:
    """Return the factor and unit in which a metric is shown."""
    return (100.0, " %") if is_share(metric) else (1.0, "")


def unit_of(metric: str) -> str:
    """Return the unit of a difference, after a number."""
    return " points" if is_share(metric) else ""
