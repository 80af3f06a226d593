"""Read the curves of a run folder from metrics.csv, with the time of each value if known. Does not import torch."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from lightning_cifar.errors import one_line
from lightning_cifar.files.reading import (
    LARGEST_TABLE,
    BrokenFileError,
    MissingFileError,
    read_bytes,
    read_text,
    read_whole_json,
)

TIMES = "times.csv"
FORK = "fork.json"
"""Origin of a forked run: folder and ID of its parent, epoch and step."""

_OLD_NAMES = {r"lr-\w+": "lr", "train/images_per_s": "throughput"}
"""Patterns of names in the tables of earlier versions, and the present names."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A metric during a run. All arrays are (P,); ``epoch`` and ``seconds`` are NaN if they are unknown."""

    step: Floats
    epoch: Floats
    seconds: Floats
    value: Floats


class ResultRecord(TypedDict):
    """The content of result.json that is read."""

    command: NotRequired[str]
    seconds: NotRequired[float | None]
    metrics: NotRequired[dict[str, float | None]]
    versions: NotRequired[dict[str, str]]
    machine: NotRequired[dict[str, Any]]


def read_result(folder: Path) -> ResultRecord | None:
    """Read the result of a run; None if the run has not ended, or the file is cut off.

    Raises:
        UnreadableFileError: If result.json does not have the form that a run writes.
    """
    return read_whole_json(folder / "result.json", ResultRecord)


def read_run_id(folder: Path) -> str | None:
    """Return the ID of the run in a folder; None in folders of version 0.1.0, or without a configuration."""
    try:
        found = re.match(r"# run ([0-9a-f]+)\n", read_text(folder / "config.yaml"))
    except MissingFileError:
        return None
    return found[1] if found else None


def read_curves(folder: Path, table: str = "metrics.csv") -> dict[str, Curve]:
    """Read all metrics of a run folder from metrics.csv, or another table, and times.csv. The run need not have ended.

    A row without an epoch, such as a learning rate, gets the epoch of the last row that has one. The learning rate and
    the throughput of runs of earlier versions, ``lr-SGD`` and ``train/images_per_s``, get their present names.

    Raises:
        UnreadableFileError: If metrics.csv or times.csv does not have the form that a run writes.
    """
    try:
        names, rows, columns, values = _read_cells(folder / table)
    except MissingFileError:
        return {}
    for old, new in _OLD_NAMES.items():
        # A run that a later version resumed may have both columns.
        names = [found if (found := re.sub(f"^{old}(?=/|$)", new, name)) not in names else name for name in names]
    if "step" not in names or not len(values):
        return {}
    num_rows = int(rows[-1]) + 1
    steps = np.full(num_rows, np.nan)
    steps[rows[columns == names.index("step")]] = values[columns == names.index("step")]
    epochs = np.full(num_rows, np.nan)
    if "epoch" in names:
        there = columns == names.index("epoch")
        epochs = _filled(rows[there], values[there], num_rows)
    seconds = _seconds(folder, steps)
    curves = {}
    for index, name in enumerate(names):
        there = columns == index
        where = rows[there]
        known = np.isfinite(steps[where])
        where = where[known]
        if name not in ("step", "epoch") and len(where):
            curves[name] = Curve(steps[where], epochs[where], seconds[where], values[there][known])
    return curves


def _read_cells(path: Path) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64], Floats]:
    """Read a CSV file of numbers: names of the columns, and row, column and value of each cell that is not empty.

    Most cells of metrics.csv are empty, and some files are long, so that the cells are found with array operations. An
    incomplete row, such as the last one of a run that has not ended, is skipped. A text that is not a number is NaN.
    """
    text = read_bytes(path, limit=LARGEST_TABLE).decode(errors="replace")
    head, _, body = text.replace("\r\n", "\n").partition("\n")
    try:
        names = next(csv.reader([head]), [])
    except csv.Error as error:
        raise BrokenFileError(f"{path} is not a table: {one_line(error)}.") from error
    content = body[: body.rfind("\n") + 1].encode("ascii", "replace")
    characters = np.frombuffer(content, dtype=np.uint8)
    ends = np.flatnonzero((characters == ord(",")) | (characters == ord("\n")))
    ends_line = characters[ends] == ord("\n")
    starts = np.r_[0, ends[:-1] + 1] if len(ends) else ends
    rows = np.cumsum(ends_line) - ends_line
    lengths = np.bincount(rows) if len(rows) else rows
    columns = np.arange(len(ends)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    there = (ends > starts) & (lengths[rows] == len(names))
    rows, columns, starts, ends = rows[there], columns[there], starts[there], ends[there]
    texts = [content[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    try:
        values = np.array([float(text) for text in texts])
    except ValueError:
        values = np.array([_to_number(text) for text in texts])
    return names, rows, columns, values


def _to_number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _filled(rows: NDArray[np.int64], values: Floats, num_rows: int) -> Floats:
    """Return the value of each row, or that of the last row before it with a value; 0 before the first."""
    if not len(rows):
        return np.full(num_rows, np.nan)
    last = np.searchsorted(rows, np.arange(num_rows), side="right") - 1
    return np.where(last < 0, 0.0, values[np.maximum(last, 0)])


def read_times(folder: Path) -> Floats:
    """Read the times of a run of a study: (E, 3), completed epochs, steps and seconds; (0, 3) if they are unknown.

    Raises:
        UnreadableFileError: If times.csv does not have the form that a run writes.
    """
    path = folder / TIMES
    try:
        lines = read_text(path, limit=LARGEST_TABLE).splitlines()[1:]
    except MissingFileError:
        return np.empty((0, 3))
    try:
        times = np.array([[float(cell) for cell in line.split(",")] for line in lines], dtype=float)
        times = times.reshape(len(lines), 3)
    except ValueError as error:
        raise BrokenFileError(f"{path} is damaged: its rows must be three numbers, epoch,step,seconds.") from error
    times[:, 0] += 1
    return times


def _seconds(folder: Path, steps: Floats) -> Floats:
    """Return the training time at each step, interpolated between the known times."""
    times = read_times(folder)
    if not len(times):
        return np.full(len(steps), np.nan)
    return np.interp(steps + 1, np.r_[0, times[:, 1]], np.r_[0, times[:, 2]])
