"""The LightningModule that every classifier here is: loss, metrics, optimizer and learning-rate regime."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy
from torchvision.transforms import v2

from lightning_cifar.models.optimizers import MuonAdamW
from lightning_cifar.schedules import Schedule, check_regime, lr_factor

Batch = tuple[Tensor, Tensor]
OptimizerName = Literal["sgd", "adam", "adamw", "rmsprop", "muon"]
Loss = Literal["cross_entropy", "multi_margin"]


class Classifier(pl.LightningModule):
    """A network with a cross-entropy loss. Subclasses build ``self.network``: (N, C, H, W) -> logits (N, num_classes).

    Logs ``train/loss`` and ``train/accuracy`` as means over an epoch (and every ``log_every_n_steps`` steps as
    ``train/loss_step``, ``train/accuracy_step``), ``val/...`` and ``test/...`` over the whole split in evaluation mode.

    Args:
        num_classes: Classes to tell apart.
        in_channels: Channels of an image.
        image_size: Height and width of an image, in pixels.
        lr: Learning rate: the peak of the schedule.
        optimizer: Which of torch's optimizers. ``muon`` serves matrices and convolutions; all else gets AdamW.
        momentum: Of ``sgd``, ``rmsprop`` and ``muon``; ignored by the others.
        nesterov: Nesterov's momentum, for ``sgd`` and ``muon``.
        weight_decay: L2 penalty; decoupled for ``adamw`` and ``muon``.
        decay_norm_and_bias: Whether it holds for normalisation layers and biases too.
        schedule: Shape of the way down from the peak, see :func:`~lightning_cifar.schedules.lr_factor`.
        warmup: Part of each cycle on the way up to the peak.
        cycles: Number of cycles.
        cycle_mult: Length of a cycle over the length of the one before.
        final_lr: Lowest learning rate, as a fraction of ``lr``; None is the schedule's custom.
        loss: ``cross_entropy``, or ``multi_margin``: the hinge loss of a support vector machine, for hard labels only.
        label_smoothing: Share of the target spread evenly over the classes.
        mixup: Blend each image and label with another; the blend is drawn from Beta(mixup, mixup) (Zhang et al.,
            1710.09412). 0 is off.
        cutmix: Put a box of another image in, and blend the labels by area, likewise (Yun et al., 1905.04899). With
            both on, each batch gets one of the two.

    Raises:
        ValueError: If a value is out of range.
    """

    network: nn.Module

    def __init__(
        self,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 32,
        lr: float = 0.01,
        optimizer: OptimizerName = "sgd",
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decay_norm_and_bias: bool = True,
        schedule: Schedule = "constant",
        warmup: float = 0.0,
        cycles: int = 1,
        cycle_mult: float = 1.0,
        final_lr: float | None = None,
        loss: Loss = "cross_entropy",
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes (={num_classes}) must be at least 2.")
        if not (math.isfinite(lr) and lr > 0):
            raise ValueError(f"lr (={lr}) must be a positive number.")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum (={momentum}) must be at least 0 and below 1.")
        if not (math.isfinite(weight_decay) and weight_decay >= 0):
            raise ValueError(f"weight_decay (={weight_decay}) must be 0 or a positive number.")
        if nesterov and optimizer == "sgd" and momentum == 0:
            raise ValueError("nesterov needs a momentum (=0) above 0.")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing (={label_smoothing}) must be at least 0 and below 1.")
        for name, value in {"mixup": mixup, "cutmix": cutmix}.items():
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} (={value}) must be 0 for off, or a positive number.")
            if value and loss != "cross_entropy":
                raise ValueError(
                    f"{name} (={value}) blends labels, which loss={loss!r} cannot take: use cross_entropy."
                )
        if label_smoothing and loss != "cross_entropy":
            raise ValueError(f"label_smoothing (={label_smoothing}) needs loss=cross_entropy, not {loss!r}.")
        regime: dict[str, Any] = {
            "schedule": schedule,
            "warmup": warmup,
            "cycles": cycles,
            "cycle_mult": cycle_mult,
            "final_lr": final_lr,
        }
        check_regime(**regime)
        self._regime = regime
        self.num_classes = num_classes
        self.lr, self.optimizer_name = lr, optimizer
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay
        self.decay_norm_and_bias = decay_norm_and_bias
        self.loss_name, self.label_smoothing = loss, label_smoothing
        mixes: list[nn.Module] = []
        if mixup:
            mixes.append(v2.MixUp(alpha=mixup, num_classes=num_classes))
        if cutmix:
            mixes.append(v2.CutMix(alpha=cutmix, num_classes=num_classes))
        self._mix = v2.RandomChoice(mixes) if mixes else None
        self.in_channels, self.image_size = in_channels, image_size
        self.example_input_array = torch.zeros(1, in_channels, image_size, image_size)
        accuracy = partial(MulticlassAccuracy, num_classes, average="micro", validate_args=False)
        self._log_every_n_steps = 50  # the trainer's, once there is one
        self._loss_sum: Tensor | float = 0.0
        self._num_seen = 0
        self.train_accuracy, self.val_accuracy, self.test_accuracy = accuracy(), accuracy(), accuracy()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, C, H, W)."""
        logits: Tensor = self.network(images)
        return logits

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over the batch of the loss that training minimises; labels (N,), or (N, num_classes) when blended."""
        if self.loss_name == "multi_margin":
            return F.multi_margin_loss(logits, labels)
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def on_train_start(self) -> None:
        self._log_every_n_steps = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set untyped
        if self.trainer.ckpt_path is not None:
            self._apply_settings()
        self.on_train_epoch_start()  # a resume in the middle of an epoch skips it

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        images, labels = batch
        targets = labels
        if self._mix is not None:
            images, targets = self._mix(images, labels)
        logits = self(images)
        loss = self.loss(logits, targets)
        self.train_accuracy.update(logits.detach(), labels)
        # A log call costs half a millisecond, a twentieth of LeNet's step: the epoch's mean is summed by hand, and
        # single steps are logged only where they are written.
        self._loss_sum += loss.detach() * len(labels)
        self._num_seen += len(labels)
        if (self.global_step + 1) % self._log_every_n_steps == 0:
            accuracy = (logits.argmax(1) == labels).float().mean()
            self.log_dict({"train/loss_step": loss, "train/accuracy_step": accuracy})
            self.log_dict({"loss": loss, "accuracy": accuracy}, prog_bar=True, logger=False)
        return {"loss": loss}

    def on_train_epoch_start(self) -> None:
        self._loss_sum = torch.zeros((), device=self.device)
        self._num_seen = 0

    def on_train_epoch_end(self) -> None:
        self.log("train/loss", self._loss_sum / max(self._num_seen, 1), sync_dist=True)
        self.log("train/accuracy", self.train_accuracy.compute())
        self.train_accuracy.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._evaluation_step("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._evaluation_step("test", batch)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Probabilities (N, num_classes)."""
        images = batch if isinstance(batch, Tensor) else batch[0]
        return self.forward(images).softmax(dim=1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        total = max(1.0, float(self.trainer.estimated_stepping_batches))
        if math.isinf(total) and self._regime["schedule"] != "constant":
            raise ValueError(f"schedule={self._regime['schedule']} needs an end: set trainer.max_epochs or max_steps.")
        optimizer = self.make_optimizer()
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_factor(min(step / total, 1.0), **self._regime)
        )
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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # A checkpoint says by itself which network it holds.
        checkpoint["class_path"] = f"{type(self).__module__}.{type(self).__qualname__}"

    def _evaluation_step(self, split: Literal["val", "test"], batch: Batch) -> dict[str, Tensor]:
        images, labels = batch
        logits = self(images)
        # Without smoothing: comparable between regimes.
        loss = F.cross_entropy(logits, labels) if self.loss_name == "cross_entropy" else self.loss(logits, labels)
        accuracy = self.val_accuracy if split == "val" else self.test_accuracy
        accuracy.update(logits, labels)
        self.log_dict(
            {f"{split}/loss": loss, f"{split}/accuracy": accuracy},
            on_epoch=True,
            prog_bar=True,
            batch_size=len(labels),
            sync_dist=True,
        )
        return {"loss": loss, "logits": logits}
