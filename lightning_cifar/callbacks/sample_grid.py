"""A sheet of the images that the network receives."""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_cifar.artifacts import save_figure
from lightning_cifar.callbacks.base import BatchCallback, check_minimum
from lightning_cifar.callbacks.datamodule import class_names, displayable, label_name
from lightning_cifar.callbacks.probe import describe, first_two, integer_labels

_HEADLINE = {
    "train": "training images as the network receives them",
    "val": "validation images",
    "test": "test images",
}


class SampleGrid(BatchCallback):
    """Save ``pictures/samples_<stage>.png`` from the first batch of training, validation and test.

    The picture shows the batch that the hooks receive, after augmentation; no additional batch is loaded, and no random
    state changes. The data module's ``mean`` and ``std`` undo the normalization, and its ``class_names`` are the
    titles, if it has them.

    Args:
        rows, columns: numbers of rows and columns of the sheet.

    Raises:
        ValueError: If a number is below 1.

    Example:
        >>> trainer = Trainer(callbacks=[SampleGrid(rows=2)])
    """

    def __init__(self, rows: int = 4, columns: int = 8) -> None:
        check_minimum(rows=rows, columns=columns)
        self.rows, self.columns = rows, columns
        super().__init__()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._reset()
        super().setup(trainer, pl_module, stage)

    def _reset(self) -> None:
        self._done: set[str] = set()

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
        if stage in self._done or self._disabled:
            return
        self._done.add(stage)
        if not trainer.is_global_zero:
            return
        images, labels = first_two(batch)
        if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
            wanted = "(images, labels) with images (N, C, H, W), C 1 or 3"
            self._disable(f"batches must be {wanted}, but they {describe(batch)}")
            return
        from lightning_cifar.plots import draw_image_grid

        count, names = self.rows * self.columns, class_names(getattr(trainer, "datamodule", None))
        known = integer_labels(labels, len(images))
        titles = None
        if known is not None and known.dtype != torch.bool:
            titles = [label_name(names, label) for label in known[:count].tolist()]
        figure = draw_image_grid(
            displayable(trainer, images[:count].detach()),
            titles,
            columns=self.columns,
            suptitle=_HEADLINE[stage],
        )
        save_figure(trainer, f"samples_{stage}", figure, tag=f"samples/{stage}")
