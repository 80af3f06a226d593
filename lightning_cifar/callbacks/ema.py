"""Exponential moving average of the weights, without a read from the device in a step."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging


class EMA(EMAWeightAveraging):
    """Validate, test and save an exponential moving average of the weights.

    The results are those of Lightning's ``EMAWeightAveraging``, which reads a counter from a GPU twice in each step and
    so stops its queue of kernels. This callback reads it in the first update only.

    Args:
        decay: Weight of the average in each update, in [0, 1); the current weights have the remaining weight.
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

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._latest_update_step == 0 or not self._use_buffers or self._device is not None:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        elif trainer.global_step > self._latest_update_step and self.should_update(step_idx=trainer.global_step - 1):
            self._update(pl_module)
            self._latest_update_step = trainer.global_step

    @torch.no_grad()
    def _update(self, pl_module: LightningModule) -> None:
        assert self._average_model is not None
        module = self._average_model.module
        averages = chain(module.parameters(), module.buffers())
        pairs = list(zip(averages, chain(pl_module.parameters(), pl_module.buffers()), strict=True))
        floats = [(average, current) for average, current in pairs if average.is_floating_point()]
        for average, current in pairs:
            if not average.is_floating_point():  # such as the number of batches, which is rounded down
                average.copy_(self.decay * average + (1 - self.decay) * current)
        means = [average for average, _ in floats]
        torch._foreach_mul_(means, self.decay)
        torch._foreach_add_(means, torch._foreach_mul([current for _, current in floats], 1 - self.decay))
        self._average_model.n_averaged += 1
