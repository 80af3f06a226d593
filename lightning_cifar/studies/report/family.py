"""Forked runs as a tree: the common epochs once, then the branches. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NotRequired, TypedDict

import numpy as np

from lightning_cifar.files.reading import read_whole_json
from lightning_cifar.plots import arm_colors
from lightning_cifar.runs.metrics import FORK, read_run_id
from lightning_cifar.studies.report.comparison import Compared
from lightning_cifar.studies.report.curves import arm_curves, positions, title_of
from lightning_cifar.studies.units import is_share

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from lightning_cifar.plots import ArmBand


class ForkRecord(TypedDict):
    """Keys of fork.json that are read."""

    epoch: int
    run_id: NotRequired[str | None]


def forks(compared: Compared) -> dict[str, ForkRecord]:
    """Return the fork of each arm whose runs are forks.

    Raises:
        UnreadableFileError: If fork.json does not have the form that a run writes.
    """
    read = ((run.arm, read_whole_json(run.folder / FORK, ForkRecord)) for run in compared.runs)
    found = {arm: fork for arm, fork in read if fork is not None}
    return {arm: found[arm] for arm in compared.arms if arm in found}


def draw_family(compared: Compared) -> Figure | None:
    """Draw the compared metric over epochs; the epochs before a fork only once. None if no arm is a fork."""
    from lightning_cifar.plots import ArmBand, draw_report_curves  # slow, since it imports matplotlib

    known, curves = forks(compared), arm_curves(compared, compared.metric)
    styles = dict(zip(compared.arms, arm_colors(compared.arms, compared.baseline), strict=True))
    ids = {read_run_id(run.folder) for run in compared.runs} - {None}
    trunks: dict[int, ArmBand] = {}
    branches, points = [], []
    for arm, each in curves.items():
        x, n = positions(each), sum(each.counts)
        whole = ArmBand(arm, *styles[arm], x, *each.band()[:3], each.values, n)
        if arm not in known:
            branches.append(whole)
            continue
        fork = known[arm]
        if fork.get("run_id") not in ids and fork["epoch"] not in trunks:  # otherwise the parent is an arm
            trunk = _cut(whole, x <= fork["epoch"])
            trunks[fork["epoch"]] = trunk._replace(
                name=f"before the fork at epoch {fork['epoch']}", color="#888888", dash=""
            )
        start = float(np.max(x[x <= fork["epoch"]], initial=0.0))
        branch = _cut(whole, x >= start)
        branches.append(branch)
        points.append((start, float(np.asarray(branch.mean)[0])) if len(np.asarray(branch.x)) else (np.nan, np.nan))
    if not points:
        return None
    metric = compared.metric
    return draw_report_curves(
        [*trunks.values(), *branches], ylabel=title_of(metric), share=is_share(metric), points=points
    )


def _cut(band: ArmBand, kept: NDArray[np.bool_]) -> ArmBand:
    """Return a part of the points of an arm."""
    x, mean, low, high, seeds = (
        np.asarray(values)[..., kept] for values in (band.x, band.mean, band.low, band.high, band.seeds)
    )
    return band._replace(x=x, mean=mean, low=low, high=high, seeds=seeds)
