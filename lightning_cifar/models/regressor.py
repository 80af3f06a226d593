"""Base class of regressors with mean squared error."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lightning_cifar.models.trainable import Batch, Trainable


class Regressor(Trainable):
    """A network with mean squared error. Subclasses build ``self.network``: (N, in) -> (N, out).

    The module logs ``train/loss`` as the mean over an epoch (and every ``log_every_n_steps`` steps as
    ``train/loss_step``), in training mode with dropout, and ``val/loss`` and ``test/loss`` over the whole split in
    evaluation mode.
    Arguments are those of :class:`~lightning_cifar.models.trainable.Trainable`.

    Example:
        >>> import torch
        >>> from lightning_cifar import Regressor
        >>> Regressor(lr=0.1).loss(torch.ones(4, 1), torch.zeros(4, 1))
        tensor(1.)
    """

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error of outputs and targets, both (N, out).

        Raises:
            ValueError: If the shapes differ; they are not broadcast.
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
        loss, outputs = self._evaluate("val", batch)
        return {"loss": loss, "outputs": outputs}

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        loss, outputs = self._evaluate("test", batch)
        return {"loss": loss, "outputs": outputs}

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Return the predicted values (N, out)."""
        return self.forward(batch if isinstance(batch, Tensor) else batch[0])
