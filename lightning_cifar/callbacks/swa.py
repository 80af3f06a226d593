"""Stochastic weight averaging (Izmailov et al., arXiv:1803.05407)."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn


class SWAWeightAveraging(WeightAveraging):
    """Average the weights at the ends of the last epochs, with a constant learning rate.

    After the first average, the averaged weights are validated, saved in checkpoints, tested and exported; training
    continues with the current weights. The number of epochs and the schedule before the averaging do not change. Unlike
    in the paper (Izmailov et al., arXiv:1803.05407), the running statistics of batch normalization are averaged too,
    not recomputed.

    Lightning's StochasticWeightAveraging sets the average after the last checkpoint is written, and trains an
    additional epoch for networks with batch normalization.

    Args:
        start: Fraction of the training after which averaging starts.
        lr: Learning rate while averaging; None keeps the schedule.
        device: Device of the average; None uses the device of the network.

    Raises:
        ValueError: If a value is out of range.

    Example:
        >>> trainer = Trainer(max_epochs=20, callbacks=[SWAWeightAveraging(start=0.8)])
    """

    def __init__(self, start: float = 0.75, lr: float | None = 0.01, device: str | None = None) -> None:
        if not 0 <= start < 1:
            raise ValueError(f"start (={start}) must be at least 0 and below 1.")
        if lr is not None and not (math.isfinite(lr) and lr > 0):
            raise ValueError(f"lr (={lr}) must be a positive number, or null to keep the schedule.")
        super().__init__(device=device)
        self.start, self.lr = start, lr

    @property
    def averages(self) -> bool:
        """Whether an average exists."""
        return self._average_model is not None and int(self._average_model.n_averaged) > 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.max_epochs in (None, -1) and trainer.max_steps == -1:
            raise ValueError("SWAWeightAveraging needs a limit: set trainer.max_epochs or max_steps.")
        super().setup(trainer, pl_module, stage)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.lr is not None and self._is_late(trainer):
            for optimizer in trainer.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = self.lr

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Before the validation of the epoch, which uses the average that includes this epoch.
        ends = trainer.is_last_batch or trainer.global_step == trainer.max_steps
        if ends and self._is_late(trainer) and trainer.global_step > self._latest_update_step:
            assert self._average_model is not None
            self._average_model.update_parameters(pl_module)
            self._latest_update_step = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do nothing, since the average is updated after the last batch."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.averages:
            super().on_train_end(trainer, pl_module)
        else:
            rank_zero_warn("SWAWeightAveraging had no effect: the training ended before the averaging started.")

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.averages and trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.averages and trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.averages:
            super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if "averaging_state" in checkpoint:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def _is_late(self, trainer: Trainer) -> bool:
        """Return whether this epoch (or step, if steps are the limit) belongs to the averaged part."""
        if trainer.max_steps > 0:
            return trainer.global_step >= self.start * trainer.max_steps
        assert trainer.max_epochs is not None
        return trainer.current_epoch >= int(self.start * trainer.max_epochs)
