"""Curves of a report: decimated and packed for the page, with mean and interval for pictures. Does not import torch."""

from __future__ import annotations

import base64
import math
from bisect import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from lightning_cifar.analysis.decimation import decimate
from lightning_cifar.analysis.statistics import Band, mean_curve
from lightning_cifar.runs.metrics import Curve, read_times
from lightning_cifar.studies.report.comparison import Compared
from lightning_cifar.studies.report.results import RunResult
from lightning_cifar.studies.units import is_share

Floats = NDArray[np.float64]

BUDGET = 4_000_000
"""Maximum size of all curves on the page, in bytes."""

_MOST_PIECES, _FEWEST_PIECES, _MOST_METRICS, _MOST_KNOTS = 2000, 50, 14, 200
_DEFAULT = ("train/loss", "val/loss", "train/accuracy", "val/accuracy")
_WORDS = {"train": "training", "val": "validation", "test": "test"}


class ArmCurves(NamedTuple):
    """A metric of the runs of an arm, on the union of their steps."""

    step: Floats
    """(P,): optimizer steps."""
    values: Floats
    """(S, P): one row for each run; NaN for missing values."""
    runs: list[RunResult]
    counts: list[bool]
    """Whether a run is part of the mean. Diverged and failed runs are not."""

    def band(self) -> Band:
        """Compute mean and 95 % interval over the runs that count."""
        return mean_curve(self.values[self.counts])


def shown_metrics(compared: Compared) -> tuple[list[str], list[str]]:
    """Return the metrics of a page, and those whose panels are initially open."""
    names = compared.metrics
    default = [name if name in names else f"{name}_step" for name in _DEFAULT]
    default = [name for name in default if name in names]
    if compared.metric in names and compared.metric not in default:
        default.insert(0, compared.metric)
    # Values by class have a separate table.
    others = [name for name in names if name not in default and name.count("/") < 2]
    others.sort(key=lambda name: (not name.startswith(("train/loss", "train/acc")), not name.startswith("lr"), name))
    return [*default, *others][:_MOST_METRICS], default


def title_of(metric: str) -> str:
    """Return a readable name of a metric."""
    part, _, name = metric.partition("/")
    if part not in _WORDS or not name:
        return metric
    single = name.endswith("_step")
    return f"{_WORDS[part]} {name.removesuffix('_step').replace('_', ' ')}{', single batches' if single else ''}"


def arm_curves(compared: Compared, metric: str) -> dict[str, ArmCurves]:
    """Return the curves of the runs with this metric, by arm."""
    found = {}
    for arm in compared.arms:
        runs = [run for run in compared.runs if run.arm == arm and metric in run.curves]
        if not runs:
            continue
        curves = [run.curves[metric] for run in runs]
        step, values = on_common_steps(curves)
        found[arm] = ArmCurves(step + 1, values, runs, [run.state in ("done", "broken") for run in runs])
    return found


def on_common_steps(curves: Sequence[Curve]) -> tuple[Floats, Floats]:
    """Return the union of the steps (P,) of several curves, and their values (S, P), NaN where missing."""
    first = curves[0].step
    ascending = bool((np.diff(first) > 0).all())
    if ascending and all(np.array_equal(curve.step, first) for curve in curves[1:]):
        return first, np.stack([curve.value for curve in curves])
    step = np.unique(np.concatenate([curve.step for curve in curves]))
    values = np.full((len(curves), len(step)), np.nan)
    for row, curve in zip(values, curves, strict=True):
        row[np.searchsorted(step, curve.step)] = curve.value
    return step, values


def knots(run: RunResult) -> Floats:
    """Return steps, epochs and seconds (K, 3) for the axes, from zero on; unknown seconds are NaN.

    A run of a study records them. Otherwise an epoch ends with its last row in metrics.csv, and an unfinished epoch is
    assumed to be as long as the others.
    """
    times = read_times(run.folder)
    found = times[:, [1, 0, 2]] if len(times) else _epoch_ends(run)
    found = np.concatenate([np.array([[0.0, 0, 0 if len(times) else math.nan]]), found])
    kept: Floats = found[np.unique(np.linspace(0, len(found) - 1, _MOST_KNOTS).round().astype(int))]
    return kept


