"""Read the folder of a study, or single run folders, as arms x seeds for a report. Does not import torch."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lightning_cifar.analysis.comparisons import Compare, Rules
from lightning_cifar.errors import UsageError, did_you_mean
from lightning_cifar.files.links import inside
from lightning_cifar.files.reading import MissingFileError, UnreadableFileError, read_json, read_whole_json
from lightning_cifar.runs.metrics import read_result
from lightning_cifar.studies.jobs import ABOUT, STUDY, AboutRecord, Job, StudyRecord, notes_on_looks
from lightning_cifar.studies.report.results import RunResult, read_run, trunk_text
from lightning_cifar.studies.report.run_folders import name_of, read_config, read_single, training_runs
from lightning_cifar.studies.spec import TRUNK
from lightning_cifar.studies.tuning import TUNING, TuningRecord

Config = dict[str, Any]
Mode = Literal["max", "min"]

_METRICS = ("val/accuracy", "val/loss", "train/accuracy", "train/loss")


@dataclass(frozen=True)
class Compared:
    """Runs to compare, and the criterion.

    Attributes:
        title: title of the report.
        question: question that the study answers; may be empty.
        arms: names of the arms in their order.
        runs: all runs, including those that have not started.
        metric: metric that is compared.
        mode: whether a higher or a lower value is better.
        target: value for which the time until it is reached is measured.
        baseline: arm with which the others are compared.
        configs: arm -> configuration, complete if it is known.
        rules: how the arms are compared.
        seen: numbers of seeds for which results were seen, in their order; empty for single runs.
        overrides: arm -> settings of the study file; empty for single runs.
        tuning: content of tuning.json; None for a study without tuning.
        command: command that started the runs; empty if unknown.
        notes: warnings for the reader.
        saved: sentence about the time that the trunk of a study saved; empty without a trunk.
    """

    title: str
    question: str
    arms: list[str]
    runs: list[RunResult] = field(repr=False)
    metric: str
    mode: Mode
    target: float | None
    baseline: str
    configs: dict[str, Config] = field(repr=False)
    rules: Rules = field(default_factory=Rules)
    seen: list[int] = field(default_factory=list)
    overrides: Mapping[str, Config] = field(default_factory=dict, repr=False)
    tuning: TuningRecord | None = None
    command: str = ""
    notes: list[str] = field(default_factory=list)
    saved: str = ""

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics of all runs."""
        return sorted({name for run in self.runs for name in run.curves})


def compare(
    folders: Sequence[Path],
    *,
    metric: str | None = None,
    mode: Mode | None = None,
    target: float | None = None,
    baseline: str | None = None,
    compare: Compare | None = None,
) -> Compared:
    """Read the folder of one study, or run folders, finished or not. The options replace the values of the study.

    Args:
        folders: folder of one study, or run folders. Runs whose settings differ only in the seed are one arm.

    Raises:
        UsageError: If a folder is neither a study nor a run, or no run has the metric.
    """
    for folder in folders:
        if folder.is_file():
            raise UsageError(f"{folder} is a file: pass folders, for example with the pattern runs/*/.")
        if not folder.is_dir():
            raise UsageError(f"the folder {folder} does not exist: pass the folder of a study, or run folders.")
    studies = [folder for folder in folders if os.path.lexists(folder / STUDY)]
    if studies and len(folders) > 1:
        raise UsageError(f"{studies[0]} is a study: pass only this, or run folders such as {studies[0]}/*/seed-*/.")
    found = _read_study(folders[0]) if studies else _read_runs(folders)
    found = replace(found, runs=[_timed(run) for run in found.runs])
    if not found.metrics:
        raise UsageError(_why_nothing(found.runs, ", ".join(map(str, folders[:3]))))
    chosen = _choose(found, metric, mode, target, baseline)
    rules = chosen.rules._replace(compare=compare or chosen.rules.compare)
    return replace(chosen, rules=rules if chosen.metric == found.metric else rules._replace(margin=None))


def _timed(run: RunResult) -> RunResult:
    """Add the seconds of result.json if the run did not record the time of each epoch."""
    seconds = (read_result(run.folder) or {}).get("seconds") if math.isnan(run.seconds) else None
    return run if seconds is None else replace(run, seconds=float(seconds))


def _why_nothing(runs: Sequence[RunResult], where: str) -> str:
    """Return the error message if no run has any metric."""
    failed = [run for run in runs if run.state == "failed"]
    if not failed:
        return f"no run in {where} has written metrics yet: try again later."
    first = failed[0]
    count = f"all {len(runs)} runs" if len(failed) == len(runs) else f"{len(failed)} of {len(runs)} runs"
    return (
        f"{count} in {where} failed before they wrote a metric, the first ({first.arm}, seed {first.seed}) with: "
        f"{first.error or 'no message'}; see {first.folder}.log."
    )


