"""Text output of a training run: a line for each epoch, and a warning about too few steps."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sized

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lightning_cifar.models.training_plan import planned_steps

FEW_STEPS = 100  # with fewer steps in total, most networks learn almost nothing
_MAX_NETWORKS = 4  # in a line


class EpochLines(Callback):
    """Prints a line for each epoch if the output is a file, in which a progress bar is not visible.

    It prints nothing in a terminal, or if the progress bar is turned off.
    """

    def __init__(self) -> None:
        self._begin = 0.0
        self._validated = False
        self._ended: tuple[str, float] | None = None  # name of the epoch, and its seconds

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._print(trainer)
        self._begin, self._validated = time.perf_counter(), False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # The hook of the module, which logs the loss of the epoch, is called after those of all callbacks.
        self._ended = _place(trainer), time.perf_counter() - self._begin

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._print(trainer)

    def _print(self, trainer: pl.Trainer) -> None:
        ended, self._ended = self._ended, None
        if ended is None or trainer.progress_bar_callback is None:
            return
        place, seconds = ended
        # On all ranks, since reading a metric can synchronize them.
        numbers = _numbers(trainer.callback_metrics, self._validated)
        if trainer.is_global_zero and not sys.stdout.isatty():
            sys.stdout.write("  ".join([place, *numbers, f"{seconds:.0f} s"]) + "\n")
            sys.stdout.flush()


def _place(trainer: pl.Trainer) -> str:
    epoch = f"epoch {number_of_epoch(trainer)}"
    return epoch if trainer.max_steps <= 0 else f"{epoch}  step {trainer.global_step}/{trainer.max_steps}"


def number_of_epoch(trainer: pl.Trainer) -> str:
    """Return the current epoch, counted from 1, and the number of epochs: ``3/10``, or ``3`` if steps end the run."""
    known = trainer.max_steps <= 0 and trainer.max_epochs not in (None, -1)
    return f"{trainer.current_epoch + 1}" + (f"/{trainer.max_epochs}" if known else "")


def _numbers(metrics: Mapping[str, Tensor], validated: bool) -> list[str]:
    """Return the training loss, the validation metric of this epoch, and the speed."""
    found = _logged(metrics, "train/loss")
    if validated:
        found += _logged(metrics, "val/accuracy") or _logged(metrics, "val/loss")
    parts = []
    for name in found:
        value = float(metrics[name])
        parts.append(f"{name} {100 * value:.1f} %" if name.startswith("val/accuracy") else f"{name} {value:.3g}")
    if "throughput" in metrics:
        parts.append(f"{float(metrics['throughput']):,.0f} images/s")
    return parts


def _logged(metrics: Mapping[str, Tensor], name: str) -> list[str]:
    """Return the names of a metric: of the network, or of several networks trained side by side."""
    return [name] if name in metrics else [each for each in metrics if each.startswith(f"{name}/")][:_MAX_NETWORKS]


class FewSteps(Callback):
    """Warns, in one line, about a training run with very few steps.

    A training run that is limited on purpose, by steps or batches, is not reported.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        limit = trainer.limit_train_batches  # an integer, including 1, is a number of batches
        cut = trainer.fast_dev_run or trainer.overfit_batches or isinstance(limit, int) or limit < 1  # type: ignore[attr-defined]
        if cut or trainer.max_steps != -1 or not trainer.is_global_zero:
            return
        planned = int(planned_steps(trainer))
        if not 0 < planned < FEW_STEPS:
            return
        each = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        steps = f"{planned} in all"
        if each * (trainer.max_epochs or 1) == planned:  # not if the accumulation of gradients changes
            steps = f"{each} step{'s' * (each != 1)} an epoch, {steps}"
        loader = trainer.train_dataloader
        held, size = getattr(loader, "labels", getattr(loader, "dataset", None)), getattr(loader, "batch_size", None)
        if isinstance(held, Sized) and size:
            steps = f"{len(held)} training images in batches of {size}: {steps}"
        sys.stderr.write(f"{steps}: pass a smaller --data.batch_size or more --trainer.max_epochs\n")
