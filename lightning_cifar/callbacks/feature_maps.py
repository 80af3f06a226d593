"""Pictures of the feature maps of layers for a few images during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_cifar.analysis.feature_maps import default_layers, feature_maps, thin_out
from lightning_cifar.analysis.layers import find_layer
from lightning_cifar.artifacts import save_figure, writes
from lightning_cifar.callbacks.base import check_minimum
from lightning_cifar.callbacks.datamodule import class_names, displayable, label_name
from lightning_cifar.callbacks.probe import first_forward, read_probe
from lightning_cifar.callbacks.progress import epochs_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAX_ROWS = 10
_MAX_COLUMNS = 8


class _Row(TypedDict):
    """The first maps of the first image at one time; part of the checkpoint."""

    epoch: float
    step: int
    maps: dict[str, Tensor]
    """Layer -> (K, P, Q), in half precision, which is sufficient for colors."""
    num_maps: dict[str, int]


class FeatureMaps(Callback):
    """Draw the feature maps of layers for fixed validation images, from the initial weights to the last ones.

    ``pictures/feature_maps/<layer>/image_<index>/epoch_<epoch>.png`` shows the image and all maps of a layer: with the
    initial weights (epoch 0), after every n-th epoch, and at the end. ``over_training.png`` in the same folder shows
    how the layer's first maps of the first image change over the epochs. In ``validate`` the maps are drawn once, as
    ``evaluation.png``.

    The maps are computed by a separate forward pass ``module(images)`` in evaluation mode, which does not change the
    module. The epochs of ``over_training.png`` are part of the checkpoint, so a resumed run continues them.

    Args:
        layers: names in ``named_modules()``; None uses the first convolution.
        images: indices of images in the validation set.
        every_n_epochs: draw all maps after every n-th epoch.
        max_maps: maximum number of maps per layer.
        columns: maps per row.

    Raises:
        ValueError: If a number is out of range; when training starts, if a layer or image does not exist, the output
            of a layer is not maps (N, K, P, Q), or the module cannot be called with images.

    Example:
        >>> trainer = Trainer(callbacks=[FeatureMaps(images=[0, 1], every_n_epochs=10)])
    """

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        images: Sequence[int] = (0,),
        every_n_epochs: int = 5,
        max_maps: int = 64,
        columns: int = 8,
    ) -> None:
        if layers is not None and (isinstance(layers, str) or not layers):
            raise ValueError(f"layers (={layers!r}) must be a list of names, or None for the first convolution")
        if not images or min(images) < 0:
            raise ValueError(f"images (={list(images)}) must be a list of numbers from 0")
        check_minimum(every_n_epochs=every_n_epochs, max_maps=max_maps, columns=columns)
        self.layers = None if layers is None else list(dict.fromkeys(layers))
        self.images = list(dict.fromkeys(images))
        self.every_n_epochs, self.max_maps, self.columns = every_n_epochs, max_maps, columns
        self._names: list[str] = []
        self._probe: Tensor | None = None
        self._labels: Tensor | None = None
        self._rows: list[_Row] = []
        self._drawn_at = -1  # step
        self._has_drawn = False

    @property
    def state_key(self) -> str:
        return self._generate_state_key(layers=self.layers, images=self.images)

    def state_dict(self) -> dict[str, object]:
        return {"rows": list(self._rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._rows = list(state_dict["rows"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._choose_layers(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == 0:
            self._rows = []  # a new training with a callback that was used before
        self._drawn_at, self._probe = -1, None
        if not writes(trainer):
            return
        self._read(trainer)
        epochs = trainer.fit_loop.epoch_progress.current
        # A checkpoint of an epoch's last step may be older than the hooks at its end, which are not called again.
        between_epochs = epochs.ready == epochs.completed
        if between_epochs and all(row["step"] != trainer.global_step for row in self._rows):
            self._compute(trainer, pl_module, float(trainer.current_epoch), draw=not self._rows)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if self._probe is not None:
            self._compute(trainer, pl_module, epochs_of(trainer), draw=due)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._probe is None or not self._rows:
            return
        if self._drawn_at != trainer.global_step:
            self._compute(trainer, pl_module, self._rows[-1]["epoch"], draw=True)
        self._draw_rows(trainer, pl_module)
        self._probe = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING and writes(trainer):
            self._choose_layers(pl_module)
            self._read(trainer)
            self._compute(trainer, pl_module, None, draw=True)
            self._probe = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._has_drawn:
            rank_zero_warn("FeatureMaps draws nothing in test, since it uses validation images: run validate.")

    def _choose_layers(self, pl_module: LightningModule) -> None:
        self._names = default_layers(pl_module)[:1] if self.layers is None else self.layers
        for name in self._names:
            find_layer(pl_module, name)

    def _read(self, trainer: Trainer) -> None:
        self._probe, self._labels = read_probe(trainer, self.images, owner="FeatureMaps")
        self._has_drawn = True

    def _compute(self, trainer: Trainer, pl_module: LightningModule, epoch: float | None, *, draw: bool) -> None:
        """Compute the maps, keep the first ones, and draw all."""
        assert self._probe is not None
        precision = trainer.precision_plugin
        with first_forward("FeatureMaps", pl_module, self._probe), precision.forward_context():
            maps = feature_maps(pl_module, precision.convert_input(self._probe), self._names)
        if epoch is not None:
            self._keep(maps, epoch, trainer.global_step)
        if not draw:
            return
        from lightning_cifar.plots import draw_feature_maps

        pixels = self._pixels(trainer)
        for name in self._names:
            for i, index in enumerate(self.images):
                figure = draw_feature_maps(
                    pixels[i],
                    maps[name][i].cpu().numpy(),
                    layer=name,
                    columns=self.columns,
                    max_maps=self.max_maps,
                    title=self._title(trainer, pl_module, i, _describe(epoch, trainer.global_step)),
                )
                folder = _folder(name, index)
                path = f"{folder}/{_file_name(epoch, trainer.global_step)}"
                save_figure(trainer, path, figure, tag=folder)
        self._drawn_at = trainer.global_step

    def _keep(self, maps: dict[str, Tensor], epoch: float, step: int) -> None:
        row = _Row(
            epoch=epoch,
            step=step,
            # The largest float16 is 65,504, which a diverged network exceeds.
            maps={name: value[0, :_MAX_COLUMNS].clamp(-65504, 65504).half().cpu() for name, value in maps.items()},
            num_maps={name: value.shape[1] for name, value in maps.items()},
        )
        rows = [other for other in self._rows if other["step"] < step] + [row]
        self._rows = [rows[index] for index in thin_out([other["epoch"] for other in rows], _MAX_ROWS)]

    def _draw_rows(self, trainer: Trainer, pl_module: LightningModule) -> None:
        from lightning_cifar.plots import draw_maps_over_training

        pixels = self._pixels(trainer)
        for name in self._names:
            last = self._rows[-1]["maps"][name]
            rows = [row for row in self._rows if name in row["maps"] and row["maps"][name].shape == last.shape]
            figure = draw_maps_over_training(
                pixels[0],
                torch.stack([row["maps"][name] for row in rows]).float().numpy(),
                [row["epoch"] for row in rows],
                layer=name,
                num_maps=self._rows[-1]["num_maps"][name],
                title=self._title(trainer, pl_module, 0, "over training"),
            )
            save_figure(trainer, f"{_folder(name, self.images[0])}/over_training", figure)

    def _pixels(self, trainer: Trainer) -> NDArray[np.float32]:
        assert self._probe is not None
        pixels = displayable(trainer, self._probe)
        # Images with other than 1 or 3 channels are shown as the mean of their channels.
        return pixels if pixels.shape[-1] in (1, 3) else pixels.mean(axis=-1, keepdims=True)

    def _title(self, trainer: Trainer, pl_module: LightningModule, i: int, when: str) -> str:
        names, kind = class_names(getattr(trainer, "datamodule", None)), ""
        if self._labels is not None:
            kind = f" ({label_name(names, int(self._labels[i]))})"
        return f"{type(pl_module).__name__}, validation image {self.images[i]}{kind}, {when}"


def _describe(epoch: float | None, step: int) -> str:
    if epoch is None:
        return "evaluation"
    return f"epoch {round(epoch, 2):g} (step {step:,})" if epoch else "before training"


def _folder(layer: str, index: int) -> str:
    return f"feature_maps/{layer.replace('/', '_')}/image_{index}"


def _file_name(epoch: float | None, step: int) -> str:
    """Return a name that sorts by time."""
    if epoch is None:
        return "evaluation"
    whole = f"epoch_{int(epoch):03d}"
    return whole if epoch == int(epoch) else f"{whole}_step_{step:09d}"
