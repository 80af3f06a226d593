"""The key ``tune`` of a study file: settings that are chosen for each arm with the same budget."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_cifar.errors import UsageError, did_you_mean

Settings = dict[str, Any]

FIRST_SEED = 100_000  # of the tuning runs: above all numbers that a study counts to
_OPTIONS = ("seeds", "halving", "widen")
_MOST = 1000  # settings per arm


@dataclass(frozen=True)
class Tuning:
    """Settings that are tried for each arm.

    Attributes:
        values: key -> values; all combinations are tried.
        ranges: keys whose values are a geometric sequence -> ratio of neighbouring values.
        seeds: seeds of the tuning runs, none of which is a seed of the study.
        halving: epochs after which the worse half of the settings of an arm stops.
        widen: how many times the range is extended, for all arms, while the best value of an arm is at its end.
    """

    values: dict[str, list[Any]]
    ranges: dict[str, float]
    seeds: tuple[int, ...]
    halving: tuple[int, ...] = ()
    widen: int = 0

    def held(self) -> Settings:
        """Return the values that identify the tuning."""
        options = {"seeds": list(self.seeds), "halving": list(self.halving), "widen": self.widen}
        return self.values | options

    def combinations(self, values: Mapping[str, Sequence[Any]] | None = None) -> list[Settings]:
        """Return all combinations of values, by default of those of the file."""
        values = self.values if values is None else values
        return [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]

    def widened(self, values: Mapping[str, Sequence[Any]], key: str, *, upwards: bool) -> list[Any]:
        """Return the values of a key with one more beyond an end."""
        held, ratio = list(values[key]), self.ranges[key]
        return [*held, rounded(held[-1] * ratio)] if upwards else [rounded(held[0] / ratio), *held]


def rounded(value: float) -> float:
    """Round to three significant digits, as values are shown."""
    return float(f"{value:.3g}")


def read_tuning(
    given: object, overrides: Mapping[str, Mapping[str, Any]], seeds: Sequence[int], epochs: int, where: str
) -> Tuning:
    """Read the key ``tune``.

    Args:
        overrides: settings of the arms, none of which may be tuned.
        epochs: smallest number of epochs of an arm.
    """
    example = "tune: {model.lr: {low: 0.003, high: 0.3, num: 7}, seeds: 2}"
    if not isinstance(given, dict) or not set(given) - set(_OPTIONS):
        raise UsageError(f"{where}: tune (={given}) must contain a key with its range, such as {example}.")
    values, ranges = {}, {}
    for key, each in given.items():
        if key in _OPTIONS:
            continue
        if "." not in str(key):
            raise UsageError(f"{where}: tune: {key!r} is not a setting.{did_you_mean(str(key), _OPTIONS)}")
        values[str(key)], ratio = _values(each, f"{where}: tune: {key}")
        if ratio:
            ranges[str(key)] = ratio
        for arm, settings in overrides.items():
            if any(name.replace(".init_args", "") == key.replace(".init_args", "") for name in settings):
                raise UsageError(f"{where}: arm {arm} fixes {key}, which is tuned: remove it from one of them.")
    count = math.prod(map(len, values.values()))
    if not 2 <= count <= _MOST:
        raise UsageError(f"{where}: tune has a budget of {count} setting(s) per arm: use 2 to {_MOST:,}.")
    halving, widen = given.get("halving", []), given.get("widen", 0)
    if not isinstance(halving, list) or not all(_is_count(each) and each < epochs for each in halving):
        raise UsageError(f"{where}: tune: halving (={halving}) must be a list of epochs below {epochs}, such as [2].")
    if halving != sorted(set(halving)):
        raise UsageError(f"{where}: tune: halving (={halving}) must increase.")
    if widen != 0 and not (_is_count(widen) and ranges):
        raise UsageError(f"{where}: tune: widen (={widen}) must be how many times a range may be extended.")
    return Tuning(values, ranges, _seeds(given.get("seeds", 2), seeds, where), tuple(halving), widen)


def _values(given: object, where: str) -> tuple[list[Any], float]:
    """Return the values of a key, and the ratio of neighbours if it is a range."""
    if isinstance(given, list):
        if not given or len({str(each) for each in given}) < len(given):
            raise UsageError(f"{where} (={given}) must be a list of different values.")
        return given, 0.0
    if not isinstance(given, dict) or set(given) != {"low", "high", "num"}:
        raise UsageError(f"{where} (={given}) must be a list of values, or {{low: 0.003, high: 0.3, num: 7}}.")
    low, high, num = (given[key] for key in ("low", "high", "num"))
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (low, high))
    if not numbers or not 0 < low < high < math.inf:
        raise UsageError(f"{where}: low (={low}) must be positive and below high (={high}): the steps are factors.")
    if not _is_count(num) or not 2 <= num <= _MOST:
        raise UsageError(f"{where}: num (={num}) must be the number of values, from 2 to {_MOST:,}.")
    ratio = (high / low) ** (1 / (num - 1))
    return [low, *(rounded(low * ratio**i) for i in range(1, num - 1)), high], ratio


def _seeds(given: object, seeds: Sequence[int], where: str) -> tuple[int, ...]:
    numbers = list(range(FIRST_SEED, FIRST_SEED + given)) if isinstance(given, int) and 0 < given <= _MOST else given
    if not isinstance(numbers, list) or not numbers or not all(_is_count(each + 1) for each in numbers):
        raise UsageError(f"{where}: tune: seeds (={given}) must be a number of seeds, or a list of seeds.")
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"{where}: tune: seeds (={given}) contains a seed twice.")
    if both := sorted(set(numbers) & set(seeds)):
        raise UsageError(
            f"{where}: tune: seed {both[0]} is also a seed of the study, whose results the choice would favour: use "
            "others."
        )
    return tuple(numbers)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
