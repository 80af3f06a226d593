"""Training ends at the first loss or gradient that is not a finite number, and says where."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer


class NonFiniteError(ValueError):
    """A loss or a gradient is NaN or infinite."""


class NonFiniteGuard(Callback):
    """Stop, or skip the step, before an optimizer takes a loss or gradient that is not a finite number.

    Lightning goes on with such a loss, ends normally, and leaves weights that are NaN. Here the weights of the last
    good step stay, and so do the checkpoints. On a GPU the check does not wait: the error is raised one step later,
    after the bad step was taken; the checkpoints are those of before all the same. Where a gradient scaler is at work
    (``16-mixed``), infinite gradients are its business, and only the loss is looked at.

    Args:
        action: ``"stop"`` raises an error; ``"skip"`` leaves the optimizer step out and warns.
        max_skipped: so many steps in a row may be skipped, then it stops.

    Raises:
        ValueError: An argument is out of range.
        NonFiniteError: In training, with step, epoch and batch.
    """

    def __init__(self, action: Literal["stop", "skip"] = "stop", max_skipped: int = 10) -> None:
        if action not in ("stop", "skip"):
            raise ValueError(f"action (={action!r}) must be stop or skip")
        if max_skipped < 1:
            raise ValueError(f"max_skipped (={max_skipped}) must be at least 1")
        self.action, self.max_skipped = action, max_skipped
        self.num_skipped = 0  # of the whole training
        self._in_a_row = 0
        self._batch = 0
        self._loss: Tensor | None = None
        self._waiting: tuple[Tensor, torch.cuda.Event, str] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._in_a_row, self._loss, self._waiting = 0, None, None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch = batch_idx

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        # Of several micro-batches or losses, the sum says whether one is bad.
        self._loss = loss.detach() if self._loss is None else self._loss + loss.detach()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        loss, self._loss = self._loss, None
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        # A sum shows what is not finite in any part, and costs a third of a norm; float16 could overflow in it.
        wide = torch.float32 if parameters and parameters[0].dtype == torch.float16 else None
        probes = [] if scaled else [p.grad.sum(dtype=wide) for p in parameters if p.grad is not None]
        # Ranks share the gradients, not the losses: all must come to the same decision.
        if loss is not None and (trainer.world_size == 1 or not probes):
            probes.append(loss)
        probes = [probe.abs() if probe.is_complex() else probe for probe in probes]
        if not probes:
            return
        if probes[0].is_cuda and self.action == "stop":
            self._look_later(trainer, torch.stack([probe.float() for probe in probes]).sum())
        elif not all(math.isfinite(probe.item()) for probe in probes):
            self._act(trainer, pl_module, parameters)
        else:
            self._in_a_row = 0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look_back()
        if self.num_skipped:
            rank_zero_warn(f"{self.num_skipped} steps were skipped: their loss or gradients were not finite numbers.")

    def _act(self, trainer: Trainer, pl_module: LightningModule, parameters: list[Tensor]) -> None:
        if self.action == "stop":
            raise NonFiniteError(self._message(trainer))
        for name, buffer in pl_module.named_buffers():
            if buffer.is_floating_point() and not torch.isfinite(buffer).all():
                raise NonFiniteError(f"{self._message(trainer)} The step cannot be skipped: {name} is spoilt already.")
        self._in_a_row += 1
        self.num_skipped += 1
        if self._in_a_row > self.max_skipped:
            raise NonFiniteError(f"{self._message(trainer)} {self.max_skipped} steps in a row were skipped.")
        for parameter in parameters:
            parameter.grad = None  # an optimizer leaves out what has none

    def _look_later(self, trainer: Trainer, probe: Tensor) -> None:
        """Look at the value of the step before, which has arrived by now, and send for this one."""
        self._look_back()
        value = torch.empty((), dtype=probe.dtype, pin_memory=True)
        value.copy_(probe, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._waiting = value, event, self._message(trainer)

    def _look_back(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        value, event, message = waiting
        event.synchronize()
        if not torch.isfinite(value):
            raise NonFiniteError(message)

    def _message(self, trainer: Trainer) -> str:
        return (
            f"the loss or a gradient is not a finite number at step {trainer.global_step} "
            f"(epoch {trainer.current_epoch}, batch {self._batch}): lower the learning rate, clip with "
            "--trainer.gradient_clip_val 1, or look at the data."
        )
