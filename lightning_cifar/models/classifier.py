"""Base class of image classifiers: loss and metrics."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy
from torchvision.transforms import v2

from lightning_cifar.models.trainable import Batch, Trainable, check_fraction

Loss = Literal["cross_entropy", "multi_margin"]


class Classifier(Trainable):
    """A network with a cross-entropy loss. Subclasses build ``self.network``: (N, C, H, W) -> logits (N, num_classes).

    The module logs ``train/loss`` and ``train/accuracy`` as means over an epoch (and every ``log_every_n_steps`` steps
    as ``train/loss_step`` and ``train/accuracy_step``), and ``val/...`` and ``test/...`` over the whole split in
    evaluation mode.

    Args:
        num_classes: Number of classes.
        in_channels: Channels of an image.
        image_size: Height and width of an image, in pixels.
        loss: ``cross_entropy``, or ``multi_margin``: the hinge loss of a support vector machine, for hard labels only.
        label_smoothing: Fraction of the target distributed evenly over the classes.
        mixup: Mix images and labels in pairs, with weights drawn from Beta(mixup, mixup) (Zhang et al., 1710.09412).
            0 is off.
        cutmix: Paste a box of another image, and mix the labels by area (Yun et al., 1905.04899). 0 is off. With
            ``mixup``, each batch uses one of the two.
        **training: Optimizer and schedule, see :class:`~lightning_cifar.models.trainable.Trainable`.

    Raises:
        ValueError: If a value is out of range.

    Example:
        >>> import torch
        >>> from lightning_cifar import Classifier
        >>> model = Classifier(num_classes=2, image_size=4, lr=0.1)
        >>> model.network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2))
        >>> model(torch.zeros(5, 3, 4, 4)).shape
        torch.Size([5, 2])
    """

    monitor = ("val/accuracy", "max")

    def __init__(
        self,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int = 32,
        loss: Loss = "cross_entropy",
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        if num_classes < 2:
            raise ValueError(f"num_classes (={num_classes}) must be at least 2.")
        check_fraction("label_smoothing", label_smoothing)
        for name, value in {"mixup": mixup, "cutmix": cutmix}.items():
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} (={value}) must be a finite number of at least 0.")
            if value and loss != "cross_entropy":
                raise ValueError(f"{name} (={value}) needs loss=cross_entropy, not {loss!r}.")
        if label_smoothing and loss != "cross_entropy":
            raise ValueError(f"label_smoothing (={label_smoothing}) needs loss=cross_entropy, not {loss!r}.")
        self.num_classes = num_classes
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
        self.train_accuracy, self.val_accuracy, self.test_accuracy = accuracy(), accuracy(), accuracy()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes) of images (N, C, H, W)."""
        return super().forward(images)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean training loss; labels are (N,), or (N, num_classes) when mixed."""
        if self.loss_name == "multi_margin":
            return F.multi_margin_loss(logits, labels)
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def evaluation_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss without label smoothing."""
        return F.cross_entropy(logits, labels) if self.loss_name == "cross_entropy" else self.loss(logits, labels)

    def training_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss and the logits of a training batch, with mixup or cutmix if enabled."""
        return super().training_loss(batch if self._mix is None else self._mix(*batch))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        labels = batch[1]
        loss, logits = self.training_loss(batch)
        self.train_accuracy.update(logits.detach(), labels)
        if self._note_loss(loss, len(labels)):
            accuracy = (logits.argmax(1) == labels).float().mean()
            self.log_dict({"train/loss_step": loss, "train/accuracy_step": accuracy}, sync_dist=True)
            self.log_dict({"loss": loss, "accuracy": accuracy}, prog_bar=True, logger=False)
        return {"loss": loss}

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.log("train/accuracy", self.train_accuracy.compute())
        self.train_accuracy.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._evaluation_step("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._evaluation_step("test", batch)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Return probabilities (N, num_classes)."""
        images = batch if isinstance(batch, Tensor) else batch[0]
        return self.forward(images).softmax(dim=1)

    def _evaluation_step(self, split: Literal["val", "test"], batch: Batch) -> dict[str, Tensor]:
        loss, logits = self._evaluate(split, batch)
        accuracy = self.val_accuracy if split == "val" else self.test_accuracy
        accuracy.update(logits, batch[1])
        self.log(f"{split}/accuracy", accuracy, on_epoch=True, prog_bar=True)
        return {"loss": loss, "logits": logits}
