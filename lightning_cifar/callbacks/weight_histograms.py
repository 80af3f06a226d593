"""Histograms of weights and gradients in TensorBoard."""

from __future__ import annotations

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lightning_cifar.artifacts import log_histogram
from lightning_cifar.callbacks.base import check_minimum


class WeightHistograms(Callback):
    """Log histograms of the weights and gradients of each layer, after the first and every n-th epoch.

    TensorBoard receives ``weights/<parameter>`` and ``gradients/<parameter>``; other loggers receive nothing. The
    gradients are those of the last step of the epoch. Values that are not finite are left out, and so is a parameter
    without finite values.

    Args:
        every_n_epochs: period in epochs.
        bins: number of bins of equal width.

    Raises:
        ValueError: If a number is below 1.

    Example:
        >>> trainer = Trainer(callbacks=[WeightHistograms(every_n_epochs=5)])
    """

    def __init__(self, every_n_epochs: int = 5, bins: int = 64) -> None:
        check_minimum(every_n_epochs=every_n_epochs, bins=bins)
        self.every_n_epochs, self.bins = every_n_epochs, bins
        self._gradients: dict[str, Tensor] = {}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if trainer.is_last_batch and self._is_due(trainer):  # a module may set them to None after the step
            named = pl_module.named_parameters()
            self._gradients |= {name: each.grad.detach().clone() for name, each in named if each.grad is not None}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_due(trainer):
            for name, parameter in pl_module.named_parameters():
                self._log(trainer, f"weights/{name}", parameter.detach())
            for name, gradient in self._gradients.items():
                self._log(trainer, f"gradients/{name}", gradient)
        self._gradients = {}

    def _is_due(self, trainer: Trainer) -> bool:
        epoch = trainer.current_epoch + 1
        return trainer.is_global_zero and (epoch == 1 or epoch % self.every_n_epochs == 0)

    def _log(self, trainer: Trainer, tag: str, values: Tensor) -> None:
        array = values.cpu().double().numpy().ravel()
        array = array[np.isfinite(array)]
        if len(array):
            log_histogram(trainer, tag, *np.histogram(array, self.bins))
