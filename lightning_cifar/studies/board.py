"""Progress of all runs of a study in the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from lightning_cifar.studies.jobs import ENDED, Job, Progress, State, error_of, state_of
from lightning_cifar.studies.spec import Study

if TYPE_CHECKING:
    from rich.table import Table


class Board:
    """State of all runs: a table that is updated in a terminal, otherwise a line for each event."""

    def __init__(self, jobs: Sequence[Job], study: Study) -> None:
        self.jobs, self.study = list(jobs), study
        self.state: dict[Job, State | Progress | str] = {job: state_of(job) for job in jobs}
        self.start = time.monotonic()
        self.began: dict[Job, float] = {}
        self.seconds: dict[Job, float] = {}  # of the runs that ended
        self.live = None
        if sys.stdout.isatty():
            from rich.live import Live

            self.live = Live(get_renderable=self._table, refresh_per_second=2)
            self.live.start()

    def hear(self, job: Job, news: State | Progress | str | None) -> None:
        """Record an event of a job: its start (None), progress, end or failure."""
        now = time.monotonic()
        self.state[job] = "started" if news is None else news
        if news is None:
            self.began[job] = now
        if not isinstance(news, str):
            return
        self.seconds[job] = now - self.began.get(job, self.start)
        if news in ENDED and job.arm in self.study.arms:
            self._write_mean(job.arm)
        done = sum(state in ("done", "diverged", "failed") for state in self.state.values())
        times = f"{self.seconds[job]:.0f} s, {now - self.start:.0f} s since the start"
        error = error_of(job) if news == "failed" else ""
        line = f"[{done}/{len(self.jobs)}] {job.arm}, seed {job.seed}: {news}   {times}{error and f': {error}'}"
        if self.live is None:
            print(line, flush=True)
        elif news not in ENDED:  # failures are printed above the table
            self.live.console.print(line, markup=False, highlight=False)

    def _write_mean(self, arm: str) -> None:
        from lightning_cifar.studies.report.means import write_means
        from lightning_cifar.studies.report.results import read_run

        jobs = [job for job in self.jobs if job.arm == arm]
        with suppress(OSError):  # reported at the end, when the means are written again
            write_means(jobs[0].path.parents[1], [read_run(job) for job in jobs])

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()

    def _table(self) -> Table:
        from rich.table import Table

        table = Table(title=f"{self.study.name}   {time.monotonic() - self.start:.0f} s")
        table.add_column("arm")
        for seed in dict.fromkeys(job.seed for job in self.jobs):
            table.add_column(f"seed {seed}", justify="right")
        for arm in dict.fromkeys(job.arm for job in self.jobs):
            table.add_row(arm, *(_cell(self.state[job], self.seconds.get(job)) for job in self.jobs if job.arm == arm))
        return table


def _cell(state: State | Progress | str, seconds: float | None) -> str:
    if isinstance(state, Progress):
        return f"{state.epoch}/{state.max_epochs}  {state.value:.4g}"
    text = {"waiting": "", "broken": "to continue", "started": "..."}.get(state, state)
    return text if seconds is None or state == "started" else f"{text}  {seconds:.0f} s"
