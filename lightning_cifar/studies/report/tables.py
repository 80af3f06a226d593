"""Tables and sentences of a report: results, differences, settings, classes and versions. Does not import torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_cifar.analysis.comparisons import Difference
from lightning_cifar.analysis.effects import bootstrap_interval, probability_of_improvement
from lightning_cifar.configuration import flat_settings
from lightning_cifar.plots import HeatMap, Interval, ReportTable
from lightning_cifar.runs.metrics import read_result
from lightning_cifar.studies.report.comparison import Compared, Config
from lightning_cifar.studies.report.planning import advice
from lightning_cifar.studies.report.results import (
    ArmRow,
    RunResult,
    conclusions,
    finals,
    mean_of,
    number_text,
    p_text,
    range_text,
    statistics_texts,
    target_texts,
)
from lightning_cifar.studies.units import scale_of, unit_of

_STATES = {
    "done": "done",
    "diverged": "diverged",
    "failed": "failed",
    "broken": "not finished",
    "waiting": "not started",
}
_FEW = 5
_ENOUGH, _MOST_RESAMPLED = 10, 50  # seeds for a bootstrap interval, and comparisons with one
_DATA = (
    "data",
    *(f"data.{name}" for name in ("root", "num_train", "num_val", "val_share", "test_share", "split_seed")),
    *(f"data.{name}" for name in ("data_seed", "num_points", "noise", "slope", "class_names", "damaged")),
    *(f"trainer.{name}" for name in ("limit_train_batches", "limit_val_batches", "overfit_batches")),
)
_TRAINING = tuple(f"trainer.{name}" for name in ("max_epochs", "max_steps", "max_time"))
_UNEQUAL = {
    _DATA: "The arms use different training or validation data, which may explain a difference between them",
    _TRAINING: "The arms do not have the same amount of training",
}
"""Settings that should be equal in all arms, with a warning if they are not."""


def count_states(runs: Sequence[RunResult]) -> str:
    """Return the number of runs in each state as text."""
    counts = Counter(_STATES[run.state] for run in runs)
    return ", ".join(f"{counts[word]} {word}" for word in _STATES.values() if counts[word])


def warnings_of(compared: Compared, rows: Sequence[ArmRow]) -> list[str]:
    """Return warnings: runs that are missing from the means, and arms with too few runs."""
    found = [f"{note[0].upper()}{note[1:]}." for note in compared.notes]
    for keys, warning in _UNEQUAL.items():
        if differing := _differences(compared.configs, keys):
            found.append(f"{warning} ({'; '.join(differing)}).")
    for row in rows:
        counts = ((row.diverged, "diverged"), (row.failed, "failed"))
        bad = " and ".join(f"{count} {state}" for count, state in counts if count)
        if bad and row.n:
            total = row.n + row.diverged + row.failed
            found.append(
                f"{row.arm}: {bad} of {total} runs. Its results contain only the {row.n} finished runs and are "
                "therefore optimistic."
            )
        elif bad:
            found.append(f"{row.arm}: {bad}; no run finished.")
    open_runs = [run for run in compared.runs if run.state in ("broken", "waiting")]
    if open_runs:
        found.append(
            f"{len(open_runs)} of {len(compared.runs)} runs are not finished. They are part of the curves, but not of "
            "the tables."
        )
    if any(row.n < 2 for row in rows):
        few = ", ".join(row.arm for row in rows if row.n < 2)
        found.append(f"Fewer than two finished runs, so no interval: {few}.")
    return found


def findings_of(compared: Compared, found: Sequence[Difference]) -> list[str]:
    """Return a summary, a conclusion for each comparison, and the limits of these conclusions."""
    if not found:
        return ["The report contains only one arm, so nothing is compared."]
    missing = _missing(compared)
    there = [each for each in found if not {each.arm, each.baseline} & missing.keys()]
    lines = [*missing.values(), *conclusions(there, compared.metric, compared.mode)]
    known = [each for each in found if each.n >= 2]
    if len(found) > 1 and known:
        shown = sum(each.is_shown for each in known)
        pairs = compared.rules.compare == "all"
        what = "pairs of arms differ significantly" if pairs else f"arms differ significantly from {compared.baseline}"
        lines.insert(
            0,
            f"{shown} of {len(found)} {what} in final {compared.metric}, at a level of 5 % for all {len(found)} "
            "comparisons together.",
        )
    lines += advice(compared.runs, compared.arms, compared.metric, compared.rules, found)
    if any(each.n < _FEW for each in known):
        smallest = min(each.n for each in known)
        lines.append(
            f"With {smallest} seeds, an interval depends on the assumption that differences between seeds are normally "
            "distributed, which cannot be tested with so few."
        )
    equal = ["these settings"]
    equal += [] if _differences(compared.configs, _TRAINING) else ["this amount of training"]
    equal += [] if _differences(compared.configs, _DATA) else ["this data split"]
    scope = ", ".join(equal[:-1]) + " and " * (len(equal) > 1) + equal[-1]
    lines.append(
        f"The results hold for {scope}. Seeds vary the initial weights and the order and augmentation of the images, "
        "not the images themselves."
    )
    return lines


def _missing(compared: Compared) -> dict[str, str]:
    """Return a sentence for each arm whose finished runs do not have the metric, by arm."""
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
    """Return the settings with these keys that differ between arms, with their values."""
    flat = _flat_settings(configs)
    found = []
    for key in keys:
        values = {arm: settings[key] for arm, settings in flat.items() if key in settings}
        if key == "data.root":  # the folder of an official data set does not matter
            values = {arm: value for arm, value in values.items() if "Folder" in flat[arm].get("data", "")}
        if len(set(values.values())) > 1:
            found.append(f"{key}: {', '.join(f'{arm} {value}' for arm, value in values.items())}")
    return found


def results_table(compared: Compared, rows: Sequence[ArmRow]) -> ReportTable:
    """Return a row for each arm."""
    scale, unit = scale_of(compared.metric)
    head = ["arm", "n*", f"final {compared.metric}{unit}*", "95 % interval*", f"best{unit}*", "95 % interval*"]
    if compared.target is not None:
        head += [f"epochs to {scale * compared.target:g}{unit}*", "seconds to it*", "reached*"]
    head.append("seconds per run*")
    cells = []
    for row in rows:
        line = [row.arm, row.counts]
        line += statistics_texts(row.final, compared.metric) + statistics_texts(row.best, compared.metric)
        line += [] if compared.target is None else target_texts(row)
        cells.append([*line, number_text(row.seconds)])
    return ReportTable(head, cells)


def differences_table(compared: Compared, found: Sequence[Difference]) -> tuple[ReportTable, list[Interval]]:
    """Return a row for each comparison, and the intervals to draw."""
    scale = scale_of(compared.metric)[0]
    has_margin, resampled = compared.rules.margin is not None, has_bootstrap(found)
    values = finals(compared.runs, compared.arms, compared.metric)
    level = 1 - 0.05 / max(len(found), 1) / compared.rules.looks
    cells, intervals = [], []
    for each in found:
        mean, low, high = (scale * value for value in (each.mean, each.low, each.high))
        row = [each.arm, each.baseline, f"{each.n}", number_text(mean, sign=True), range_text(low, high, sign=True)]
        row += [_bootstrap_text(values[each.arm], values[each.baseline], level, scale)] if resampled else []
        row += [p_text(each.p), *([p_text(each.p_equivalence)] if has_margin else [])]
        first, second = (_finite(values[arm]) for arm in (each.arm, each.baseline))
        share = (
            probability_of_improvement(first, second, higher_is_better=compared.mode == "max") if each.n else math.nan
        )
        row.append(number_text(100 * share))
        cells.append([*row, each.verdict(higher_is_better=compared.mode == "max")])
        intervals.append(Interval(mean, low, high))
    unit = " (points)" if unit_of(compared.metric) else ""
    head = ["arm", "compared with", "pairs*", f"difference{unit}*", "corrected interval*"]
    head += [*(["bootstrap interval*"] if resampled else []), "corrected p*"]
    head += [*(["p of equivalence*"] if has_margin else []), "better runs %*", "verdict"]
    return ReportTable(head, cells), intervals


def has_bootstrap(found: Sequence[Difference]) -> bool:
    """Whether there are enough seeds for bootstrap intervals."""
    return any(each.n >= _ENOUGH for each in found) and len(found) <= _MOST_RESAMPLED


def _bootstrap_text(first: Mapping[int, float], second: Mapping[int, float], level: float, scale: float) -> str:
    gaps = _finite({seed: value - second.get(seed, math.nan) for seed, value in first.items()})
    if len(gaps) < _ENOUGH or np.ptp(gaps) <= 1e-9:
        return "-"
    low, high = bootstrap_interval(gaps.tolist(), level)
    return range_text(scale * low, scale * high, sign=True)


def _finite(values: Mapping[int, float]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.array([value for value in values.values() if math.isfinite(value)])
    return found


def runs_table(compared: Compared) -> ReportTable:
    """Return a row for each run."""
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
    return ReportTable(["arm", "seed*", "state", f"final{unit}*", f"best{unit}*", "seconds*", ""], rows)


def class_map(compared: Compared) -> tuple[HeatMap | None, str]:
    """Return the mean final accuracy of each class over the finished runs of each arm, and a note."""
    for part in dict.fromkeys((compared.metric.partition("/")[0], "val", "test")):
        prefix = f"{part}/accuracy/"
        names = [name for name in compared.metrics if name.startswith(prefix)]
        by_arm = [[run for run in compared.runs if run.arm == arm] for arm in compared.arms]
        values = np.array([[mean_of([run.final(name) for run in runs]) for name in names] for runs in by_arm])
        if names and np.isfinite(values).any():
            split = {"val": "validation", "train": "training"}.get(part, part)
            note = f"Final {split} accuracy of each class in percent, mean over the finished runs."
            return HeatMap(compared.arms, [name.removeprefix(prefix) for name in names], values), note
    return None, ""


def settings_table(configs: Mapping[str, Config]) -> ReportTable:
    """Return the settings that differ between arms, with a column for each arm; a missing setting is a dash."""
    flat = _flat_settings(configs)
    keys = dict.fromkeys(key for config in flat.values() for key in config)
    rows = [[key, *(config.get(key, "-") for config in flat.values())] for key in keys]
    return ReportTable(["setting", *configs], [row for row in rows if len(set(row[1:])) > 1])


def _flat_settings(configs: Mapping[str, Config]) -> dict[str, dict[str, str]]:
    return {
        arm: flat_settings({key: value for key, value in config.items() if key != "seed_everything"})
        for arm, config in configs.items()
    }


def machine_facts(compared: Compared) -> list[tuple[str, str]]:
    """Return the recorded versions and machines, with the number of runs if they differ."""
    facts: dict[str, Counter[str]] = {"versions": Counter(), "machine": Counter()}
    for run in compared.runs:
        result = read_result(run.folder) or {}
        for name, counts in facts.items():
            held = result.get(name)
            if isinstance(held, dict):
                counts[", ".join(f"{key} {value}" for key, value in held.items())] += 1
    rows = []
    for name, counts in facts.items():
        if len(counts) == 1:
            rows.append((name, next(iter(counts))))
        rows += [(name, f"{text} ({count} runs)") for text, count in counts.most_common() if len(counts) > 1]
    return rows
