"""The LightningModule that every regressor here is: mean squared error between numbers."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from lightning_cifar.models.trainable import Batch, Trainable


class Regressor(Trainable):
    """A network fitted by least squares. Subclasses build ``self.network``: (N, in) -> (N, out).

    Logs ``train/loss`` as the mean over an epoch (and every ``log_every_n_steps`` steps as ``train/loss_step``), in
    training mode, so with dropout; ``val/loss`` and ``test/loss`` over the whole split in evaluation mode.
    Optimizer and regime: see :class:`~lightning_cifar.models.trainable.Trainable`.
    """

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error over all numbers of a batch, both (N, out).

        Raises:
            ValueError: If the shapes differ, which broadcasting would hide.
        """
        if outputs.shape != targets.shape:
            raise ValueError(f"Outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)} differ in shape.")
        return F.mse_loss(outputs, targets)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        loss, _ = self.training_loss(batch)
        if self._note_loss(loss, len(batch[0])):
            self.log("train/loss_step", loss, sync_dist=True)
            self.log("loss", loss, prog_bar=True, logger=False)
        return {"loss": loss}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._evaluation_step("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._evaluation_step("test", batch)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Fitted values (N, out)."""
        return self.forward(batch if isinstance(batch, Tensor) else batch[0])

    def _evaluation_step(self, split: Literal["val", "test"], batch: Batch) -> dict[str, Tensor]:
        inputs, targets = batch
        outputs = self(inputs)
        loss = self.evaluation_loss(outputs, targets)
        mean = self.val_loss if split == "val" else self.test_loss
        mean.update(loss, len(inputs))
        self.log(f"{split}/loss", mean, on_epoch=True, prog_bar=True)
        return {"loss": loss, "outputs": outputs}
