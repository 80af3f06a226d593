"""What classifiers and regressors share: optimizer, learning-rate regime, resume, the mean loss of an epoch."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_cifar.models.optimizers import MuonAdamW
from lightning_cifar.models.training_plan import check_last_batch, planned_steps
from lightning_cifar.schedules import Schedule, check_regime, lr_factor

Batch = tuple[Tensor, Tensor]
OptimizerName = Literal["sgd", "adam", "adamw", "rmsprop", "muon"]


class MeanLoss(Metric):
    """Mean of the losses of all samples, at any number of processes and any batch size.

    Lightning's mean over processes divides by an integer mean of their numbers of samples. MeanMetric of torchmetrics
    either leaves losses that are not finite out or ignores the weights.
    """

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, count: int) -> None:
        """Add the mean loss of ``count`` samples."""
        self.total = self.total + loss.detach() * count
        self.count = self.count + count

    def compute(self) -> Tensor:
        return self.total / self.count


class Trainable(pl.LightningModule):
    """A network with a loss, an optimizer and a learning-rate regime. Subclasses build ``self.network``.

    Logs ``train/loss`` as the mean over an epoch.

    Args:
        lr: Learning rate: the peak of the schedule.
        optimizer: Which of torch's optimizers. ``muon`` serves matrices and convolutions; all else gets AdamW.
        momentum: Of ``sgd``, ``rmsprop`` and ``muon``; ignored by the others.
        nesterov: Nesterov's momentum, for ``sgd`` and ``muon``.
        weight_decay: L2 penalty; decoupled for ``adamw`` and ``muon``.
        decay_norm_and_bias: Whether it holds for normalisation layers and biases too.
        schedule: Shape of the way down from the peak, or a combination (``one-cycle``, ``triangular``,
            ``warm-restarts``), see :func:`~lightning_cifar.schedules.lr_factor`.
        warmup: Part of each cycle on the way up to the peak; None is 0, or the combination's.
        cycles: Number of cycles; None is 1, or the combination's.
        cycle_mult: Length of a cycle over the length of the one before; None is 1, or the combination's.
        final_lr: Lowest learning rate, as a fraction of ``lr``; None is the schedule's custom.

    Raises:
        ValueError: If a value is out of range.
    """

    monitor: ClassVar[tuple[str, Literal["min", "max"]]] = ("val/loss", "min")
    """The metric by which one checkpoint is better than another, and its better end."""

    network: nn.Module

    def __init__(
        self,
        *,
        lr: float = 0.01,
        optimizer: OptimizerName = "sgd",
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decay_norm_and_bias: bool = True,
        schedule: Schedule = "constant",
        warmup: float | None = None,
        cycles: int | None = None,
        cycle_mult: float | None = None,
        final_lr: float | None = None,
    ) -> None:
        super().__init__()
        if not (math.isfinite(lr) and lr > 0):
            raise ValueError(f"lr (={lr}) must be a positive number.")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum (={momentum}) must be at least 0 and below 1.")
        if not (math.isfinite(weight_decay) and weight_decay >= 0):
            raise ValueError(f"weight_decay (={weight_decay}) must be 0 or a positive number.")
        if nesterov and optimizer == "sgd" and momentum == 0:
            raise ValueError("nesterov needs a momentum (=0) above 0.")
        regime: dict[str, Any] = {
            "schedule": schedule,
            "warmup": warmup,
            "cycles": cycles,
            "cycle_mult": cycle_mult,
            "final_lr": final_lr,
        }
        check_regime(**regime)
        self._regime = regime
        self.lr, self.optimizer_name = lr, optimizer
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay
        self.decay_norm_and_bias = decay_norm_and_bias
        self._log_every_n_steps = 50  # the trainer's, once there is one
        self._loss_sum: Tensor | float = 0.0
        self._num_seen = 0
        self.val_loss, self.test_loss = MeanLoss(), MeanLoss()

    def forward(self, inputs: Tensor) -> Tensor:
        """What the network makes of the first part of a batch."""
        outputs: Tensor = self.network(inputs)
        return outputs

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over the batch of the loss that training minimises."""

    def evaluation_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss that validation and test report: the same, unless training's is made harder on purpose."""
        return self.loss(outputs, targets)

    def training_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss of a training batch, and the outputs that it comes from."""
        inputs, targets = batch
        outputs = self(inputs)
        return self.loss(outputs, targets), outputs

    def on_train_start(self) -> None:
        self._log_every_n_steps = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set untyped
        check_last_batch(self.trainer, self.network, self.example_input_array)
        if self.trainer.ckpt_path is not None:
            self._apply_settings()
        self.on_train_epoch_start()  # a resume in the middle of an epoch skips it

    def on_train_epoch_start(self) -> None:
        self._loss_sum = torch.zeros((), device=self.device)
        self._num_seen = 0

    def on_train_epoch_end(self) -> None:
        self.log("train/loss", self._loss_sum / max(self._num_seen, 1), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        total = max(1.0, planned_steps(self.trainer))
        optimizer = self.make_optimizer()
        scheduler = self.make_scheduler(optimizer, total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer with its learning rate at the peak."""
        parameters = self._parameter_groups()
        kwargs: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay}
        match self.optimizer_name:
            case "sgd":
                return torch.optim.SGD(parameters, momentum=self.momentum, nesterov=self.nesterov, **kwargs)
            case "adam":
                return torch.optim.Adam(parameters, **kwargs)
            case "adamw":
                return torch.optim.AdamW(parameters, **kwargs)
            case "rmsprop":
                return torch.optim.RMSprop(parameters, momentum=self.momentum, **kwargs)
            case "muon":
                return MuonAdamW(parameters, momentum=self.momentum, nesterov=self.nesterov, **kwargs)

    def make_scheduler(self, optimizer: torch.optim.Optimizer, num_steps: float) -> torch.optim.lr_scheduler.LambdaLR:
        """The regime over so many optimizer steps, to be stepped after each.

        Raises:
            ValueError: If there is no end and the regime needs one.
        """
        if math.isinf(num_steps) and self._regime["schedule"] != "constant":
            raise ValueError(f"schedule={self._regime['schedule']} needs an end: set trainer.max_epochs or max_steps.")
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_factor(min(step / num_steps, 1.0), **self._regime)
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # A checkpoint says by itself which network it holds.
        checkpoint["class_path"] = f"{type(self).__module__}.{type(self).__qualname__}"

    def _note_loss(self, loss: Tensor, count: int) -> bool:
        """Add to the epoch's mean, and say whether this step is one of those that are logged.

        A log call costs half a millisecond, a twentieth of LeNet's step: the epoch's mean is summed by hand, and single
        steps are logged only where they are written.
        """
        self._loss_sum += loss.detach() * count
        self._num_seen += count
        every = self._log_every_n_steps
        return every > 0 and (self.global_step + 1) % every == 0  # 0 logs no steps

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """One group, or those with weight decay and those without."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if self.decay_norm_and_bias:
            return [{"params": parameters}]
        # Biases and the scales of normalisation layers are vectors, all other weights have more axes.
        vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
        weights = [parameter for parameter in parameters if parameter.ndim > 1]
        return [{"params": weights}, {"params": vectors, "weight_decay": 0.0}]

    def _apply_settings(self) -> None:
        """After a resume, let this module's settings win over those that the checkpoint's optimizer holds."""
        for optimizer, config in zip(self.trainer.optimizers, self.trainer.lr_scheduler_configs, strict=True):
            scheduler = config.scheduler
            fresh = self.make_optimizer().param_groups
            for group, settings in zip(optimizer.param_groups, fresh, strict=True):
                group.update({key: value for key, value in settings.items() if key != "params"})
                group["initial_lr"] = settings["lr"]
            if isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR):
                scheduler.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
                for group, factor in zip(optimizer.param_groups, scheduler.lr_lambdas, strict=True):
                    group["lr"] = group["initial_lr"] * factor(scheduler.last_epoch)
