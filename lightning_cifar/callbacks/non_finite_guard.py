"""Stop the training at the first loss or gradient that is not finite."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from lightning_cifar.callbacks.base import check_minimum


class NonFiniteError(ValueError):
    """A loss or a gradient is NaN or infinite."""


class NonFiniteGuard(Callback):
    """Stop the training, or skip the optimizer step, if the loss or a gradient is NaN or infinite.

    Lightning itself would continue, end normally, and save NaN weights. With this callback the weights of the last
    valid step and the checkpoints are kept. With a gradient scaler (``16-mixed``), which handles infinite gradients,
    only the loss is checked.

    On a GPU, ``"stop"`` reads no value in a step, since that would stop the queue of kernels: the steps are checked
    every ``log_every_n_steps``, at the end of an epoch and before a checkpoint is saved. The error names the first step
    that was not finite. The checkpoints are valid, but the weights in memory are those of a later step. ``"skip"``
    reads one value in each step.

    Args:
        action: ``"stop"`` raises an error; ``"skip"`` skips the optimizer step and warns at the end.
        max_skipped: maximum number of consecutive skipped steps; after that the training stops.

    Raises:
        ValueError: If an argument is out of range.
        NonFiniteError: During training; states step, epoch and batch.

    Example:
        >>> trainer = Trainer(callbacks=[NonFiniteGuard(action="skip")])
    """

    def __init__(self, action: Literal["stop", "skip"] = "stop", max_skipped: int = 10) -> None:
        if action not in ("stop", "skip"):
            raise ValueError(f"action (={action!r}) must be stop or skip")
        check_minimum(max_skipped=max_skipped)
        self.action, self.max_skipped = action, max_skipped
        self.num_skipped = 0  # in the whole training
        self._in_a_row = 0
        self._batch = 0
        self._loss: Tensor | None = None
        self._unread: list[tuple[Tensor, str]] = []  # value and message of the steps that are not checked yet

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._in_a_row, self._loss, self._unread = 0, None, []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch = batch_idx

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        # The sum over several micro-batches or losses is not finite if one of them is not.
        self._loss = loss.detach() if self._loss is None else self._loss + loss.detach()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        loss, self._loss = self._loss, None
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        # A sum is not finite if any part is not, and takes a third of the time of a norm; in float16 it could overflow.
        wide = torch.float32 if parameters and parameters[0].dtype == torch.float16 else None
        probes = [] if scaled else [p.grad.sum(dtype=wide) for p in parameters if p.grad is not None]
        # All ranks must decide the same: they share the gradients, but not the losses.
        if loss is not None and (trainer.world_size == 1 or not probes):
            probes.append(loss)
        probes = [probe.abs() if probe.is_complex() else probe for probe in probes]
        if not probes:
            return
        if probes[0].device.type == "cpu":
            finite = all(math.isfinite(probe.item()) for probe in probes)
        else:
            total = torch.stack([probe.float() for probe in probes]).sum()
            if self.action == "stop":
                self._unread.append((total, self._message(trainer)))
                if len(self._unread) >= (trainer.log_every_n_steps or 50):  # type: ignore[attr-defined]  # set untyped
                    self._check_unread()
                return
            finite = math.isfinite(total.item())
        if finite:
            self._in_a_row = 0
        else:
            self._act(trainer, pl_module, parameters)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_unread()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check_unread()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_unread()
        if self.num_skipped:
            rank_zero_warn(f"{self.num_skipped} steps were skipped: their loss or gradients were not finite.")

    def _act(self, trainer: Trainer, pl_module: LightningModule, parameters: list[Tensor]) -> None:
        if self.action == "stop":
            raise NonFiniteError(self._message(trainer))
        for name, buffer in pl_module.named_buffers():
            if buffer.is_floating_point() and not torch.isfinite(buffer).all():
                raise NonFiniteError(f"{self._message(trainer)} The step cannot be skipped: {name} is not finite.")
        self._in_a_row += 1
        self.num_skipped += 1
        if self._in_a_row > self.max_skipped:
            raise NonFiniteError(f"{self._message(trainer)} {self.max_skipped} steps in a row were skipped.")
        for parameter in parameters:
            parameter.grad = None  # optimizers ignore parameters without a gradient

    def _check_unread(self) -> None:
        unread, self._unread = self._unread, []
        values = torch.stack([value for value, _ in unread]).tolist() if unread else []
        for value, (_, message) in zip(values, unread, strict=True):
            if not math.isfinite(value):
                raise NonFiniteError(message)

    def _message(self, trainer: Trainer) -> str:
        return (
            f"the loss or a gradient is not finite at step {trainer.global_step} "
            f"(epoch {trainer.current_epoch}, batch {self._batch}): lower the learning rate, clip with "
            "--trainer.gradient_clip_val 1, or check the data."
        )
