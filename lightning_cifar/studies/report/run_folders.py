"""Run folders without a study, as runs of a report. Does not import torch."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from lightning_cifar.errors import UsageError
from lightning_cifar.files.reading import MissingFileError, UnreadableFileError, parse_yaml, read_text
from lightning_cifar.runs.metrics import read_curves, read_result
from lightning_cifar.studies.jobs import DONE, STUDY, Job, State
from lightning_cifar.studies.report.results import RunResult, read_run


def training_runs(folders: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return the folders of training runs, and notes on the others, which a pattern such as ``runs/*/`` includes.

    Raises:
        UsageError: If no folder is a run.
    """
    reasons = {folder: _why_not_run(folder) for folder in folders}
    runs = [folder for folder, reason in reasons.items() if not reason]
    if not runs:
        raise UsageError(next(iter(reasons.values())))
    evaluations = {folder: (read_result(folder) or {}).get("command") for folder in runs}
    trained = [folder for folder, command in evaluations.items() if command not in ("test", "validate", "predict")]
    if trained:  # otherwise evaluations are compared with each other
        reasons |= {folder: f"{folder} is a run of {evaluations[folder]}." for folder in runs if folder not in trained}
        runs = trained
    return runs, [f"ignored, not a training run: {reason.rstrip('.')}" for reason in reasons.values() if reason]


def _why_not_run(folder: Path) -> str:
    """Return why a folder is not a run folder; empty if it is."""
    if os.path.lexists(folder / "metrics.csv"):
        return ""
    if (folder / "lr_range.json").is_file():
        return f"{folder} is a folder of lr-find: it has no metrics.csv."
    if (folder / "config.yaml").is_file():
        return f"{folder} has no metrics.csv: the run has not logged anything yet, or has no CSV logger."
    hint = f" It contains runs: pass {folder}/*/." if any(folder.glob("*/metrics.csv")) else ""
    return f"{folder} is neither a run folder nor a study: it has neither metrics.csv nor {STUDY}.{hint}"


def name_of(members: Sequence[Path], taken: Container[str]) -> str:
    """Return the common part of the folders' names without the seed, or the name of the arm for runs of a study."""
    if (members[0].parent.parent / STUDY).is_file():
        name = members[0].parent.name
    elif len(members) == 1:
        name = members[0].absolute().name
    else:
        first, last = (names := sorted(folder.absolute().name for folder in members))[0], names[-1]
        name = first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
        name = re.sub(r"[\W_]*(seed)?[\W_]*$", "", name) or members[0].absolute().name
    return next(each for i in itertools.count() if (each := name if not i else f"{name} ({i + 1})") not in taken)


def read_single(arm: str, seed: int, folder: Path) -> RunResult:
    """Read the folder of a run, which may also belong to a study."""
    if os.path.lexists(folder / DONE):
        return read_run(Job(arm, seed, str(folder), str(folder / "config.yaml"), "", 1))
    curves = read_curves(folder)
    # NonFiniteGuard may have stopped the run at its first bad loss, without a result.
    names = ("train/loss", "train/loss_step", "val/loss")
    losses = [curve.value[-1] for name, curve in curves.items() if name in names]
    state: State = "done" if read_result(folder) else "broken"
    if not all(math.isfinite(loss) for loss in losses):
        state = "diverged"
    return RunResult(arm, seed, folder, state, "", curves, math.nan)


def read_config(folder: Path) -> dict[str, Any]:
    """Read the settings of a run; empty if the file is missing."""
    path = folder / "config.yaml"
    try:
        held = parse_yaml(path, read_text(path))
    except MissingFileError:
        return {}
    if not isinstance(held, dict):
        raise UnreadableFileError(f"{path} must contain settings by name.")
    return {str(key): _with_text_keys(value) for key, value in held.items()}


def _with_text_keys(value: object) -> object:
    """Convert keys to text. YAML allows numbers and dates, which cannot be sorted together with names."""
    if isinstance(value, dict):
        return {str(key): _with_text_keys(item) for key, item in value.items()}
    return [_with_text_keys(item) for item in value] if isinstance(value, list) else value
