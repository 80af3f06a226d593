"""A broken run that is continued ends with the same bits as one that was never broken."""

from __future__ import annotations

import csv
import io
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor

from lightning_cifar.artifacts import run_folder
from lightning_cifar.files.atomic import write_atomically
from lightning_cifar.files.checksums import move_verified

_KEY = "exact_resume"


class ExactResume(Callback):
    """Save ``checkpoints/resume.ckpt`` at the start of every n-th epoch, with all random states.

    The one before is kept as ``resume.previous.ckpt``.

    Lightning's checkpoints hold no random state, and one that is saved at the end of an epoch is saved before the
    epoch's means are logged. At the start of an epoch all is said and nothing has begun: a run that goes on from there
    sees the same batches, draws the same dropout and logs the same rows. A run that is killed loses at most the epochs
    since then, and repeats them to the bit.

    ``trainer.fit(..., ckpt_path=".../checkpoints/resume.ckpt")`` continues, with this callback, and the first in the
    list. Other checkpoints of the same run carry the random states too.

    Bit-identical needs what the machine makes repeatable: the same number of threads, processes and the same versions.
    A ``DataLoader`` with ``persistent_workers=True`` draws more when it is made than in later epochs: it continues with
    other batches.

    Args:
        every_n_epochs: a smaller number loses less, a larger one writes less.

    Raises:
        ValueError: The number is below 1.
    """

    def __init__(self, every_n_epochs: int = 1) -> None:
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs (={every_n_epochs}) must be at least 1")
        self.every_n_epochs = every_n_epochs
        self._loaded: dict[str, Any] | None = None
        self._resumed_at: int | None = None
        self._first: dict[str, Any] | None = None
        self._saving = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._resumed_at = None
        # Lightning makes the first epoch's iterator, which may draw, right after this hook; each later epoch's, right
        # after on_train_epoch_start. A continued run makes it here.
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
            text = f"the run had {before} threads and goes on with {threads}: the bits may differ"
            sys.stderr.write(f"{text}; set OMP_NUM_THREADS={before}\n")
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                if isinstance(logger, CSVLogger):
                    _restore_table(logger, str(loaded.get("table", "")))
                elif isinstance(logger, TensorBoardLogger):
                    _restore_scalars(logger, str(loaded.get("table", "")))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        first, self._first = self._first, None
        if trainer.fast_dev_run or trainer.current_epoch % self.every_n_epochs:  # type: ignore[attr-defined]
            return
        if self._resumed_at == trainer.global_step:
            return  # this is where we came from
        for logger in trainer.loggers:
            logger.save()
        self._first, self._saving = first, True
        try:
            # Here weights_only says what is saved: all states, not the weights alone.
            path = run_folder(trainer) / "checkpoints" / "resume.ckpt"
            if trainer.is_global_zero and path.is_file():
                move_verified(path, path.with_name("resume.previous.ckpt"))
            trainer.save_checkpoint(path, weights_only=False)
        finally:
            self._first, self._saving = None, False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        tables = [_table(logger) for logger in trainer.loggers if isinstance(logger, CSVLogger)]
        # As it is now: Lightning's logger writes the whole table anew for each new column, and may be killed in it.
        text = next((path.read_bytes().decode() for path in tables if path.is_file()), "")
        threads = torch.get_num_threads()
        checkpoint[_KEY] = {"random": self._first or random_state(), "table": text, "threads": threads}
        if self._saving:
            _between_epochs(checkpoint["loops"]["fit_loop"])

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._loaded = checkpoint.get(_KEY)


def _between_epochs(loops: dict[str, Any]) -> None:
    """Let the loops' counters say that an epoch ended and none has begun.

    As they are at the start of an epoch, Lightning would take it for a full one when it continues, and skip it.
    """
    for progress in (loops["epoch_progress"]["total"], loops["epoch_progress"]["current"]):
        progress["ready"] = progress["completed"]
    loops["epoch_loop.batch_progress"]["is_last_batch"] = False
    for name, value in loops.items():
        if name.startswith("epoch_loop.") and name.endswith("_progress"):
            _zero(value)


def _zero(progress: dict[str, Any]) -> None:
    """Zero the counters of the current epoch, wherever they are; those of the whole run stay."""
    for key, value in progress.items():
        if key == "current":
            progress[key] = dict.fromkeys(value, 0)
        elif isinstance(value, dict):
            _zero(value)


def random_state() -> dict[str, Any]:
    """The states of torch's, Python's and NumPy's global generators, as plain values and tensors."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 - the global one is meant
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(internal), gauss_next],
        "numpy": [
            name,
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what :func:`random_state` gave."""
    torch.set_rng_state(_on_cpu(state["torch"]))
    if state["cuda"]:
        torch.cuda.set_rng_state_all([_on_cpu(each) for each in state["cuda"]])
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002


def _on_cpu(state: Tensor) -> Tensor:
    return state.cpu().to(torch.uint8)


def _table(logger: CSVLogger) -> Path:
    return Path(logger.log_dir) / "metrics.csv"


def _restore_table(logger: CSVLogger, text: str) -> None:
    """Bring back the table as it was; Lightning's logger removes one that it finds."""
    if text:
        logger.experiment.metrics_keys = next(csv.reader(io.StringIO(text, newline="")))
        write_atomically(_table(logger), text.encode())


def _restore_scalars(logger: TensorBoardLogger, text: str) -> None:
    """Write the rows of the table where a training goes on in a new folder, which has no events of its first part."""
    own = logger.experiment.file_writer.event_writer._file_name
    if any(str(path) != own for path in Path(logger.log_dir).glob("events.out.tfevents.*")):
        return
    for row in csv.DictReader(io.StringIO(text, newline="")):
        step = int(row.pop("step"))
        for name, value in row.items():
            if value:
                logger.experiment.add_scalar(name, float(value), step)
