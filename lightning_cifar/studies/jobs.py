"""The runs of a study, their folders and states.

FOLDER/study.json                arms, metric, mode and baseline; a different study is rejected
FOLDER/about.json                question, target, seeds, order of the arms, the command, and the numbers of seeds
                                 for which results were seen: for the report
FOLDER/<arm>/config.yaml         complete configuration of the arm
FOLDER/<arm>/seed-0/             run folder
FOLDER/<arm>/seed-0/done.json    final state of the run, written last
FOLDER/<arm>/seed-0/correct.npz  which validation images are correct at the end, in packed bits
FOLDER/<arm>/seed-0.log          output of the run
FOLDER/trunk/seed-0/             the same for the epochs before the arms fork, in a study with a trunk
FOLDER/<arm> (mean)/             means over the finished runs, for TensorBoard
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import yaml

from lightning_cifar.errors import UsageError
from lightning_cifar.files.atomic import write_atomically
from lightning_cifar.files.links import open_own, refuse_links
from lightning_cifar.files.reading import read_text, read_whole_json
from lightning_cifar.studies.overrides import merge
from lightning_cifar.studies.spec import TRUNK, Study, changes

State = Literal["waiting", "broken", "done", "diverged", "failed"]
ENDED: tuple[State, ...] = ("done", "diverged")
DONE, STUDY, ABOUT, CORRECT = "done.json", "study.json", "about.json", "correct.npz"
BARRIER = "barrier"
"""Metric of a study that is computed after its runs: height of the loss between a run and that of the baseline."""


class DoneRecord(TypedDict):
    """Keys of done.json that are read."""

    state: Literal["done", "diverged", "failed"]
    error: NotRequired[str]
    paused_at: NotRequired[int]


class TrunkRecord(TypedDict):
    """Keys of the trunk in study.json that are read."""

    epochs: int


class StudyRecord(TypedDict):
    """Keys of study.json that are read."""

    name: NotRequired[str]
    arms: dict[str, dict[str, Any]]
    metric: NotRequired[str]
    mode: NotRequired[Literal["max", "min"]]
    baseline: NotRequired[str]
    trunk: NotRequired[TrunkRecord]
    margin: NotRequired[float]
    compare: NotRequired[Literal["baseline", "all"]]
    looks: NotRequired[int]


class AboutRecord(TypedDict):
    """Keys of about.json that are read."""

    arms: NotRequired[list[str]]
    seeds: NotRequired[list[int]]
    question: NotRequired[str]
    target: NotRequired[float | None]
    command: NotRequired[str]
    seen: NotRequired[list[int]]
    overrides: NotRequired[dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Job:
    """One run of a study, with all information that a worker on any machine needs.

    In a study with a trunk of ``epochs``, ``trunk`` is the folder of the run from which an arm forks; the run of the
    trunk has none, and stops after ``epochs``. A run stops after ``pause`` epochs, from which it can continue.
    """

    arm: str
    seed: int
    folder: str
    config: str
    metric: str
    threads: int
    epochs: int = 0
    trunk: str = ""
    pause: int = 0

    @property
    def is_trunk(self) -> bool:
        return self.epochs > 0 and not self.trunk

    @property
    def path(self) -> Path:
        return Path(self.folder)

    @property
    def log(self) -> Path:
        return self.path.with_name(self.path.name + ".log")


@dataclass(frozen=True)
class Progress:
    """Progress of a run."""

    epoch: int
    max_epochs: int
    value: float


def list_jobs(study: Study, folder: Path, *, threads: int) -> list[Job]:
    """List the jobs of a study by seed, then by arm, without writing anything.

    Raises:
        UsageError: If the folder belongs to another study, is not a study's folder, or contains links to other folders.
    """
    marker = folder / STUDY
    if os.path.lexists(marker):
        refuse_links(folder)
        if (held := read_text(marker)) != study.to_json():
            changed = changes(held, study.to_json())
            what = f"another study ({changed})" if changed else "another study"
            raise UsageError(f"{folder} contains {what}: pass another --out, or undo the change.")
    elif folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} exists and is not the folder of a study: pass another --out.")
    jobs = []
    for seed in study.seeds:
        trunk = str(folder / TRUNK / f"seed-{seed}")
        for arm in _configurations(study):
            run, config = folder / arm / f"seed-{seed}", str(folder / arm / "config.yaml")
            source = trunk if study.trunk_epochs and arm != TRUNK else ""
            jobs.append(Job(arm, seed, str(run), config, study.metric, threads, study.trunk_epochs, source))
    return jobs


def take_ready(waiting: list[Job], running: Iterable[Job]) -> Job | None:
    """Remove and return the first job whose trunk has ended; None if there is none.

    >>> arm, trunk = Job("a", 0, "a", "", "", 1, 2, "t"), Job("trunk", 0, "t", "", "", 1, 2)
    >>> take_ready([arm], [trunk]) is None, take_ready([arm], []) is arm
    (True, True)
    """
    pending = {job.folder for job in (*waiting, *running)}
    ready = next((job for job in waiting if job.trunk not in pending), None)
    if ready is not None:
        waiting.remove(ready)
    return ready


def _configurations(study: Study) -> dict[str, dict[str, Any]]:
    """Return the configurations by arm; the trunk is the first."""
    return {TRUNK: study.trunk, **study.arms} if study.trunk_epochs else study.arms


def prepare(
    study: Study, folder: Path, *, threads: int, chosen: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Job]:
    """Create the folder of the study, or use that of the same study, and list its jobs with the ``chosen`` settings."""
    jobs = list_jobs(study, folder, threads=threads)
    write_atomically(folder / STUDY, study.to_json().encode())
    for arm, config in _configurations(study).items():
        path = folder / arm / "config.yaml"
        config = merge(config, (chosen or {}).get(arm, {}), f"arm {arm}")
        write_atomically(path, yaml.safe_dump(config, sort_keys=False).encode())
    return jobs


def write_about(study: Study, folder: Path, command: str, *, seen: bool = False) -> None:
    """Write about.json; ``seen`` adds this number of seeds to those for which results were seen."""
    looks = read_seen(folder)
    about = study.about() | {"command": command, "seen": [*looks, len(study.seeds)] if seen else looks}
    about["seen"] = list(dict.fromkeys(about["seen"]))
    write_atomically(folder / ABOUT, (json.dumps(about, indent=2, default=str) + "\n").encode())


def read_seen(folder: Path) -> list[int]:
    """Return the numbers of seeds for which results of a study were seen, in their order."""
    return (read_whole_json(folder / ABOUT, AboutRecord) or AboutRecord()).get("seen", [])


def notes_on_looks(seen: Sequence[int], declared: int) -> list[str]:
    """Return a note if seeds were added after results had been seen, with the numbers of seeds ``seen``, in order."""
    if len(seen) < 2:
        return []
    history = f"seeds were added after results were seen ({', then '.join(map(str, seen))} seeds): "
    factor = max(declared, len(seen))
    history += f"p-values are multiplied by {factor}, the number of looks, and intervals are as much more certain"
    if len(seen) <= declared:
        return [history]
    # Bonferroni over the looks; each was tested with the number of looks known at that time.
    total = sum(0.05 / max(declared, look) for look in range(1, len(seen) + 1))
    return [
        f"{history}. The study file declares looks: {declared}, so earlier looks used a larger part of the 5 %: the "
        f"probability that any of the looks shows a difference that does not exist is at most {total:.1%}"
    ]


def state_of(job: Job) -> State:
    """Read the state of a run from its folder.

    Raises:
        UnreadableFileError: If done.json has another format.
    """
    held = read_whole_json(job.path / DONE, DoneRecord)
    if held is None:
        return "broken" if job.path.exists() else "waiting"
    paused_at = held.get("paused_at", 0)
    if held["state"] == "done" and paused_at and not 0 < job.pause <= paused_at:
        return "broken"  # the run continues
    return held["state"]


def error_of(job: Job) -> str:
    """Return the error of a failed run in one line, or an empty string."""
    held = read_whole_json(job.path / DONE, DoneRecord)
    return "" if held is None else held.get("error", "")


def redirect_output(path: Path) -> None:
    """Append the output of this process, including that of C libraries, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = open_own(path, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.close(handle)
    for text in (sys.stdout, sys.stderr):
        if isinstance(text, io.TextIOWrapper):  # independent of the terminal's encoding
            text.reconfigure(encoding="utf-8", errors="backslashreplace")
