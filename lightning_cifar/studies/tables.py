"""A study as tables of pandas or polars."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from lightning_cifar.configuration import flat_settings
from lightning_cifar.errors import UsageError
from lightning_cifar.files.paths import expand_user
from lightning_cifar.studies.report.comparison import compare

Library = Literal["pandas", "polars"]


class StudyTables(NamedTuple):
    """Tables of a study, which share the columns ``arm`` and ``seed``."""

    settings: Any
    """A row for each arm: its settings by dotted key, as text; missing where it has no such setting."""
    metrics: Any
    """A row for each run: state, seconds, and the last value of each metric; missing in runs that are not done."""
    curves: Any
    """A row for each logged value: ``arm``, ``seed``, ``metric``, ``step``, ``epoch``, ``seconds``, ``value``."""


def load_study(folder: str | Path, library: Library = "pandas") -> StudyTables:
    """Read a study, finished or not, as tables.

    Args:
        folder: Folder of the study, or of one run.
        library: ``pandas`` or ``polars``, which must be installed.

    Raises:
        UsageError: If the folder is not a study, or the library is not installed.

    Example:
        >>> from lightning_cifar import load_study
        >>> load_study("runs/studies/none")
        Traceback (most recent call last):
        lightning_cifar.errors.UsageError: the folder runs/studies/none does not exist: pass the folder of a study, ...
    """
    found = compare([expand_user(folder)])
    try:
        frame = importlib.import_module(library).DataFrame
    except ImportError as error:
        raise UsageError(f"load_study needs {library}: pip install {library}, or pass library='polars'.") from error
    configs = {arm: flat_settings(config) for arm, config in found.configs.items()}
    keys = dict.fromkeys(key for config in configs.values() for key in config if key != "seed_everything")
    settings: dict[str, list[Any]] = {"arm": list(configs)}
    settings |= {key: [config.get(key) for config in configs.values()] for key in keys}
    metrics: dict[str, Any] = {name: [getattr(run, name) for run in found.runs] for name in ("arm", "seed", "state")}
    metrics["seconds"] = [run.seconds for run in found.runs]
    metrics |= {name: [run.final(name) for run in found.runs] for name in found.metrics}
    return StudyTables(frame(settings), frame(metrics), frame(_curves(found.runs)))


def _curves(runs: Any) -> Mapping[str, Any]:
    parts = [(run, name, curve) for run in runs for name, curve in run.curves.items()]
    counts = [len(curve.value) for _, _, curve in parts]
    columns: dict[str, Any] = {
        "arm": np.repeat([run.arm for run, _, _ in parts], counts),
        "seed": np.repeat([run.seed for run, _, _ in parts], counts),
        "metric": np.repeat([name for _, name, _ in parts], counts),
    }
    for field in ("step", "epoch", "seconds", "value"):
        columns[field] = np.concatenate([getattr(curve, field) for _, _, curve in parts])
    return columns
