"""The filters of a convolution, as they are at the end."""

from __future__ import annotations

from typing import Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from lightning_cifar.analysis.filters import (
    choose_color,
    describe_filters,
    find_filters,
    largest_weight,
    read_filters,
    scale_filters,
)
from lightning_cifar.artifacts import save_figure
from lightning_cifar.callbacks.duplicate_callbacks import warn_of_twins


class FilterImages(Callback):
    """Save ``pictures/<name>.png``: the filters of a convolution at the end of fit, or when it is interrupted.

    Args:
        layer: name of a convolution, as in ``model.named_modules()``; the first one if not given.
        every_n_epochs: after each n-th epoch too, as ``pictures/<name>/epoch_<n>.png``; the number counts completed
            epochs.
        columns: filters in a row.
        mode: ``rgb`` shows a filter of 3 input channels as one picture; ``channels`` each input channel on a sheet of
            its own. ``auto`` is ``rgb`` where it can be.
        scaling: ``per_filter``: each filter from its lowest to its highest weight. ``shared``: one range for all,
            centred on zero.
        max_kernels: pictures; of a layer with more the first ones are shown, and the title says so.
        name: of the files; ``filters``, with the layer's name where one is given.

    Raises:
        ValueError: A number is out of range, or, when fit starts, the layer has no filters.
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
        for argument, number in {"every_n_epochs": every_n_epochs, "columns": columns}.items():
            if number is not None and number < 1:
                raise ValueError(f"{argument} (={number}) must be at least 1")
        if not 1 <= max_kernels <= 256:
            raise ValueError(f"max_kernels (={max_kernels}) must be 1 to 256")
        self.layer, self.every_n_epochs = layer, every_n_epochs
        self.columns, self.max_kernels = columns, max_kernels
        self.mode, self.scaling = mode, scaling
        self.name = name or ("filters" if layer is None else f"filters_{layer}")
        self._found: tuple[str, nn.Module] | None = None  # while training

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            warn_of_twins(trainer, self)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._found = None
        choose_color(find_filters(pl_module, self.layer)[1], self.mode)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._found = find_filters(pl_module, self.layer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if self.every_n_epochs is not None and epoch % self.every_n_epochs == 0:
            self._draw(trainer, pl_module, f"{self.name}/epoch_{epoch}", epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, pl_module, self.name, trainer.current_epoch)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        try:
            self._draw(trainer, pl_module, self.name, trainer.current_epoch)
        except OSError as error:  # a full disk may be why we are here; the first exception is the one to show
            rank_zero_warn(f"FilterImages: {error}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._found = None

    def _draw(self, trainer: Trainer, pl_module: LightningModule, name: str, epoch: int) -> None:
        if self._found is None or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        from lightning_cifar.plots import draw_filters

        layer_name, layer = self._found
        color = choose_color(layer, self.mode)
        filters = read_filters(layer, color=color, max_kernels=self.max_kernels)
        limit = largest_weight(filters) if self.scaling == "shared" else None
        about = f"{type(pl_module).__name__}, {layer_name}: {describe_filters(layer, filters)}"
        figure = draw_filters(
            scale_filters(filters, limit),
            color=color,
            limit=limit,
            columns=self.columns,
            title=f"{about}\nafter {epoch} epoch{'s' * (epoch != 1)}, step {trainer.global_step}",
        )
        save_figure(trainer, name, figure)
