"""Results of a study: numbers of the runs, table of the arms, and conclusions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightning_cifar.analysis.comparisons import Difference, Rules, conclude, paired_differences
from lightning_cifar.analysis.statistics import first_reaching, mean_interval
from lightning_cifar.runs.metrics import Curve, read_curves
from lightning_cifar.studies.jobs import BARRIER, Job, State, error_of, state_of
from lightning_cifar.studies.units import is_share, scale_of, unit_of

_ROUNDING = 1e-9  # percent; if all runs reach 100 %, the interval ends there up to rounding


@dataclass(frozen=True)
class RunResult:
    """Results of one run, read from its folder."""

    arm: str
    seed: int
    folder: Path
    state: State
    error: str
    curves: dict[str, Curve] = field(repr=False)
    seconds: float

    @property
    def epochs(self) -> float:
        """Number of recorded epochs; 0 if it is unknown."""
        last = (float(curve.epoch[-1]) for curve in self.curves.values() if len(curve.epoch))
        return max(filter(math.isfinite, last), default=-1.0) + 1  # epochs in metrics.csv are counted from 0

    def final(self, metric: str) -> float:
        """Return the last value of a metric; NaN if it is missing or the run is not done."""
        curve = self.curves.get(metric)
        return float(curve.value[-1]) if curve is not None and len(curve.value) and self.state == "done" else math.nan

    def best(self, metric: str, mode: str) -> float:
        """Return the best value of a metric over the run; NaN as in :meth:`final`."""
        curve = self.curves.get(metric)
        if curve is None or not np.isfinite(curve.value).any() or self.state != "done":
            return math.nan
        return float(np.nanmax(curve.value) if mode == "max" else np.nanmin(curve.value))


def read_run(job: Job) -> RunResult:
    """Read the folder of a job."""
    curves = read_curves(job.path) | read_curves(job.path, f"{BARRIER}.csv")
    seconds = max((float(curve.seconds[-1]) for curve in curves.values() if len(curve.seconds)), default=math.nan)
    return RunResult(job.arm, job.seed, job.path, state_of(job), error_of(job), curves, seconds)


@dataclass(frozen=True)
class ArmRow:
    """A row of the table: statistics of an arm over its seeds. Missing values are NaN."""

    arm: str
    n: int
    diverged: int
    failed: int
    final: tuple[float, float, float, float]
    best: tuple[float, float, float, float]
    epochs_to_target: float
    seconds_to_target: float
    reached: int
    seconds: float

    @property
    def counts(self) -> str:
        """Numbers of finished, diverged and failed runs, as text."""
        counts = ((self.diverged, "diverged"), (self.failed, "failed"))
        return f"{self.n}" + "".join(f" + {count} {state}" for count, state in counts if count)


def table(
    runs: Iterable[RunResult], arms: Sequence[str], metric: str, mode: str, target: float | None = None
) -> list[ArmRow]:
    """Compute mean, standard deviation and interval of the final and best metric over the seeds, for each arm."""
    by_arm: dict[str, list[RunResult]] = {arm: [] for arm in arms}
    for run in runs:
        by_arm[run.arm].append(run)
    rows = []
    for arm, members in by_arm.items():
        done = [run for run in members if run.state == "done"]
        reaching = [_reaching(run, metric, mode, target) for run in done]
        there = [pair for pair in reaching if math.isfinite(pair[0])]
        rows.append(
            ArmRow(
                arm,
                len(done),
                sum(run.state == "diverged" for run in members),
                sum(run.state == "failed" for run in members),
                _statistics([run.final(metric) for run in done]),
                _statistics([run.best(metric, mode) for run in done]),
                mean_of([epochs for epochs, _ in there]),
                mean_of([seconds for _, seconds in there]),
                len(there),
                mean_of([run.seconds for run in done]),
            )
        )
    return rows


def _reaching(run: RunResult, metric: str, mode: str, target: float | None) -> tuple[float, float]:
    curve = run.curves.get(metric)
    if curve is None or target is None:
        return math.nan, math.nan
    higher = mode == "max"
    epochs = first_reaching((curve.epoch + 1).tolist(), curve.value.tolist(), target, higher_is_better=higher)
    return epochs, first_reaching(curve.seconds.tolist(), curve.value.tolist(), target, higher_is_better=higher)


def _statistics(values: Sequence[float]) -> tuple[float, float, float, float]:
    finite = [value for value in values if math.isfinite(value)]
    return mean_interval(finite)[:4] if finite else (math.nan,) * 4


def mean_of(values: Sequence[float]) -> float:
    """Return the mean of the finite values, or NaN."""
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan


def differences(
    runs: Iterable[RunResult], arms: Sequence[str], metric: str, baseline: str, rules: Rules | None = None
) -> list[Difference]:
    """Compare the final metric of the arms, paired by seed, corrected for the number of comparisons."""
    return paired_differences(finals(runs, arms, metric), baseline, **(rules or Rules())._asdict())


def finals(runs: Iterable[RunResult], arms: Sequence[str], metric: str) -> dict[str, dict[int, float]]:
    """Return the final metric by arm and seed; NaN for runs that are not done."""
    values: dict[str, dict[int, float]] = {arm: {} for arm in arms}
    for run in runs:
        values[run.arm][run.seed] = run.final(metric)
    return values


def conclusions(found: Sequence[Difference], metric: str, mode: str) -> list[str]:
    """Return a sentence for each difference."""
    scale, unit = scale_of(metric)[0], unit_of(metric)
    return [conclude(each, unit=unit, scale=scale, higher_is_better=mode == "max") for each in found]


def markdown(
    rows: Sequence[ArmRow], found: Sequence[Difference], metric: str, mode: str, target: float | None = None
) -> str:
    """Format the table and the conclusions as Markdown."""
    scale, unit = scale_of(metric)
    by_arm: dict[str, Difference] = {}
    for each in found:
        by_arm.setdefault(each.arm, each)  # the comparisons with the baseline are the first
    header = ["arm", "n", f"final {metric}{unit}", "95 % interval", f"best{unit}"]
    header += ["difference, corrected interval", "p"]
    if target is not None:
        header += [f"epochs to {scale * target:g}{unit}", "seconds", "reached"]
    header = [markdown_text(name) for name in header]
    lines = ["| " + " | ".join(header) + " |", "|" + "|".join(["---", *["---:"] * (len(header) - 1)]) + "|"]
    for row in rows:
        cells = [markdown_text(row.arm), row.counts, *statistics_texts(row.final, metric)]
        cells.append(statistics_texts(row.best, metric)[0])
        difference = by_arm.get(row.arm)
        if difference is None:
            cells += ["baseline", ""]
        else:
            interval = range_text(scale * difference.low, scale * difference.high, sign=True)
            cells += [f"{number_text(scale * difference.mean, sign=True)} ({interval})", p_text(difference.p)]
        if target is not None:
            cells += target_texts(row)
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", CLIPPED_NOTE] if is_clipped([row.final for row in rows], metric) else []
    return "\n".join([*lines, "", *(f"- {markdown_text(line)}" for line in conclusions(found, metric, mode)), ""])


def markdown_text(text: str) -> str:
    """Escape a text so that Markdown does not interpret it as HTML, links, pictures or table cells.

    Example:
        >>> markdown_text("<b>a|b</b>")
        '&lt;b&gt;a\\\\|b&lt;/b&gt;'
    """
    text = " ".join(text.split())
    for letter, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(letter, entity)
    return re.sub(r"([|\[\]`])", r"\\\1", text)


def trunk_text(trunks: Iterable[RunResult], runs: Iterable[RunResult], epochs: int) -> str:
    """Return a sentence about the training that the trunk of a study saved; empty without a trunk.

    The seconds are the share of the epochs, since the time of an epoch depends on what else the machine does.

    Args:
        runs: Runs of the arms; their curves and seconds include the trunk.
    """
    seeds = {run.seed for run in trunks}
    forked = [run for run in runs if run.seed in seeds and run.epochs and math.isfinite(run.seconds)]
    if not forked:
        return ""
    saved, whole = epochs * (len(forked) - len({run.seed for run in forked})), sum(run.epochs for run in forked)
    seconds = sum(run.seconds for run in forked)
    return (
        f"The first {epochs} epochs were trained once per seed, which saved {saved} of {whole:g} epochs of training "
        f"({saved / whole:.0%}), about {seconds * saved / whole:.0f} s of {seconds:.0f} s."
    )


def csv_rows(runs: Iterable[RunResult], metric: str, mode: str, target: float | None) -> list[list[Any]]:
    """Return a row with the columns :data:`CSV_HEADER` for each run."""
    return [
        [
            *(run.arm, run.seed, run.state, run.final(metric), run.best(metric, mode)),
            *(*_reaching(run, metric, mode, target), run.seconds, run.error),
        ]
        for run in runs
    ]


CSV_HEADER = ("arm", "seed", "state", "final", "best", "epochs_to_target", "seconds_to_target", "seconds", "error")


def number_text(value: float, *, sign: bool = False) -> str:
    """Format a number; NaN is a dash."""
    if not math.isfinite(value):
        return "-"
    text = f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"
    return f"+{text}" if sign and value > 0 else text


def spread_text(mean: float, std: float) -> str:
    """Format mean ± standard deviation, or only the mean if the latter is unknown."""
    if not math.isfinite(std):
        return number_text(mean)
    return f"{number_text(mean)} ± {std:.2f}" if abs(mean) >= 1 else f"{number_text(mean)} ± {number_text(std)}"


def range_text(low: float, high: float, *, sign: bool = False) -> str:
    """Format an interval; NaN is a dash."""
    return f"{number_text(low, sign=sign)} to {number_text(high, sign=sign)}" if math.isfinite(low) else "-"


def statistics_texts(values: tuple[float, float, float, float], metric: str) -> list[str]:
    """Format mean ± standard deviation, and the interval, of a metric."""
    scale, unit = scale_of(metric)
    mean, std, low, high = (scale * value for value in values)
    return [spread_text(mean, std), share_range_text(low, high) if unit else range_text(low, high)]


def target_texts(row: ArmRow) -> list[str]:
    """Format epochs and seconds to the target, and the number of runs that reached it."""
    return [number_text(row.epochs_to_target), number_text(row.seconds_to_target), f"{row.reached} of {row.n}"]


CLIPPED_NOTE = (
    "\\* The interval is clipped at 0 or 100 %, since an accuracy cannot lie beyond. More seeds make it narrower."
)


def share_range_text(low: float, high: float) -> str:
    """Format an interval in percent, clipped to 0 and 100; a star marks a clipped end (see ``CLIPPED_NOTE``).

    >>> share_range_text(17.72, 103.21)
    '17.72 to 100*'
    """
    if not math.isfinite(low):
        return "-"
    return (
        f"{'0*' if low < -_ROUNDING else number_text(low)} to {'100*' if high > 100 + _ROUNDING else number_text(high)}"
    )


def is_clipped(intervals: Iterable[tuple[float, float, float, float]], metric: str) -> bool:
    """Whether one of the intervals (mean, deviation, low, high) of a metric is shown clipped."""
    return is_share(metric) and any("*" in share_range_text(100 * low, 100 * high) for _, _, low, high in intervals)


def p_text(value: float) -> str:
    """Format a p-value."""
    return "-" if not math.isfinite(value) else "< 0.0001" if value < 1e-4 else f"{value:.2g}"
