"""The images that the network gets, on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_cifar.artifacts import save_figure
from lightning_cifar.callbacks.class_names import class_names
from lightning_cifar.callbacks.duplicate_callbacks import warn_of_twins
from lightning_cifar.callbacks.probe import describe

_HEADLINE = {
    "train": "training images as the network gets them",
    "val": "validation images",
    "test": "test images",
}


class SampleGrid(Callback):
    """Save ``pictures/samples_<stage>.png`` from the first batch of training, of validation and of the test.

    The batch is the one that the hooks hand over, after augmentation and on its way into the network: no further batch
    is drawn, and no random state moves. The data module's ``mean`` and ``std`` undo the normalisation where it has
    them, and its ``class_names`` are the titles.

    Args:
        rows, columns: of the sheet; a smaller batch fills less.
    """

    def __init__(self, rows: int = 4, columns: int = 8) -> None:
        if rows < 1 or columns < 1:
            raise ValueError(f"rows (={rows}) and columns (={columns}) must be at least 1")
        self.rows = rows
        self.columns = columns
        self._done: set[str] = set()
        self._silent = False
        self._told = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._done, self._silent = set(), False
        warn_of_twins(trainer, self)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        self._show("train", trainer, batch)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not trainer.sanity_checking:
            self._show("val", trainer, batch)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._show("test", trainer, batch)

    def _show(self, stage: Literal["train", "val", "test"], trainer: Trainer, batch: object) -> None:
        if stage in self._done or self._silent:
            return
        self._done.add(stage)
        if not trainer.is_global_zero:
            return
        images = batch[0] if isinstance(batch, tuple | list) and batch else batch
        if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
            self._silent = True
            if not self._told:
                self._told = True
                rank_zero_warn(
                    "SampleGrid shows nothing: a batch must be (images, labels) with images (N, C, H, W), C 1 or 3, "
                    f"these {describe(batch)}."
                )
            return
        from lightning_cifar.plots import draw_image_grid, to_displayable

        count = self.rows * self.columns
        data = getattr(trainer, "datamodule", None)
        pixels = images[:count].detach().cpu()
        if pixels.is_floating_point():
            pixels = pixels.float()  # NumPy has no bfloat16
        figure = draw_image_grid(
            to_displayable(pixels.numpy(), getattr(data, "mean", None), getattr(data, "std", None)),
            _titles(batch, count, class_names(data)),
            columns=self.columns,
            suptitle=_HEADLINE[stage],
        )
        save_figure(trainer, f"samples_{stage}", figure)


def _titles(batch: object, count: int, names: Sequence[str]) -> list[str] | None:
    """Names of the labels (N,), or their numbers; None where the batch has no integer labels."""
    labels = batch[1] if isinstance(batch, tuple | list) and len(batch) > 1 else None
    if not isinstance(labels, Tensor) or labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        return None
    return [names[label] if 0 <= label < len(names) else str(label) for label in labels[:count].tolist()]
