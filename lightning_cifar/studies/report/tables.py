"""The words and numbers of a report: tables, sentences, settings that differ, classes, versions. No torch."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lightning_cifar.analysis.statistics import Difference
from lightning_cifar.plots import HeatMap, Interval, Table
from lightning_cifar.runs.metrics import read_result
from lightning_cifar.studies.report.comparison import Compared, Config
from lightning_cifar.studies.report.results import (
    ArmRow,
    RunResult,
    conclusions,
    is_share,
    number_text,
    p_text,
    range_text,
    share_range_text,
    spread_text,
)

_STATES = {"done": "done", "diverged": "diverged", "failed": "failed", "broken": "not finished", "waiting": "not begun"}
_FEW = 5
_DATA = (
    "data",
    *(f"data.{name}" for name in ("root", "num_train", "num_val", "val_share", "test_share", "split_seed")),
    *(f"data.{name}" for name in ("data_seed", "num_points", "noise", "slope", "class_names", "damaged")),
    *(f"trainer.{name}" for name in ("limit_train_batches", "limit_val_batches", "overfit_batches")),
)
_TRAINING = tuple(f"trainer.{name}" for name in ("max_epochs", "max_steps", "max_time"))
_UNEQUAL = {
    _DATA: "The arms do not have the same training and validation data, so that a difference between them may be one "
    "of their data",
    _TRAINING: "The arms do not train for the same time",
}
"""Settings that should be equal in all arms, and what to say where they are not."""


def scale_of(metric: str) -> tuple[float, str]:
    """Factor and unit in which a metric is told."""
    return (100.0, " %") if is_share(metric) else (1.0, "")


def count_states(runs: Sequence[RunResult]) -> str:
    """How many runs are in which state."""
    counts = Counter(_STATES[run.state] for run in runs)
    return ", ".join(f"{counts[word]} {word}" for word in _STATES.values() if counts[word])


def warnings_of(compared: Compared, rows: Sequence[ArmRow]) -> list[str]:
    """What a reader must know first: runs that are missing from the means, and what is too few."""
    found = [f"{note[0].upper()}{note[1:]}." for note in compared.notes]
    for keys, words in _UNEQUAL.items():
        if differing := _differences(compared.configs, keys):
            found.append(f"{words} ({'; '.join(differing)}).")
    for row in rows:
        bad = [f"{count} diverged" for count in [row.diverged] if count]
        bad += [f"{count} failed" for count in [row.failed] if count]
        if bad:
            total = row.n + row.diverged + row.failed
            found.append(
                f"{row.arm}: {' and '.join(bad)} of {total} runs. Its numbers are of the {row.n} that ended well, "
                "which flatters it."
                if row.n
                else f"{row.arm}: {' and '.join(bad)}; no run ended well."
            )
    open_runs = [run for run in compared.runs if run.state in ("broken", "waiting")]
    if open_runs:
        found.append(
            f"Not ended yet: {len(open_runs)} of {len(compared.runs)} runs. They are in the curves as far as they are, "
            "and not in the tables."
        )
    if any(row.n < 2 for row in rows):
        few = ", ".join(row.arm for row in rows if row.n < 2)
        found.append(f"Fewer than two finished runs, so no interval: {few}.")
    return found


def findings_of(compared: Compared, found: Sequence[Difference]) -> list[str]:
    """A summary, a sentence for each arm, and what all that does not say."""
    if not found:
        return ["There is one arm: there is nothing to compare it with."]
    missing = _missing(compared)
    there = [each for each in found if not {each.arm, each.baseline} & missing.keys()]
    lines = [*missing.values(), *conclusions(there, compared.metric, compared.mode)]
    known = [each for each in found if each.n >= 2]
    if len(found) > 1 and known:
        shown = sum(each.is_shown for each in known)
        lines.insert(
            0,
            f"{shown} of {len(found)} arms are shown to differ from {compared.baseline} in final {compared.metric}, "
            f"at a level of 5 % for all {len(found)} comparisons together.",
        )
    unclear = [each for each in known if not each.is_shown and math.isfinite(each.low)]
    if unclear:
        scale = scale_of(compared.metric)[0]
        unit = " points" if is_share(compared.metric) else ""
        widest = max((each.high - each.low) / 2 for each in unclear)
        lines.append(
            "That no difference is shown does not say that the arms are equal: with these runs a difference had to "
            f"exceed up to {number_text(scale * widest)}{unit} to be seen. More seeds make that smaller."
        )
    if any(each.n < _FEW for each in known):
        smallest = min(each.n for each in known)
        lines.append(
            f"With {smallest} seeds an interval rests on the assumption that differences between seeds are normally "
            "distributed, which so few cannot test."
        )
    equal = ["these settings"]
    equal += [] if _differences(compared.configs, _TRAINING) else ["this amount of training"]
    equal += [] if _differences(compared.configs, _DATA) else ["this data split"]
    scope = ", ".join(equal[:-1]) + " and " * (len(equal) > 1) + equal[-1]
    lines.append(
        f"It holds for {scope}. Seeds vary the initial weights and the order and augmentation of the images, not the "
        "images themselves."
    )
    return lines


def _missing(compared: Compared) -> dict[str, str]:
    """A sentence for each arm whose finished runs do not have the metric, by arm."""
    found = {}
    for arm in compared.arms:
        done = [run for run in compared.runs if run.arm == arm and run.state == "done"]
        names = {name for run in done for name in run.curves}
        if done and compared.metric not in names:
            similar = sorted(name for name in names if name.startswith(f"{compared.metric}/")) or sorted(names)
            others = ", ".join(similar[:_FEW]) + ", ..." * (len(similar) > _FEW)
            found[arm] = (
                f"{arm} cannot be compared: metrics.csv of its runs has no column {compared.metric}. It has {others}; "
                "pass --metric with a column that all arms have."
            )
    return found


def _differences(configs: Mapping[str, Config], keys: Sequence[str]) -> list[str]:
    """Settings, of these keys, that are known of several arms and not equal, with the values of the arms."""
    flat = {arm: _flatten(config) for arm, config in configs.items()}
    found = []
    for key in keys:
        values = {arm: settings[key] for arm, settings in flat.items() if key in settings}
        if key == "data.root":  # where an official data set lies changes nothing
            values = {arm: value for arm, value in values.items() if "Folder" in flat[arm].get("data", "")}
        if len(set(values.values())) > 1:
            found.append(f"{key}: {', '.join(f'{arm} {value}' for arm, value in values.items())}")
    return found


def results_table(compared: Compared, rows: Sequence[ArmRow]) -> Table:
    """A row for each arm."""
    scale, unit = scale_of(compared.metric)
    head = ["arm", "n*", f"final {compared.metric}{unit}*", "95 % interval*", f"best{unit}*", "95 % interval*"]
    if compared.target is not None:
        head += [f"epochs to {scale * compared.target:g}{unit}*", "seconds to it*", "reached*"]
    head.append("seconds a run*")
    cells = []
    for row in rows:
        count = f"{row.n}" + (f" + {row.diverged} diverged" if row.diverged else "")
        count += f" + {row.failed} failed" if row.failed else ""
        line = [row.arm, count]
        for mean, std, low, high in (row.final, row.best):
            interval = (share_range_text if unit else range_text)(scale * low, scale * high)
            line += [spread_text(scale * mean, scale * std), interval]
        if compared.target is not None:
            line += [number_text(row.epochs_to_target), number_text(row.seconds_to_target), f"{row.reached} of {row.n}"]
        cells.append([*line, number_text(row.seconds)])
    return Table(head, cells)


def differences_table(compared: Compared, found: Sequence[Difference]) -> tuple[Table, list[Interval]]:
    """A row for each arm but the baseline, and its interval as it is drawn."""
    scale, unit = scale_of(compared.metric)
    unit = " (points)" if unit else ""
    cells, intervals = [], []
    for each in found:
        mean, low, high = (scale * value for value in (each.mean, each.low, each.high))
        verdict = "nothing can be said" if each.n < 2 else "not shown"
        if each.is_shown:
            verdict = "better" if (each.mean > 0) == (compared.mode == "max") else "worse"
        interval = range_text(low, high, sign=True)
        cells.append([each.arm, f"{each.n}", number_text(mean, sign=True), interval, p_text(each.p), verdict])
        intervals.append(Interval(mean, low, high))
    head = ["arm", "pairs*", f"difference to {compared.baseline}{unit}*", "corrected interval*", "corrected p*", ""]
    return Table(head, cells), intervals


def runs_table(compared: Compared) -> Table:
    """A row for each run."""
    scale, unit = scale_of(compared.metric)
    rows = [
        [
            run.arm,
            f"{run.seed}",
            _STATES[run.state],
            number_text(scale * run.final(compared.metric)),
            number_text(scale * run.best(compared.metric, compared.mode)),
            number_text(run.seconds),
            run.error,
        ]
        for run in compared.runs
    ]
    return Table(["arm", "seed*", "state", f"final{unit}*", f"best{unit}*", "seconds*", ""], rows)


def class_map(compared: Compared) -> tuple[HeatMap | None, str]:
    """Mean final accuracy of each class over the finished runs of each arm, and what it is in words."""
    for part in dict.fromkeys((compared.metric.partition("/")[0], "val", "test")):
        prefix = f"{part}/accuracy/"
        names = [name for name in compared.metrics if name.startswith(prefix)]
        values = np.array([[_mean_final(compared, arm, name) for name in names] for arm in compared.arms])
        if names and np.isfinite(values).any():
            words = {"val": "validation", "train": "training"}.get(part, part)
            note = f"Final {words} accuracy of each class in percent, mean over the finished runs."
            return HeatMap(compared.arms, [name.removeprefix(prefix) for name in names], values), note
    return None, ""


def _mean_final(compared: Compared, arm: str, metric: str) -> float:
    values = [run.final(metric) for run in compared.runs if run.arm == arm]
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan


def settings_table(configs: Mapping[str, Config]) -> Table:
    """Settings that are not the same in all arms, a column for each arm; a dash where an arm has no such setting."""
    flat = {arm: _flatten(config) for arm, config in configs.items()}
    keys = dict.fromkeys(key for config in flat.values() for key in config)
    rows = [[key, *(config.get(key, "-") for config in flat.values())] for key in keys]
    return Table(["setting", *configs], [row for row in rows if len(set(row[1:])) > 1])


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in config.items():
        if not prefix and key == "seed_everything":
            continue
        name = prefix if key == "init_args" else f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, dict) and value:
            flat |= _flatten(value, name)
        elif key == "class_path":
            flat[name] = str(value).rsplit(".", 1)[-1]
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat


def machine_facts(compared: Compared) -> list[tuple[str, str]]:
    """Versions and machine, of all runs that noted them, and how many have which where they differ."""
    facts: dict[str, Counter[str]] = {"versions": Counter(), "machine": Counter()}
    for run in compared.runs:
        result = read_result(run.folder) or {}
        for name, counts in facts.items():
            held = result.get(name)
            if isinstance(held, dict):
                counts[", ".join(f"{key} {value}" for key, value in held.items())] += 1
    told = []
    for name, counts in facts.items():
        if len(counts) == 1:
            told.append((name, next(iter(counts))))
        told += [(name, f"{text} ({count} runs)") for text, count in counts.most_common() if len(counts) > 1]
    return told