def _choose(
    found: Compared, metric: str | None, mode: Mode | None, target: float | None, baseline: str | None
) -> Compared:
    if metric is not None and metric not in found.metrics:
        known = [name for name in found.metrics if name.count("/") < 2]
        hint = did_you_mean(metric, found.metrics)
        raise UsageError(f"no run has the metric {metric!r}.{hint} The metrics are {', '.join(known)}.")
    if metric is None and found.metric not in found.metrics:
        found.notes.append(f"no run has reached a value of {found.metric} yet")
    if baseline is not None and baseline not in found.arms:
        hint = did_you_mean(baseline, found.arms)
        raise UsageError(f"--baseline (={baseline}) must be one of the arms {', '.join(found.arms)}.{hint}")
    other = metric is not None and metric != found.metric
    metric = metric or found.metric
    customary: Mode = "min" if "loss" in metric else "max"
    return replace(
        found,
        metric=metric,
        mode=mode or (customary if other else found.mode),
        # The study's target has no meaning for another metric.
        target=target if target is not None or other else found.target,
        baseline=baseline or found.baseline,
    )


def _read_study(folder: Path) -> Compared:
    held = read_json(folder / STUDY, StudyRecord)
    if not held["arms"]:
        raise UnreadableFileError(f"{folder / STUDY}: arms is empty.")
    try:
        about = read_json(folder / ABOUT, AboutRecord)
    except MissingFileError:  # the study has not started
        about = AboutRecord()
    arms = [arm for arm in about.get("arms", ()) if arm in held["arms"]] or list(held["arms"])
    metric = held.get("metric", _METRICS[0])
    runs: list[RunResult] = []
    trunks: list[RunResult] = []
    for arm, found in [*((arm, runs) for arm in arms), (TRUNK, trunks)]:
        inside(folder, arm)
        seeds = set(about.get("seeds", ()) if found is runs else ())
        seeds |= {
            int(path.name[5:]) for path in (folder / arm).glob("seed-*") if re.fullmatch(r"seed-[0-9]{1,10}", path.name)
        }
        for seed in sorted(seeds):
            inside(folder, Path(arm, f"seed-{seed}"))
            job = Job(arm, seed, str(folder / arm / f"seed-{seed}"), str(folder / arm / "config.yaml"), metric, 1)
            found.append(read_run(job))
    resolved = {run.arm: config for run in reversed(runs) if (config := read_config(run.folder))}
    target, seen = about.get("target"), list(dict.fromkeys([*about.get("seen", ()), len(about.get("seeds", ()))]))
    looks, tuning = max(held.get("looks", 1), len(seen)), read_whole_json(folder / TUNING, TuningRecord)
    return Compared(
        title=held.get("name", folder.name),
        question=about.get("question", ""),
        arms=arms,
        runs=runs,
        metric=metric,
        mode=held.get("mode", "max"),
        target=None if target is None else float(target),
        baseline=held.get("baseline", arms[0]),
        configs={arm: resolved.get(arm, held["arms"][arm]) for arm in arms},
        overrides=about.get("overrides", {}),
        tuning=tuning,
        rules=Rules(held.get("compare", "baseline"), held.get("margin"), looks),
        seen=seen,
        command=about.get("command", ""),
        saved=trunk_text(trunks, runs, held["trunk"]["epochs"]) if "trunk" in held else "",
        notes=[*notes_on_looks(seen, held.get("looks", 1)), *_notes_on_borders(tuning)],
    )


def _notes_on_borders(tuning: TuningRecord | None) -> list[str]:
    """Return a note for each arm whose best tuned value is at an end of its range."""
    held = {} if tuning is None else {arm: each.get("at_border", []) for arm, each in tuning["arms"].items()}
    return [
        f"the tuning of {arm} chose {'; '.join(ends)} of its range: a better one may lie outside"
        for arm, ends in held.items()
        if ends
    ]


def _read_runs(folders: Sequence[Path]) -> Compared:
    """Read single runs; those whose settings differ only in the seed are one arm."""
    runs: list[RunResult] = []
    folders, notes = training_runs(list(dict.fromkeys(Path(os.path.normpath(folder)) for folder in folders)))
    groups: dict[str, list[Path]] = {}
    configs: dict[Path, Config] = {}
    for folder in folders:
        config = configs[folder] = read_config(folder)
        text = json.dumps({**config, "seed_everything": None} if config else str(folder), sort_keys=True, default=str)
        groups.setdefault(text, []).append(folder)
    arms: dict[str, Config] = {}
    for members in groups.values():
        by_seed: dict[int, Path] = {}
        for index, folder in enumerate(members):
            seed = configs[folder].get("seed_everything", index)
            seed = seed if isinstance(seed, int) and not isinstance(seed, bool) else index
            if seed in by_seed:
                notes.append(f"{folder} is ignored: it has the same settings and seed as {by_seed[seed]}")
            by_seed.setdefault(seed, folder)
        arm = name_of(list(by_seed.values()), arms)
        arms[arm] = configs[members[0]]
        runs += [read_single(arm, seed, folder) for seed, folder in by_seed.items()]
    names = {name for run in runs for name in run.curves}
    metric = next((name for name in _METRICS if name in names), next(iter(sorted(names)), _METRICS[0]))
    return Compared(
        title=f"{len(runs)} runs" if len(runs) != 1 else next(iter(arms)),
        question="",
        arms=list(arms),
        runs=runs,
        metric=metric,
        mode="min" if "loss" in metric else "max",
        target=None,
        baseline=next(iter(arms)),
        configs=arms,
        notes=notes,
    )
