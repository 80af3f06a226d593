"""Tuning of the arms before a study: jobs, successive halving, choice. Does not import torch.

FOLDER/<arm>/tune/<settings>/seed-100000/   run folder; the same files as those of a study's runs
FOLDER/tuning.json                          metric of each setting, choices and budget: for the report
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import yaml

from lightning_cifar.errors import UsageError
from lightning_cifar.files.atomic import write_atomically
from lightning_cifar.runs.metrics import Curve, read_curves
from lightning_cifar.studies.jobs import ENDED, Job, error_of, state_of
from lightning_cifar.studies.overrides import merge, short_name
from lightning_cifar.studies.spec import Study
from lightning_cifar.studies.tune_spec import Settings, Tuning

TUNING = "tuning.json"


class TriedRecord(TypedDict):
    """A setting of an arm in tuning.json."""

    settings: Settings
    epochs: int
    values: list[float | None]


class ArmRecord(TypedDict):
    """An arm in tuning.json."""

    tried: list[TriedRecord]
    chosen: NotRequired[Settings]
    at_border: NotRequired[list[str]]


class TuningRecord(TypedDict):
    """Content of tuning.json; ``epochs`` is the budget of each arm."""

    seeds: list[int]
    epochs: int
    arms: dict[str, ArmRecord]


def tune(study: Study, folder: Path, threads: int, run: Callable[[list[Job]], None]) -> dict[str, Settings]:
    """Train all settings of each arm by ``run``, or continue to do so, and return the best of each.

    With halving, all settings are trained for the first number of epochs, the better half continues, and so on. While
    the best value of an arm is at an end of its range, ``widen`` extends the range of all arms, so that their budgets
    remain equal.

    Raises:
        UsageError: If a run failed, or all runs of an arm diverged.
    """
    tuning = study.tune
    assert tuning is not None
    longest: int = next(iter(study.arms.values())).get("trainer", {}).get("max_epochs", 10)  # the same in all arms
    arms: dict[str, ArmRecord] = {arm: {"tried": []} for arm in study.arms}
    record: TuningRecord = {"seeds": list(tuning.seeds), "epochs": 0, "arms": arms}
    values: dict[str, list[object]] = dict(tuning.values)
    new = tuning.combinations()
    for extension in range(tuning.widen + 1):
        alive, before = dict.fromkeys(study.arms, new), 0
        for pause in (*(tuning.halving if extension == 0 else ()), 0):
            epochs = pause or longest
            record["epochs"] += len(tuning.seeds) * (epochs - before) * len(next(iter(alive.values())))
            before = epochs
            _run_all(study, folder, threads, alive, pause, run)
            for arm, every in alive.items():
                scores = []
                for settings in every:
                    found = [
                        _value(job, study.metric, pause) for job in _jobs(study, folder, threads, arm, settings, pause)
                    ]
                    _note(arms[arm]["tried"], settings, epochs, found)
                    scores.append(_score(found, study.mode))
                ranked = sorted(range(len(every)), key=lambda i: -scores[i])  # stable: the first of equals
                alive[arm] = [every[i] for i in ranked[: math.ceil(len(ranked) / 2) if pause else None]]
        ends = set()
        for arm, held in arms.items():
            ends |= _choose(arm, held, study.mode, tuning, values, longest)
        write_atomically(folder / TUNING, (json.dumps(record, indent=1) + "\n").encode())
        if not ends or extension == tuning.widen:
            break
        old = tuning.combinations(values)
        for key, upwards in sorted(ends):
            values[key] = tuning.widened(values, key, upwards=upwards)
        new = [each for each in tuning.combinations(values) if each not in old]
    return {arm: held["chosen"] for arm, held in arms.items()}


def _run_all(
    study: Study,
    folder: Path,
    threads: int,
    alive: Mapping[str, Sequence[Settings]],
    pause: int,
    run: Callable[[list[Job]], None],
) -> None:
    jobs: list[Job] = []
    for arm, every in alive.items():
        for settings in every:
            jobs += _jobs(study, folder, threads, arm, settings, pause)
            config = merge(study.arms[arm], settings, f"arm {arm}")
            write_atomically(Path(jobs[-1].config), yaml.safe_dump(config, sort_keys=False).encode())
    jobs.sort(key=lambda job: job.seed)
    if todo := [job for job in jobs if state_of(job) not in ENDED]:
        run(todo)
    failed = [job for job in jobs if state_of(job) not in ENDED]
    if failed:
        first = failed[0]
        raise UsageError(
            f"{len(failed)} of {len(jobs)} tuning runs failed, the first ({first.arm}, seed {first.seed}) with "
            f"{error_of(first) or 'no message'} (log: {first.log}): repeat the command to try again."
        )


def _jobs(study: Study, folder: Path, threads: int, arm: str, settings: Settings, pause: int) -> Iterator[Job]:
    assert study.tune is not None
    place = folder / arm / "tune" / _name(settings)
    for seed in study.tune.seeds:
        run, config = str(place / f"seed-{seed}"), str(place / "config.yaml")
        yield Job(f"{arm}: {_name(settings)}", seed, run, config, study.metric, threads, pause=pause)


def _name(settings: Settings) -> str:
    return " ".join(f"{key.rsplit('.', 1)[-1]}={short_name(value)}" for key, value in settings.items())


def _value(job: Job, metric: str, pause: int) -> float:
    """Return the metric at the end of the run, or after ``pause`` epochs also if the run has continued since."""
    curve: Curve | None = read_curves(job.path).get(metric)
    if curve is None or (not pause and state_of(job) != "done"):
        return math.nan
    found = curve.value[curve.epoch == pause - 1] if pause else curve.value
    return float(found[-1]) if len(found) else math.nan


def _score(values: Sequence[float], mode: str) -> float:
    """Return the mean over the seeds, where higher is better; a setting with a diverged run is the worst."""
    mean = float(np.mean(values))
    return -math.inf if not math.isfinite(mean) else mean if mode == "max" else -mean


def _note(tried: list[TriedRecord], settings: Settings, epochs: int, values: Sequence[float]) -> None:
    tried[:] = [each for each in tried if each["settings"] != settings]
    finite = [value if math.isfinite(value) else None for value in values]
    tried.append({"settings": settings, "epochs": epochs, "values": finite})


def _choose(
    arm: str, held: ArmRecord, mode: str, tuning: Tuning, values: Mapping[str, Sequence[object]], longest: int
) -> set[tuple[str, bool]]:
    """Record the best setting that was trained to the end; return the ends of ranges at which it is."""
    full = [each for each in held["tried"] if each["epochs"] == longest]
    scores = [_score([math.nan if value is None else value for value in each["values"]], mode) for each in full]
    if max(scores) == -math.inf:
        raise UsageError(f"arm {arm}: the runs of all {len(full)} tuned settings diverged: use lower values in tune.")
    best = full[scores.index(max(scores))]["settings"]
    ends = {(key, upwards) for key in tuning.ranges for upwards in (False, True) if best[key] == values[key][-upwards]}
    held["chosen"] = best
    held["at_border"] = [
        f"{key} = {best[key]:g}, the {'highest' if up else 'lowest'} value" for key, up in sorted(ends)
    ]
    return ends
