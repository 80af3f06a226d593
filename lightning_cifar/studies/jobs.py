"""The runs of a study: one folder each, in a known state, and the work of one of them.

FOLDER/study.json                what is compared; another study is refused
FOLDER/about.json                question, target, seeds, order of the arms, and the command: for the report
FOLDER/<arm>/config.yaml         the arm's whole configuration
FOLDER/<arm>/seed-0/             a run folder like any other
FOLDER/<arm>/seed-0/done.json    written last: the run ended, and how
FOLDER/<arm>/seed-0.log          what it printed
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import yaml

from lightning_cifar.errors import UsageError
from lightning_cifar.files.atomic import write_atomically
from lightning_cifar.files.links import open_own, refuse_links
from lightning_cifar.files.reading import BrokenFileError, MissingFileError, read_json, read_text
from lightning_cifar.studies.spec import Study

State = Literal["waiting", "broken", "done", "diverged", "failed"]
ENDED: tuple[State, ...] = ("done", "diverged")
DONE, STUDY, ABOUT = "done.json", "study.json", "about.json"


class DoneRecord(TypedDict):
    """Content of done.json, as far as it is read."""

    state: Literal["done", "diverged", "failed"]
    error: NotRequired[str]


class StudyRecord(TypedDict):
    """Content of study.json, as far as it is read."""

    name: NotRequired[str]
    arms: dict[str, dict[str, Any]]
    metric: NotRequired[str]
    mode: NotRequired[Literal["max", "min"]]
    baseline: NotRequired[str]


class AboutRecord(TypedDict):
    """Content of about.json, as far as it is read."""

    arms: NotRequired[list[str]]
    seeds: NotRequired[list[int]]
    question: NotRequired[str]
    target: NotRequired[float | None]
    command: NotRequired[str]


@dataclass(frozen=True)
class Job:
    """One run of a study: everything that a worker, here or on another machine, needs to know."""

    arm: str
    seed: int
    folder: str
    config: str
    metric: str
    threads: int

    @property
    def path(self) -> Path:
        return Path(self.folder)

    @property
    def log(self) -> Path:
        return self.path.with_name(self.path.name + ".log")


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    epoch: int
    max_epochs: int
    value: float


def list_jobs(study: Study, folder: Path, *, threads: int) -> list[Job]:
    """The jobs of a study, seed by seed, arm by arm; nothing is written.

    Raises:
        UsageError: The folder belongs to another study, is something else, or holds links that lead elsewhere.
    """
    marker = folder / STUDY
    if os.path.lexists(marker):
        refuse_links(folder)
        if read_text(marker) != study.to_json():
            raise UsageError(
                f"{folder} belongs to another study, or to this one before it was changed: pass another --out."
            )
    elif folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} exists and is not a study's folder: pass another --out.")
    jobs = []
    for seed in study.seeds:
        for arm in study.arms:
            run = folder / arm / f"seed-{seed}"
            jobs.append(Job(arm, seed, str(run), str(folder / arm / "config.yaml"), study.metric, threads))
    return jobs


def prepare(study: Study, folder: Path, *, threads: int) -> list[Job]:
    """Make the study's folder, or accept that of the same study, and list its jobs.

    Raises:
        UsageError: See :func:`list_jobs`.
    """
    jobs = list_jobs(study, folder, threads=threads)
    write_atomically(folder / STUDY, study.to_json().encode())
    for arm, config in study.arms.items():
        path = folder / arm / "config.yaml"
        write_atomically(path, yaml.safe_dump(config, sort_keys=False).encode())
    return jobs


def state_of(job: Job) -> State:
    """How a run ended, from what is on disk alone.

    Raises:
        UnreadableFileError: done.json holds something else than a run writes.
    """
    held = _read_done(job)
    if held is None:
        return "broken" if job.path.exists() else "waiting"
    return held["state"]


def error_of(job: Job) -> str:
    """Why a run failed, in one line; empty where it did not."""
    held = _read_done(job)
    return "" if held is None else held.get("error", "")


def _read_done(job: Job) -> DoneRecord | None:
    """None where it is missing, or was cut off by a power cut."""
    try:
        return read_json(job.path / DONE, DoneRecord)
    except (MissingFileError, BrokenFileError):
        return None


def redirect_output(path: Path) -> None:
    """Send what this process prints, and the libraries below Python too, to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = open_own(path, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.close(handle)
