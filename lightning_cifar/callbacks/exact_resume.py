"""Resume an interrupted training with bit-identical results."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lightning_cifar.artifacts import run_folder
from lightning_cifar.callbacks.base import check_minimum
from lightning_cifar.callbacks.optimizer_settings import Settings, optimizer_settings
from lightning_cifar.callbacks.random_states import random_state, set_random_state
from lightning_cifar.callbacks.terminal import print_above_progress_bar
from lightning_cifar.files.atomic import write_atomically
from lightning_cifar.files.checksums import beside, move_verified, write_verified

_KEY = "exact_resume"
KEPT = "epoch-{:03d}.ckpt"
"""Name of the kept state of the end of an epoch."""


class ExactResume(Callback):
    """Save ``checkpoints/resume.ckpt`` at the start of every n-th epoch, with all random states.

    The previous one is kept as ``resume.previous.ckpt``. A killed run loses at most the epochs since the last
    checkpoint; the resumed run has the same batches, dropout masks and logged rows, bit for bit. Lightning's own
    checkpoints contain no random states, and those at the end of an epoch are saved before its means are logged.

    To resume, use this callback, as the first in the list, and
    ``trainer.fit(..., ckpt_path=".../checkpoints/resume.ckpt")``. Other checkpoints of the run contain the random
    states too.

    Bit-identical results require the same number of threads and processes, and the same versions. A ``DataLoader``
    with ``persistent_workers=True`` resumes with other batches, since it draws more random numbers when it is created
    than in later epochs.

    Args:
        every_n_epochs: period of the checkpoints.
        keep_every_n_epochs: Period of the states that are kept, with checksums, as ``checkpoints/epoch-010.ckpt`` for
            the end of epoch 10, also at the end of the training: :func:`lightning_cifar.fork` starts there. The disk
            space is printed with the first. None keeps only the latest.

    Raises:
        ValueError: If a period is below 1.

    Example:
        >>> trainer = Trainer(callbacks=[ExactResume(keep_every_n_epochs=5)])
    """

    def __init__(self, every_n_epochs: int = 1, keep_every_n_epochs: int | None = None) -> None:
        check_minimum(every_n_epochs=every_n_epochs, keep_every_n_epochs=keep_every_n_epochs)
        self.every_n_epochs, self.keep_every_n_epochs = every_n_epochs, keep_every_n_epochs
        self._loaded: dict[str, Any] | None = None
        self._resumed_at: int | None = None
        self._first: dict[str, Any] | None = None
        self._saving = self._keeping = self._has_kept = False
        self._optimizers: Settings = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._resumed_at = None
        self._optimizers = optimizer_settings(trainer)
        # Lightning creates the iterator of the first epoch, which may draw random numbers, after this hook, and those
        # of later epochs after on_train_epoch_start. A resumed run creates it here.
        if self._loaded is None:
            self._first = random_state()
            return
        loaded, self._loaded = self._loaded, None
        self._resumed_at = trainer.global_step
        try:
            set_random_state(loaded["random"])
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ValueError(f"the checkpoint's random states cannot be restored: {error!r}: it is damaged") from error
        before, threads = loaded.get("threads"), torch.get_num_threads()
        if before not in (None, threads) and trainer.is_global_zero:
            text = f"the run used {before} threads and resumes with {threads}: results may not be bit-identical"
            sys.stderr.write(f"{text}; set OMP_NUM_THREADS={before}\n")
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                if isinstance(logger, CSVLogger):
                    _restore_table(logger, str(loaded.get("table", "")))
                elif isinstance(logger, TensorBoardLogger):
                    _restore_scalars(logger, str(loaded.get("table", "")))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        first, self._first = self._first, None
        if self._resumed_at == trainer.global_step:
            return  # the checkpoint that was loaded
        folder = run_folder(trainer) / "checkpoints"
        self._keep(trainer, folder)  # before resume.ckpt, from which a killed run would not keep this epoch again
        if not trainer.current_epoch % self.every_n_epochs and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            path = folder / "resume.ckpt"
            if trainer.is_global_zero and path.is_file():
                move_verified(path, path.with_name("resume.previous.ckpt"))
            self._first = first
            self._save(trainer, path)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(trainer, run_folder(trainer) / "checkpoints")

    def _keep(self, trainer: Trainer, folder: Path) -> None:
        """Keep the state at the end of an epoch if it is due."""
        epoch, period = trainer.current_epoch, self.keep_every_n_epochs
        if period is None or not epoch or epoch % period or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return  # the training ended within an epoch
        path, self._keeping = folder / KEPT.format(epoch), True
        try:
            self._save(trainer, path)
        finally:
            self._keeping = False
        if not trainer.is_global_zero or not path.is_file():
            return
        if not beside(path).is_file():  # written by a Trainer without VerifiedCheckpointIO
            write_verified(path, path.read_bytes())
        if not self._has_kept:
            size, planned = path.stat().st_size / 1e6, (trainer.max_epochs or 0) // period
            more = f"; the {planned} states of this run: {planned * size:.1f} MB" if planned > 1 else ""
            print_above_progress_bar(f"kept the state of epoch {epoch}: {path}, {size:.1f} MB{more}")
        self._has_kept = True

    def _save(self, trainer: Trainer, path: Path) -> None:
        for logger in trainer.loggers:
            logger.save()
        self._saving = True
        try:
            trainer.save_checkpoint(path, weights_only=False)  # False saves all states
        finally:
            self._first, self._saving = None, False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        tables = [_table(logger) for logger in trainer.loggers if isinstance(logger, CSVLogger)]
        # Lightning's logger rewrites the table for each new column, and may be killed while writing.
        text = next((path.read_bytes().decode() for path in tables if path.is_file()), "")
        threads = torch.get_num_threads()
        checkpoint[_KEY] = {"random": self._first or random_state(), "table": text, "threads": threads}
        checkpoint[_KEY]["optimizers"] = self._optimizers
        if self._keeping and (fingerprint := getattr(trainer.datamodule, "fingerprint", None)):  # type: ignore[attr-defined]
            checkpoint[_KEY]["data"] = fingerprint()
        if self._saving:
            _between_epochs(checkpoint["loops"]["fit_loop"])

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._loaded = checkpoint.get(_KEY)


def _between_epochs(loops: dict[str, Any]) -> None:
    """Set the loop counters to the state between two epochs.

    With the counters of a started epoch, Lightning would treat this epoch as complete on resuming, and skip it.
    """
    for progress in (loops["epoch_progress"]["total"], loops["epoch_progress"]["current"]):
        progress["ready"] = progress["completed"]
    loops["epoch_loop.batch_progress"]["is_last_batch"] = False
    for name, value in loops.items():
        if name.startswith("epoch_loop.") and name.endswith("_progress"):
            _zero(value)


def _zero(progress: dict[str, Any]) -> None:
    """Reset the counters of the current epoch, but not those of the whole run."""
    for key, value in progress.items():
        if key == "current":
            progress[key] = dict.fromkeys(value, 0)
        elif isinstance(value, dict):
            _zero(value)


def _table(logger: CSVLogger) -> Path:
    return Path(logger.log_dir) / "metrics.csv"


def _restore_table(logger: CSVLogger, text: str) -> None:
    """Restore the table, which Lightning's logger removes when it starts."""
    if text:
        logger.experiment.metrics_keys = next(csv.reader(io.StringIO(text, newline="")))
        write_atomically(_table(logger), text.encode())


def _restore_scalars(logger: TensorBoardLogger, text: str) -> None:
    """Log the rows of the table again if the run resumes in a new folder without earlier event files."""
    own = logger.experiment.file_writer.event_writer._file_name
    if any(str(path) != own for path in Path(logger.log_dir).glob("events.out.tfevents.*")):
        return
    for row in csv.DictReader(io.StringIO(text, newline="")):
        step = int(row.pop("step"))
        for name, value in row.items():
            if value:
                logger.experiment.add_scalar(name, float(value), step)
