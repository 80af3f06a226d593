"""A run of a study: a ``fit`` like any other, watched."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any, ClassVar

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from lightning_cifar.artifacts import write_atomically
from lightning_cifar.callbacks.non_finite_guard import NonFiniteError
from lightning_cifar.runs import RunCLI
from lightning_cifar.studies.curves import TIMES
from lightning_cifar.studies.jobs import Job, Progress, words_of

HEADER = "epoch,step,seconds"


class Watch(Callback):
    """Say after each epoch how far the run is, and note the time: cumulative over all parts of a broken run."""

    def __init__(self, job: Job, say: Callable[[Progress], None]) -> None:
        self.job, self.say = job, say
        self.rows: list[str] = []
        self.before = 0.0
        self.start = time.monotonic()
        self.metrics: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"rows": list(self.rows), "seconds": self.before + time.monotonic() - self.start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.before = list(state_dict["rows"]), float(state_dict["seconds"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.start = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        seconds = self.before + time.monotonic() - self.start
        self.rows.append(f"{trainer.current_epoch},{trainer.global_step},{seconds:.3f}")
        if trainer.is_global_zero:
            text = "\n".join([HEADER, *self.rows, ""])
            write_atomically(self.job.path / TIMES, text.encode())
        value = trainer.callback_metrics.get(self.job.metric)
        epochs = trainer.max_epochs or 0
        self.say(Progress(trainer.current_epoch + 1, epochs, math.nan if value is None else float(value)))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.metrics |= {name: float(value) for name, value in trainer.callback_metrics.items() if "/" in name}

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.metrics |= {name: float(value) for name, value in trainer.callback_metrics.items() if "/" in name}


class StudyRunCLI(RunCLI):
    """A ``fit`` with our watch, without a progress bar: many runs share one terminal."""

    watch: ClassVar[Watch]

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self._get(self.config_init, "trainer")
        given = config["callbacks"] or []
        config["callbacks"] = [*(given if isinstance(given, list) else [given]), type(self).watch]
        config["enable_progress_bar"] = False
        return super().instantiate_trainer(**kwargs)


class CheckCLI(RunCLI):
    """Parse, and build model and data, as a run would; then stop."""

    built: ClassVar[pl.LightningDataModule]

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        return pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=0)

    def _run_subcommand(self, subcommand: str) -> None:
        """Keep the data alone: everything that can be refused without them was accepted."""
        CheckCLI.built = self.datamodule


def run_job(job: Job, say: Callable[[Progress], None]) -> dict[str, float]:
    """Run or continue a job, and return its last metrics."""
    StudyRunCLI.watch = Watch(job, say)
    try:
        StudyRunCLI.start(words_of(job))
    except NonFiniteError:  # a result, not a mistake
        return {**StudyRunCLI.watch.metrics, job.metric: math.nan, "train/loss": math.nan}
    return StudyRunCLI.watch.metrics


def check(words: list[str]) -> pl.LightningDataModule:
    """Refuse a ``fit`` that could not start, without starting it; its data as they are before they are prepared.

    Raises:
        UsageError: In the words of the command line.
    """
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # seed and devices, which each run tells in its log
    try:
        CheckCLI.start(words)
    finally:
        logging.disable(before)
    return CheckCLI.built
