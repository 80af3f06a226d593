"""Exponential moving average of the weights, without a read from the device in a step."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor


class EMA(EMAWeightAveraging):
    """Validate, test and save an exponential moving average of the weights.

    In update ``t``, the average has the weight ``min(decay, (1 + t) / (10 + t))``: with a constant weight, the initial
    weights would dominate the average for about ``1 / (1 - decay)`` steps, and its accuracy would be that of chance.
    Otherwise the results are those of Lightning's ``EMAWeightAveraging``, which reads a counter from a GPU twice in
    each step and so stops its queue of kernels. This callback reads it in the first update only.

    Args:
        decay: Largest weight of the average in an update, in [0, 1); the current weights have the remaining weight.
        **averaging: Other arguments of ``EMAWeightAveraging``, such as ``update_every_n_steps``.

    Raises:
        ValueError: If ``decay`` is out of range.

    Example:
        >>> trainer = Trainer(callbacks=[EMA(decay=0.99)])
    """

    def __init__(self, decay: float = 0.999, **averaging: Any) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay (={decay}) must be at least 0 and below 1.")
        super().__init__(decay=decay, **averaging)
        self.decay = decay
        self._kwargs["avg_fn"] = self._mean
        self._num_updates: int | None = None  # None until it is read from the average

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._num_updates = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._num_updates or not self._use_buffers or self._device is not None:
            if self._num_updates is None:
                assert self._average_model is not None
                self._num_updates = int(self._average_model.n_averaged)
            before = self._latest_update_step
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            self._num_updates += self._latest_update_step > before
        elif trainer.global_step > self._latest_update_step and self.should_update(step_idx=trainer.global_step - 1):
            self._update(pl_module, self._num_updates)
            self._num_updates += 1
            self._latest_update_step = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if self.update_starting_at_epoch is not None:  # it may have updated the average
            self._num_updates = None

    def _weight(self, num_updates: int) -> float:
        return min(self.decay, (1 + num_updates) / (10 + num_updates))

    def _mean(self, average: Tensor, current: Tensor, num_updates: Tensor | int) -> Tensor:
        weight = self._weight(int(num_updates))
        return weight * average + (1 - weight) * current

    @torch.no_grad()
    def _update(self, pl_module: LightningModule, num_updates: int) -> None:
        assert self._average_model is not None
        weight = self._weight(num_updates)
        module = self._average_model.module
        averages = chain(module.parameters(), module.buffers())
        pairs = list(zip(averages, chain(pl_module.parameters(), pl_module.buffers()), strict=True))
        floats = [(average, current) for average, current in pairs if average.is_floating_point()]
        for average, current in pairs:
            if not average.is_floating_point():  # such as the number of batches, which is rounded down
                average.copy_(weight * average + (1 - weight) * current)
        means = [average for average, _ in floats]
        torch._foreach_mul_(means, weight)
        torch._foreach_add_(means, torch._foreach_mul([current for _, current in floats], 1 - weight))
        self._average_model.n_averaged += 1
