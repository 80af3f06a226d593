"""Pictures of the filters of a convolution."""

from __future__ import annotations

from typing import Literal

from lightning.pytorch import LightningModule, Trainer

from lightning_cifar.analysis.filters import Filters, find_filters, largest_weight, scale_filters
from lightning_cifar.artifacts import save_figure, writes
from lightning_cifar.callbacks.base import WritingCallback, check_minimum, warn_of_duplicates


class FilterImages(WritingCallback):
    """Save the filters of a convolution as ``pictures/<name>.png`` at the end of fit, or when it is interrupted.

    Args:
        layer: name of a convolution in ``model.named_modules()``; None uses the first one.
        every_n_epochs: also save ``pictures/<name>/epoch_<n>.png`` after every n-th epoch, where n counts completed
            epochs.
        columns: filters per row.
        mode: ``rgb`` shows a filter with 3 input channels as one color picture, ``channels`` shows each input channel
            on a separate sheet, ``auto`` is ``rgb`` if possible.
        scaling: ``per_filter`` scales each filter from its lowest to its highest weight, ``shared`` uses one range
            centered on zero for all.
        max_kernels: maximum number of pictures, at most 256; of a layer with more, the first ones are shown.
        name: name of the files; default: ``filters``, plus the layer's name if ``layer`` is given.

    Raises:
        ValueError: If a number is out of range or, when fit starts, the layer has no filters.

    Example:
        >>> trainer = Trainer(callbacks=[FilterImages(every_n_epochs=5)])
    """

    def __init__(
        self,
        layer: str | None = None,
        every_n_epochs: int | None = None,
        columns: int = 16,
        mode: Literal["auto", "rgb", "channels"] = "auto",
        scaling: Literal["per_filter", "shared"] = "per_filter",
        max_kernels: int = 256,
        name: str | None = None,
    ) -> None:
        check_minimum(every_n_epochs=every_n_epochs, columns=columns)
        if not 1 <= max_kernels <= 256:
            raise ValueError(f"max_kernels (={max_kernels}) must be 1 to 256")
        self.layer, self.every_n_epochs = layer, every_n_epochs
        self.columns, self.max_kernels = columns, max_kernels
        self.mode, self.scaling = mode, scaling
        self.name = name or ("filters" if layer is None else f"filters_{layer}")
        self._filters: Filters | None = None  # while training

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            warn_of_duplicates(trainer, self)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._filters = None
        find_filters(pl_module, self.layer, self.mode)  # an error is reported before the first step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._filters = find_filters(pl_module, self.layer, self.mode)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if self.every_n_epochs is not None and epoch % self.every_n_epochs == 0:
            self._draw(trainer, pl_module, f"{self.name}/epoch_{epoch}", epoch)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, pl_module, self.name, trainer.current_epoch)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._filters = None

    def _draw(self, trainer: Trainer, pl_module: LightningModule, name: str, epoch: int) -> None:
        if self._filters is None or not writes(trainer):
            return
        from lightning_cifar.plots import draw_filters

        weights = self._filters.read(self.max_kernels)
        limit = largest_weight(weights) if self.scaling == "shared" else None
        about = f"{type(pl_module).__name__}, {self._filters.name}: {self._filters.describe(weights)}"
        figure = draw_filters(
            scale_filters(weights, limit),
            color=self._filters.color,
            limit=limit,
            columns=self.columns,
            title=f"{about}\nafter {epoch} epoch{'s' * (epoch != 1)}, step {trainer.global_step}",
        )
        save_figure(trainer, name, figure, tag=f"filters/{self._filters.name}")