def _epoch_ends(run: RunResult) -> Floats:
    ends: dict[float, float] = {}
    for name, curve in run.curves.items():
        if "/" not in name or not np.isfinite(curve.epoch).all():
            continue  # a learning rate is logged without its epoch
        last = np.r_[np.flatnonzero(np.diff(curve.epoch)), len(curve.epoch) - 1]
        for epoch, step in zip(curve.epoch[last].tolist(), curve.step[last].tolist(), strict=True):
            ends[epoch] = max(ends.get(epoch, 0), step + 1)
    epochs = sorted(ends)
    steps = [ends[epoch] for epoch in epochs]
    lengths = np.diff([0, *steps])
    if len(steps) > 1 and lengths[-1] < np.median(lengths[:-1]):
        steps[-1] = steps[-2] + float(np.median(lengths[:-1]))
    return np.array([[step, epoch + 1, math.nan] for step, epoch in zip(steps, epochs, strict=True)]).reshape(-1, 3)


def pack_curves(compared: Compared, colors: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Pack arms, runs and metrics for the page, with values as base64 of float32."""
    names, default = shown_metrics(compared)
    found = {name: arm_curves(compared, name) for name in names}
    lengths = [len(each.step) for arms in found.values() for each in arms.values() for _ in each.runs]
    pieces = num_pieces(lengths)
    pool = _Pool()
    metrics = [
        {
            "name": name,
            "title": title_of(name),
            "share": is_share(name),
            "arms": {arm: _pack(each, compared, pieces, pool) for arm, each in found[name].items()},
        }
        for name in names
    ]
    longest = max(lengths, default=0)
    return {
        "arms": [
            {"name": arm, "color": color, "dash": dash, "runs": [_run(run) for run in compared.runs if run.arm == arm]}
            for arm, (color, dash) in zip(compared.arms, colors, strict=True)
        ],
        "metrics": metrics,
        "open": default,
        "metric": compared.metric,
        "decimated": {"pieces": pieces, "points": longest} if longest > pieces else None,
        # Half the 95 % interval divided by the standard error, by the number of runs.
        "t": [None, None, *(float(stats.t.ppf(0.975, n - 1)) for n in range(2, len(compared.runs) + 1))],
        "arrays": list(pool),
    }


def num_pieces(lengths: Sequence[int]) -> int:
    """Return the largest number of pieces with which curves of these lengths keep within the budget."""

    def cost(pieces: int) -> int:  # three numbers of 4 bytes for each piece, or one for each point, in base64
        return 16 * sum(length if length <= pieces else 3 * pieces for length in lengths) // 3

    numbers = range(_FEWEST_PIECES, _MOST_PIECES + 1)
    return numbers[max(bisect(numbers, BUDGET, key=cost) - 1, 0)]


class _Pool(dict[str, int]):
    """Packed arrays by their content, so that equal steps or learning rates are stored once."""

    def add(self, values: ArrayLike) -> int:
        with np.errstate(over="ignore"):  # larger values cannot be drawn
            content = np.asarray(values).astype("<f4").tobytes()
        return self.setdefault(base64.b64encode(content).decode("ascii"), len(self))


def _run(run: RunResult) -> dict[str, Any]:
    rows = [[None if math.isnan(value) else round(value, 3) for value in row] for row in knots(run).tolist()]
    return {"seed": run.seed, "state": run.state, "knots": rows}


def _pack(each: ArmCurves, compared: Compared, pieces: int, pool: _Pool) -> dict[str, Any]:
    cut = decimate(each.step, each.values, pieces)
    members = [run for run in compared.runs if run.arm == each.runs[0].arm]
    packed: dict[str, Any] = {
        "step": pool.add(cut.position),
        "runs": [members.index(run) for run in each.runs],
        "mean": [pool.add(row) for row in cut.mean],
    }
    if not cut.is_exact:
        packed |= {"low": pool.add(cut.low), "high": pool.add(cut.high), "count": pool.add(cut.weight.max(axis=0))}
        packed |= {"first": [pool.add(row) for row in cut.first], "second": [pool.add(row) for row in cut.second]}
    return packed


def positions(curves: ArmCurves) -> Floats:
    """Return the x positions (P,) of an arm: the mean of the epochs over its runs."""
    places = []
    for run, row in zip(curves.runs, curves.values, strict=True):
        held = knots(run)
        places.append(np.where(np.isfinite(row), np.interp(curves.step, held[:, 0], held[:, 1]), np.nan))
    there = np.isfinite(places)
    total = np.where(there, places, 0).sum(axis=0)
    return np.where(there.any(axis=0), total / np.maximum(there.sum(axis=0), 1), np.nan)
