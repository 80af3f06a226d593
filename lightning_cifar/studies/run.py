"""A run of a study: a ``fit`` whose progress and times are recorded."""

from __future__ import annotations

import io
import json
import math
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from lightning_cifar.callbacks.non_finite_guard import NonFiniteError
from lightning_cifar.errors import UsageError, did_you_mean, one_line
from lightning_cifar.files.atomic import write_atomically
from lightning_cifar.files.links import inside, remove_tree
from lightning_cifar.memory import keep_freed_memory
from lightning_cifar.runs.arguments import Arguments
from lightning_cifar.runs.cli import RunCLI
from lightning_cifar.runs.fork import Fork
from lightning_cifar.runs.metrics import TIMES
from lightning_cifar.runs.resume import can_resume
from lightning_cifar.runs.start import start_run
from lightning_cifar.studies.jobs import BARRIER, CORRECT, DONE, Job, Progress, State, state_of

HEADER = "epoch,step,seconds"


class Paused(Exception):  # noqa: N818
    """The run has reached the epoch at which it pauses; its state is saved."""


class Watch(Callback):
    """Report the progress, and record times and the correct images of the last validation.

    The time after each epoch is cumulative over all parts of a resumed run.
    """

    def __init__(self, job: Job, report: Callable[[Progress], None]) -> None:
        self.job, self.report = job, report
        self.rows: list[str] = []
        self.before = 0.0
        self.start = time.monotonic()
        self.metrics: dict[str, float] = {}
        self.correct: list[torch.Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        return {"rows": list(self.rows), "seconds": self.before + time.monotonic() - self.start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.before = list(state_dict["rows"]), float(state_dict["seconds"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.start = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.job.pause and trainer.current_epoch >= self.job.pause:
            raise Paused  # after ExactResume, the first callback, has saved the state

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        seconds = self.before + time.monotonic() - self.start
        self.rows.append(f"{trainer.current_epoch},{trainer.global_step},{seconds:.3f}")
        if trainer.is_global_zero:
            text = "\n".join([HEADER, *self.rows, ""])
            write_atomically(self.job.path / TIMES, text.encode())
        value = trainer.callback_metrics.get(self.job.metric)
        epochs = self.job.pause or trainer.max_epochs or 0
        if self.job.pause:
            self.on_train_end(trainer, pl_module)
        if self.job.is_trunk:
            epochs = self.job.epochs
            trainer.should_stop = trainer.current_epoch + 1 >= epochs
        self.report(Progress(trainer.current_epoch + 1, epochs, math.nan if value is None else float(value)))

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.current_epoch + 1 < (trainer.max_epochs or 0) or trainer.sanity_checking or dataloader_idx:
            return
        logits = outputs.get("logits") if isinstance(outputs, dict) else None
        labels = batch[1] if isinstance(batch, list | tuple) and len(batch) > 1 else None
        if logits is not None and isinstance(labels, torch.Tensor) and labels.ndim == 1 and trainer.world_size == 1:
            self.correct = self.correct if batch_idx else []
            self.correct.append(logits.argmax(1) == labels)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.metrics |= {name: float(value) for name, value in trainer.callback_metrics.items() if "/" in name}
        if self.correct and not self.job.pause:
            correct, buffer = torch.cat(self.correct).cpu().numpy(), io.BytesIO()
            np.savez(buffer, bits=np.packbits(correct), count=len(correct))
            write_atomically(self.job.path / CORRECT, buffer.getvalue())

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.metrics |= {name: float(value) for name, value in trainer.callback_metrics.items() if "/" in name}


class StudyRunCLI(RunCLI):
    """A ``fit`` with a :class:`Watch` and without a progress bar, since many runs share one terminal."""

    def __init__(self, *run: Any, watch: Watch) -> None:
        self.watch = watch
        super().__init__(*run)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self._get(self.config_init, "trainer")
        given = config["callbacks"] or []
        config["callbacks"] = [*(given if isinstance(given, list) else [given]), self.watch]
        config["enable_progress_bar"] = False
        return super().instantiate_trainer(**kwargs)


def run_job(job: Job, report: Callable[[Progress], None]) -> dict[str, float]:
    """Run or continue a job, and return its last metrics."""
    watch = Watch(job, report)
    if job.trunk and state_of(replace(job, folder=job.trunk)) == "diverged":
        return {job.metric: math.nan}
    arguments = arguments_of(job)
    forks = job.trunk and not arguments.has("--resume")
    try:
        fork = Fork(Path(job.trunk), job.epochs) if forks else None
        start_run(StudyRunCLI, arguments, watch=watch, fork=fork)
    except Paused:
        return watch.metrics
    except NonFiniteError:  # a result, not a mistake
        return {**watch.metrics, job.metric: math.nan, "train/loss": math.nan}
    return watch.metrics


def work(job: Job, report: Callable[[Progress], None]) -> State:
    """Run or resume a job in this process, and write its result to done.json.

    A run whose final loss is not finite has the state "diverged", which is a result. A run that ends with an error has
    the state "failed", and is run again when the study is started again.
    """
    keep_freed_memory()
    torch.set_num_threads(job.threads)
    start = time.monotonic()
    state: State
    try:
        metrics = run_job(job, report)
        value = metrics.get(job.metric, math.nan)
        if job.metric not in (*metrics, BARRIER) and not job.is_trunk:
            raise UsageError(f"the metric {job.metric!r} is not logged.{did_you_mean(job.metric, metrics)}")
        loss = metrics.get("train/loss", value)
        value = loss if job.is_trunk or job.metric == BARRIER else value
        state, error = ("done" if math.isfinite(value) and math.isfinite(loss) else "diverged"), ""
    except Exception as problem:
        # Any error ends only this run, and is shown in the table.
        metrics, state, error = {}, "failed", f"{one_line(problem) or type(problem).__name__}"[:400]
        traceback.print_exc()
    record: dict[str, Any] = {"state": state, "seconds": round(time.monotonic() - start, 2), "metrics": metrics}
    if error:
        record["error"] = error
    if job.pause:
        record["paused_at"] = job.pause
    write_atomically(job.path / DONE, (json.dumps(record, indent=2) + "\n").encode())
    return state


def arguments_of(job: Job) -> Arguments:
    """Return the command line that resumes a job or starts it; a run folder that cannot be resumed is removed."""
    study = job.path.parents[1]
    inside(study, job.path.relative_to(study))
    if state_of(job) == "failed":
        (job.path / DONE).unlink()
    if can_resume(job.path):
        return Arguments("fit", ("--resume", job.folder))
    if job.path.exists():
        remove_tree(job.path, inside=study)
    if job.trunk:  # the seed is that of the trunk
        more = ["--keep_every_n_epochs", "null"]
    else:
        more = ["--seed_everything", str(job.seed)]
        more += ["--keep_every_n_epochs", str(job.epochs)] if job.is_trunk else []
    return Arguments("fit", ("--config", job.config, *more, "--run_dir", job.folder))
