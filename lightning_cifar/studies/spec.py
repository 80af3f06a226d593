"""Specification of a study: base configuration, arms that override it, seeds and metric. Does not import torch."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lightning_cifar.configuration import find_config, flat_settings, list_configs, read_configuration
from lightning_cifar.errors import UsageError, did_you_mean
from lightning_cifar.files.paths import expand_user
from lightning_cifar.studies.overrides import Config, flatten, merge, short_name
from lightning_cifar.studies.tune_spec import Tuning, read_tuning
from lightning_cifar.studies.units import read_difference

_KEYS = (
    *("name", "question", "base", "arms", "grid", "seeds", "metric", "mode", "target", "baseline", "trunk"),
    *("margin", "compare", "looks", "tune"),
)
TRUNK = "trunk"  # name of the arm that is trained before the fork
_SAME = {
    "model": ("class_path", "optimizer", "decay_norm_and_bias"),
    "data": ("class_path", "num_train", "num_val", "split_seed"),
}
_MOST = 10_000  # arms, and seeds


@dataclass(frozen=True)
class Study:
    """A comparison of several arms with the same seeds.

    Attributes:
        name: name of the study and of its folder.
        question: question that the study answers, for the report.
        arms: name -> complete configuration of a ``fit``, without its seed.
        overrides: name -> settings of the arm that differ from the base, by dotted key.
        seeds: seeds of the runs of every arm.
        metric: column of metrics.csv that is compared.
        mode: whether a higher or a lower value is better.
        target: value for which the time until it is reached is measured; may be None.
        baseline: arm with which the others are compared.
        margin: largest difference that does not matter, in the unit of the metric; may be None.
        compare: whether the arms are compared with the baseline, or all with each other.
        looks: number of times that results may be looked at while seeds are added.
        tune: settings that are chosen for each arm first; may be None.
        trunk_epochs: epochs that are trained once per seed, from which all arms fork; 0 for none.
        trunk: configuration of these epochs, which is the base.
    """

    name: str
    question: str
    arms: dict[str, Config]
    overrides: dict[str, Config]
    seeds: tuple[int, ...]
    metric: str
    mode: Literal["max", "min"]
    target: float | None
    baseline: str
    margin: float | None = None
    compare: Literal["baseline", "all"] = "baseline"
    looks: int = 1
    tune: Tuning | None = None
    trunk_epochs: int = 0
    trunk: Config = field(default_factory=dict)

    def to_json(self) -> str:
        """Return a text that identifies the study; it does not contain the seeds, which may be extended."""
        held = {key: getattr(self, key) for key in ("name", "arms", "metric", "mode", "baseline")}
        for key, default in (("margin", None), ("compare", "baseline"), ("looks", 1)):
            if getattr(self, key) != default:
                held[key] = getattr(self, key)
        if self.tune is not None:
            held["tune"] = self.tune.held()
        if self.trunk_epochs:
            held[TRUNK] = {"epochs": self.trunk_epochs, "base": self.trunk}
        return json.dumps(held, indent=2, sort_keys=True) + "\n"

    def about(self) -> Config:
        """Return further information for a report, which may change without making it another study."""
        held = ("question", "target", "overrides")
        return {"arms": list(self.arms), "seeds": list(self.seeds)} | {key: getattr(self, key) for key in held}


def changes(before: str, now: str, most: int = 3) -> str:
    """Describe the difference between two results of :meth:`Study.to_json`; empty if one cannot be read.

    >>> changes('{"arms": {"a": {"lr": 1}}, "mode": "max"}', '{"arms": {"a": {"lr": 2}}, "mode": "max"}')
    'arms.a.lr was 1 and is 2'
    """
    try:
        old, new = (flat_settings(json.loads(text)) for text in (before, now))
    except (AttributeError, ValueError, RecursionError):
        return ""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    parts = [f"{name} was {old.get(name, 'absent')} and is {new.get(name, 'absent')}" for name in names[:most]]
    return "; ".join(parts) + (f"; and {len(names) - most} more" if len(names) > most else "")


def read_study(path: Path, *, seeds: int | None = None, settings: Sequence[tuple[str, object]] = ()) -> Study:
    """Read a study from YAML.

    Args:
        path: path of the file; its key ``base`` may be a path relative to the file's folder, or a list of paths.
        seeds: number of seeds; replaces that of the file.
        settings: dotted keys and values that override the base.

    Raises:
        UsageError: If the file is not a valid study.
    """
    path = Path(find_config(path.as_posix()))
    content = _read_yaml(path)
    for key in content:
        if key not in _KEYS:
            hint = did_you_mean(str(key), _KEYS)
            raise UsageError(f"{path}: {key!r} is not a key of a study.{hint} The keys are {', '.join(_KEYS)}.")
    base = merge(_base(path, content.get("base")), dict(settings), "--set")
    overrides = _overrides(path, content)
    arms = {name: merge(base, given, f"{path}: arm {name}") for name, given in overrides.items()}
    _refuse_equal(path, arms)
    trunk_epochs = _trunk_epochs(path, content.get(TRUNK), base, arms)
    numbers = _seeds(path, content.get("seeds", 5) if seeds is None else seeds)
    metric, mode = content.get("metric", "val/accuracy"), content.get("mode")
    if mode is None:
        mode = "min" if any(name in str(metric) for name in ("loss", "barrier", "sharpness")) else "max"
    if mode not in ("max", "min"):
        raise UsageError(f"{path}: mode (={mode}) must be max or min.")
    baseline = str(content.get("baseline", next(iter(arms))))
    if baseline not in arms:
        hint = did_you_mean(baseline, arms)
        raise UsageError(f"{path}: baseline (={baseline}) must be one of the arms {', '.join(arms)}.{hint}")
    target = content.get("target")
    if target is not None and (isinstance(target, bool) or not isinstance(target, int | float)):
        raise UsageError(f"{path}: target (={target}) must be a number, such as 0.6.")
    compare, looks = content.get("compare", "baseline"), content.get("looks", 1)
    if compare not in ("baseline", "all"):
        raise UsageError(f"{path}: compare (={compare}) must be baseline or all.")
    if isinstance(looks, bool) or not isinstance(looks, int) or not 1 <= looks <= 100:
        raise UsageError(f"{path}: looks (={looks}) must be the number of looks at the results, from 1 to 100.")
    margin, tune = content.get("margin"), None
    if content.get("tune") is not None:
        epochs = {arm.get("trainer", {}).get("max_epochs", 10) for arm in arms.values()}
        if trunk_epochs or len(epochs) > 1 or not isinstance(longest := epochs.pop(), int) or longest < 1:
            raise UsageError(f"{path}: tune needs arms with equal max_epochs, for equal budgets, and no trunk.")
        tune = read_tuning(content["tune"], overrides, numbers, longest, str(path))
    return Study(
        name=_name(path, content.get("name", path.stem)),
        question=str(content.get("question", "")),
        arms=arms,
        overrides=overrides,
        seeds=numbers,
        metric=str(metric),
        mode="max" if mode == "max" else "min",
        target=None if target is None else float(target),
        baseline=baseline,
        margin=None if margin is None else read_difference(margin, str(metric), f"{path}: margin"),
        compare=compare,
        looks=looks,
        tune=tune,
        trunk_epochs=trunk_epochs,
        trunk=base if trunk_epochs else {},
    )


def _read_yaml(path: Path) -> Config:
    if not path.is_file():
        hint = did_you_mean(path.as_posix(), list_configs())
        raise UsageError(f"the file {path} does not exist: the studies of the package are in configs/studies.{hint}")
    return read_configuration(path)


def _base(path: Path, given: object) -> Config:
    if given is None:
        raise UsageError(f"{path}: base is missing: add the common configuration of all arms, or its path.")
    parts = given if isinstance(given, list) else [given]
    base: Config = {}
    for part in parts:
        config = _read_yaml(path.parent / expand_user(part)) if isinstance(part, str) else part
        if not isinstance(config, dict):
            raise UsageError(f"{path}: base (={part}) must be settings, a path, or a list of them.")
        base = merge(base, flatten(config), f"{path}: base")
    if "model" not in base or "data" not in base:
        raise UsageError(f"{path}: base must contain model and data, with class_path.")
    base.pop("seed_everything", None)  # replaced by the seeds of the study
    return base


def _overrides(path: Path, content: Config) -> dict[str, Config]:
    """Return the dotted keys of each arm; the arms of a grid are named by their values."""
    if ("arms" in content) == ("grid" in content):
        raise UsageError(f"{path}: add arms (names with their settings) or a grid (settings with lists of values).")
    if "grid" in content:
        grid = content["grid"]
        if not isinstance(grid, dict) or not all(isinstance(values, list) and values for values in grid.values()):
            raise UsageError(f"{path}: grid must contain keys with lists of values, such as model.lr: [0.01, 0.1].")
        if math.prod(map(len, grid.values())) > _MOST:
            raise UsageError(f"{path}: grid has more than {_MOST:,} arms: use fewer values.")
        grid = {str(key): values for key, values in grid.items()}
        named = {}
        for values in itertools.product(*grid.values()):
            pairs = dict(zip(grid, values, strict=True))
            named[" ".join(f"{key.rsplit('.', 1)[-1]}={short_name(value)}" for key, value in pairs.items())] = pairs
        return named
    arms = content["arms"]
    if isinstance(arms, str):  # the arms of another study
        other = path.parent / expand_user(arms)
        arms = _read_yaml(other).get("arms")
    if not isinstance(arms, dict) or not arms:
        raise UsageError(f"{path}: arms must contain names with their settings, or be the path of a study with arms.")
    for name, given in arms.items():
        if not isinstance(given, dict) or not given:
            raise UsageError(f"{path}: arm {name} is empty: add its settings, such as model.schedule: constant.")
    return {_name(path, name): flatten(given) for name, given in arms.items()}


def _refuse_equal(path: Path, arms: dict[str, Config]) -> None:
    seen: dict[str, str] = {}
    for name, config in arms.items():
        text = json.dumps(config, sort_keys=True, default=str)
        if text in seen:
            raise UsageError(f"{path}: the arms {seen[text]} and {name} are equal: remove one, or change a setting.")
        seen[text] = name


def _trunk_epochs(path: Path, given: object, base: Config, arms: Mapping[str, Config]) -> int:
    """Return the epochs of the trunk, and refuse arms that cannot continue it."""
    if given is None:
        return 0
    epochs = given.get("epochs") if isinstance(given, dict) and len(given) == 1 else None
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
        raise UsageError(f"{path}: trunk (={given}) must be the number of its epochs, such as trunk: {{epochs: 10}}.")
    for name, arm in {TRUNK: base, **arms}.items():
        planned = arm.get("trainer", {}).get("max_epochs", 10)
        if isinstance(planned, int) and 0 <= planned <= epochs:
            raise UsageError(f"{path}: {name} has {planned} epochs: the trunk (={epochs} epochs) must be shorter.")
        for section, keys in _SAME.items():
            for key in keys:
                was, now = ({**each[section], **each[section].get("init_args", {})}.get(key) for each in (base, arm))
                if was != now:
                    raise UsageError(
                        f"{path}: arm {name} has another {section}.{key} than the trunk: use one, or no trunk."
                    )
    if TRUNK in arms:
        raise UsageError(f"{path}: the arm {TRUNK} has the name of the common epochs: rename it.")
    return epochs


def _seeds(path: Path, given: object) -> tuple[int, ...]:
    if isinstance(given, int) and given > _MOST:
        raise UsageError(f"{path}: seeds (={given}) must be at most {_MOST:,}.")
    numbers = list(range(given)) if isinstance(given, int) and not isinstance(given, bool) else given
    if not isinstance(numbers, list) or not all(isinstance(seed, int) and seed >= 0 for seed in numbers):
        raise UsageError(f"{path}: seeds (={given}) must be a number of seeds, or a list of seeds.")
    if not numbers:
        raise UsageError(f"{path}: seeds (={given}) must be at least 1; intervals need at least 2.")
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"{path}: seeds (={given}) contains a seed twice.")
    return tuple(numbers)


def _name(path: Path, given: object) -> str:
    name = str(given)
    if not re.fullmatch(r"[\w+=.,-][\w+=., -]*", name) or name.startswith("."):
        hint = "use letters, digits, + - = . , _ or spaces"
        raise UsageError(f"{path}: the name {name!r} is not a valid folder name: {hint}.")
    return name
