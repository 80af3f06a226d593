"""Base class of classifiers and regressors: optimizer, learning-rate schedule, resume and mean loss of an epoch."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_cifar.models.optimizers import MuonAdamW
from lightning_cifar.models.training_plan import (
    Origin,
    check_last_batch,
    planned_steps,
    schedule_origin,
    schedule_progress,
)
from lightning_cifar.schedules import Schedule, check_regime, lr_factor

Batch = tuple[Tensor, Tensor]
OptimizerName = Literal["sgd", "adam", "adamw", "rmsprop", "muon"]


class MeanLoss(Metric):
    """Mean loss of all samples, for any number of processes and any batch size.

    Lightning's mean over processes divides by a rounded number of samples. MeanMetric of torchmetrics either drops
    non-finite losses or ignores the weights.
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


def check_fraction(name: str, value: float) -> None:
    """Raise ValueError unless the value is at least 0 and below 1."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} (={value}) must be at least 0 and below 1.")


def check_sizes(name: str, sizes: Sequence[int]) -> None:
    """Raise ValueError if a size is below 1."""
    if any(size < 1 for size in sizes):
        raise ValueError(f"{name} (={list(sizes)}) must contain sizes of at least 1.")


class Trainable(pl.LightningModule):
    """A network with a loss, an optimizer and a learning-rate schedule. Subclasses build ``self.network``.

    The module logs ``train/loss`` as the mean over an epoch.

    Args:
        lr: Learning rate at the peak of the schedule.
        optimizer: Name of an optimizer of torch. ``muon`` uses AdamW for parameters with fewer than two axes.
        momentum: Momentum of ``sgd``, ``rmsprop`` and ``muon``; ignored by the others.
        nesterov: Nesterov momentum, for ``sgd`` and ``muon``.
        weight_decay: L2 penalty; decoupled for ``adamw`` and ``muon``.
        decay_norm_and_bias: Whether weight decay applies to normalisation layers and biases too.
        schedule: Shape of the decay after the peak, or a combination (``one-cycle``, ``triangular``,
            ``warm-restarts``), see :func:`~lightning_cifar.schedules.lr_factor`.
        warmup: Fraction of each cycle for the rise to the peak; None is 0, or the value of the combination.
        cycles: Number of cycles; None is 1, or the value of the combination.
        cycle_mult: Length of a cycle relative to the previous one; None is 1, or the value of the combination.
        final_lr: Lowest learning rate, as a fraction of ``lr``; None is the default of the schedule.

    Raises:
        ValueError: If a value is out of range.
    """

    monitor: ClassVar[tuple[str, Literal["min", "max"]]] = ("val/loss", "min")
    """Metric by which the best checkpoint is selected, and whether a lower or a higher value is better."""

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
        check_fraction("momentum", momentum)
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
        self._plan: dict[str, Any] = {}  # of the schedule, see schedule_origin
        self.lr, self.optimizer_name = lr, optimizer
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay
        self.decay_norm_and_bias = decay_norm_and_bias
        self._log_every_n_steps = 50  # replaced by the trainer's in on_train_start
        self._loss_sum: Tensor | float = 0.0
        self._num_seen = 0
        self.val_loss, self.test_loss = MeanLoss(), MeanLoss()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs of the network."""
        outputs: Tensor = self.network(inputs)
        return outputs

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the training loss, averaged over the batch."""

    def evaluation_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss for validation and test: the training loss without label smoothing."""
        return self.loss(outputs, targets)

    def training_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss and the outputs of a training batch."""
        inputs, targets = batch
        outputs = self(inputs)
        return self.loss(outputs, targets), outputs

    def on_train_start(self) -> None:
        self._log_every_n_steps = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set untyped
        check_last_batch(self.trainer, self.network, self.example_input_array)
        if self.trainer.ckpt_path is not None:
            self._apply_settings()
        self.on_train_epoch_start()  # skipped by a resume within an epoch

    def on_train_epoch_start(self) -> None:
        self._loss_sum = torch.zeros((), device=self.device)
        self._num_seen = 0

    def on_train_epoch_end(self) -> None:
        self.log("train/loss", self._loss_sum / max(self._num_seen, 1), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        total = max(1.0, planned_steps(self.trainer))
        origin = schedule_origin(self._plan, total) if self.trainer.ckpt_path is not None else None
        self._plan = {"steps": total, "origin": origin}
        optimizer = self.make_optimizer()
        scheduler = self.make_scheduler(optimizer, total, origin)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"}}

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer with the peak learning rate."""
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

    def make_scheduler(
        self, optimizer: torch.optim.Optimizer, num_steps: float, origin: Origin | None = None
    ) -> torch.optim.lr_scheduler.LambdaLR:
        """Return the schedule over ``num_steps`` optimizer steps, to be stepped after each.

        Args:
            optimizer: Its learning rates are those at the peak.
            num_steps: Number of steps of the training.
            origin: Where the schedule of a fork starts; None is the start of the training.

        Raises:
            ValueError: If ``num_steps`` is infinite and the schedule is not constant.
        """
        if math.isinf(num_steps) and self._regime["schedule"] != "constant":
            name = self._regime["schedule"]
            raise ValueError(f"schedule={name} needs a finite number of steps: set trainer.max_epochs or max_steps.")
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_factor(schedule_progress(step, num_steps, origin), **self._regime)
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # So that a checkpoint can be loaded without naming the class.
        checkpoint["class_path"] = f"{type(self).__module__}.{type(self).__qualname__}"
        checkpoint["schedule_plan"] = dict(self._plan)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._plan = dict(checkpoint.get("schedule_plan", {}))

    def _note_loss(self, loss: Tensor, count: int) -> bool:
        """Add a loss to the mean of the epoch, and return True if this step is to be logged.

        A log call takes 0.5 ms, a twentieth of a step of LeNet. The mean of the epoch is therefore summed here, and
        single steps are logged only every ``log_every_n_steps`` steps.
        """
        self._loss_sum += loss.detach() * count
        self._num_seen += count
        every = self._log_every_n_steps
        return every > 0 and (self.global_step + 1) % every == 0  # 0 logs no steps

    def _evaluate(self, split: Literal["val", "test"], batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss and the outputs of a batch, and log the mean loss of the split."""
        inputs, targets = batch
        outputs = self(inputs)
        loss = self.evaluation_loss(outputs, targets)
        mean = self.val_loss if split == "val" else self.test_loss
        mean.update(loss, len(inputs))
        self.log(f"{split}/loss", mean, on_epoch=True, prog_bar=True)
        return loss, outputs

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Return one group, or two: with and without weight decay."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if self.decay_norm_and_bias:
            return [{"params": parameters}]
        # Biases and the parameters of normalisation layers have one axis, other weights have more.
        vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
        weights = [parameter for parameter in parameters if parameter.ndim > 1]
        return [{"params": weights}, {"params": vectors, "weight_decay": 0.0}]

    def _apply_settings(self) -> None:
        """Replace the optimizer settings of a resumed checkpoint by those of this module."""
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
