"""Mean curves of the arms of a study for TensorBoard. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lightning_cifar.analysis.statistics import mean_curve
from lightning_cifar.files.events import write_curves
from lightning_cifar.studies.report.curves import on_common_steps
from lightning_cifar.studies.report.results import RunResult

_MOST_POINTS = 1000  # of a curve


def write_means(folder: Path, runs: Sequence[RunResult]) -> None:
    """Write ``<folder>/<arm> (mean)`` for TensorBoard: means and 95 % bands of each metric over the finished runs.

    A metric of the arm has the tags ``<metric>`` (its mean, in the same chart as the single runs) and
    ``band/<metric>/mean``, ``low`` and ``high``, from which the CUSTOM SCALARS tab draws one chart for each metric with
    all arms. With one run, the band is the run. Values by class and of single batches are left out.
    """
    for arm in dict.fromkeys(run.arm for run in runs):
        members = [run for run in runs if run.arm == arm and run.state == "done"]
        names = sorted({name for run in members for name in run.curves if _is_shown(name)})
        curves, charts = {}, {}
        for name in names:
            steps, values = on_common_steps([run.curves[name] for run in members if name in run.curves])
            kept = np.unique(np.linspace(0, len(steps) - 1, _MOST_POINTS).round().astype(int))
            band = mean_curve(values[:, kept])
            known = np.isfinite(band.mean)
            steps, mean = steps[kept][known].tolist(), band.mean[known]
            low, high = (np.where(np.isnan(each[known]), mean, each[known]) for each in (band.low, band.high))
            charts[name] = [f"band/{name}/{part}" for part in ("mean", "low", "high")]
            for tag, line in zip([name, *charts[name]], (mean, mean, low, high), strict=True):
                curves[tag] = (steps, line.tolist())
        if curves:
            write_curves(folder / f"{arm.replace('/', '_')} (mean)", curves, charts)


def _is_shown(metric: str) -> bool:
    return metric.count("/") <= 1 and not metric.endswith("_step")
