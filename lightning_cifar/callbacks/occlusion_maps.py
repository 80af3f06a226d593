"""Occlusion maps of fixed validation images during training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from lightning_cifar.analysis.modes import evaluation
from lightning_cifar.analysis.occlusion.maps import occlusion_map
from lightning_cifar.analysis.prediction_table import are_probabilities
from lightning_cifar.artifacts import frame_store, run_folder, save_figure, writes
from lightning_cifar.callbacks.base import check_minimum, warn_of_duplicates
from lightning_cifar.callbacks.datamodule import class_names, displayable, label_name
from lightning_cifar.callbacks.probe import first_forward, read_probe
from lightning_cifar.files.reading import UnreadableFileError

_NAME = "occlusion_maps"
_VALUES = {"images", "drops", "titles", "notes", "mistakes", "title", "label", "step"}  # of a sheet
_FINEST = 0.001  # smallest limit of the color scale, so that noise is not shown in strong colors


class OcclusionMaps(Callback):
    """Save ``pictures/occlusion_maps/epoch_<n>.png``: the drop of a class's probability when a window covers the image.

    The window slides over a few validation images, which are the same during the whole run. A sheet shows the images,
    the maps over them, and the maps, with one color scale centered on zero. Sheets are drawn at the end of every n-th
    epoch and of the training, where n counts completed epochs. The values of the sheets are stored in
    ``pictures/.frames/occlusion_maps/``.

    With the defaults, a sheet of 32 x 32 images takes 1,352 forward passes of one image, less than 7 % of an epoch of
    20,000 images without gradients, and 0.2 seconds of drawing.

    Args:
        images: indices of validation images in the loader.
        window: side of the square window in pixels; None is a quarter of the image's shorter side.
        stride: stride of the window in pixels; None is a quarter of the window.
        fill: value of covered pixels, in units of the normalized image: ``mean`` or ``blur`` of the image, or a number.
        every_n_epochs: period of the sheets.
        mode: ``exact``, or ``fast`` for an approximation.
        target: class of the probability: the ``true`` one or the ``predicted`` one. Without labels, it is the predicted
            class.
        limit: both ends of the color scale; larger drops get the last color. None is the largest change in all sheets
            of the run, rounded up to 1, 2 or 5 times a power of ten. All sheets of a run have the same scale: when it
            grows, the earlier sheets are drawn again.

    Raises:
        ValueError: If a number is out of range; when training starts, if the window does not fit into the images, or
            the module does not map images (N, C, H, W) to logits (N, K).

    Example:
        >>> trainer = Trainer(callbacks=[OcclusionMaps(images=[0, 1, 2], window=8)])
    """

    def __init__(
        self,
        images: Sequence[int] = tuple(range(6)),
        window: int | None = None,
        stride: int | None = None,
        fill: float | Literal["mean", "blur"] = "mean",
        every_n_epochs: int = 3,
        mode: Literal["exact", "fast"] = "exact",
        target: Literal["true", "predicted"] = "true",
        limit: float | None = None,
    ) -> None:
        if not images or min(images) < 0:
            raise ValueError(f"images (={list(images)}) must be one or more indices, 0 or more")
        check_minimum(window=window, stride=stride, every_n_epochs=every_n_epochs)
        if not isinstance(fill, str) and not math.isfinite(fill):
            raise ValueError(f"fill (={fill}) must be a finite number, mean or blur")
        if limit is not None and not (math.isfinite(limit) and limit > 0):
            raise ValueError(f"limit (={limit}) must be a positive number, or null")
        self.images = tuple(images)
        self.window, self.stride, self.fill = window, stride, fill
        self.every_n_epochs = every_n_epochs
        self.mode, self.target, self.limit = mode, target, limit
        self._probe: tuple[Tensor, Tensor | None] | None = None
        self._drawn = 0  # completed epochs at the last sheet
        self._sheets: list[int] = []  # completed epochs at each sheet of the run
        self._limit = 0.0  # the common scale

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            warn_of_duplicates(trainer, self)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._probe, self._drawn = None, trainer.current_epoch
        if writes(trainer):
            self._probe = read_probe(trainer, self.images, owner=type(self).__name__)
            self._check(pl_module, *self._probe)
            self._sheets, self._limit = [], self.limit or 0.0
            frame_store(run_folder(trainer), _NAME).keep(trainer.current_epoch + 1)
            for epoch in range(1, trainer.current_epoch + 1):  # sheets of the resumed run
                sheet = self._read(trainer, epoch)
                if sheet is not None:
                    self._sheets.append(epoch)
                    self._limit = self.limit or max(self._limit, _round_up(sheet["drops"]))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._draw(trainer, pl_module, trainer.current_epoch + 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch > self._drawn:
            self._draw(trainer, pl_module, trainer.current_epoch)

    def _check(self, module: LightningModule, images: Tensor, labels: Tensor | None) -> None:
        """Raise the errors of the first sheet before the first epoch, by means of a single window."""
        if images.shape[1] not in (1, 3):
            raise ValueError(f"OcclusionMaps needs images with 1 or 3 channels, not {images.shape[1]}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the stride is larger than the window
            window, _ = self._sizes(images)
            try:
                with first_forward("this callback", module, images):
                    occlusion_map(module, images, labels, window=window, stride=max(images.shape[2:]), fill=self.fill)
            except ValueError as error:
                raise ValueError(f"OcclusionMaps: {error}") from error
        if are_probabilities(_logits(module, images), tolerance=1e-3):
            raise ValueError(
                f"OcclusionMaps needs logits (N, K), and {type(module).__name__}(images) returns probabilities: let "
                "forward return the input of the softmax"
            )

    def _sizes(self, images: Tensor) -> tuple[int, int]:
        window = self.window or max(1, min(images.shape[2:]) // 4)
        return window, self.stride or max(1, window // 4)

    def _draw(self, trainer: Trainer, module: LightningModule, epoch: int) -> None:
        self._drawn = epoch
        if self._probe is None:
            return
        images, labels = self._probe
        probabilities = torch.softmax(_logits(module, images).float(), 1)
        best, predicted = probabilities.max(1)
        targets = predicted if labels is None or self.target == "predicted" else labels
        window, stride = self._sizes(images)
        maps = occlusion_map(module, images, targets, window=window, stride=stride, fill=self.fill, mode=self.mode)

        names = class_names(getattr(trainer, "datamodule", None))
        titles, notes, mistakes = [], [], []
        for i, guess in enumerate(predicted.tolist()):
            true = None if labels is None else int(labels[i])
            prefix = "" if true is None else f"true {label_name(names, true, 'class {}')}, "
            titles.append(f"{prefix}predicted {label_name(names, guess, 'class {}')} {float(best[i]):.2f}")
            target = label_name(names, int(targets[i]), "class {}")
            notes.append(f"map of P({target}), {float(maps.clean[i]):.2f} when uncovered")
            mistakes.append(true not in (None, guess))
        drops = maps.pixels.float().cpu().numpy()
        frame_store(run_folder(trainer), _NAME).write(
            epoch,
            images=self.images,
            drops=drops,
            titles=titles,
            notes=notes,
            mistakes=mistakes,
            title=f"occlusion after {epoch} epoch{'s' * (epoch != 1)}, window of {window} x {window} pixels",
            label=f"drop of P({'predicted' if targets is predicted else 'true'} class)",
            step=trainer.global_step,
        )
        self._sheets.append(epoch)
        limit = self.limit or max(self._limit, _round_up(drops))
        grows, self._limit = limit > self._limit, limit
        for each in self._sheets if grows else [epoch]:
            self._save(trainer, each, images)

    def _read(self, trainer: Trainer, epoch: int) -> dict[str, NDArray[np.generic]] | None:
        """Read the values of a sheet; None if the file is missing or damaged, or the sheet shows other images."""
        try:
            sheet = frame_store(run_folder(trainer), _NAME).read(epoch)
        except UnreadableFileError:
            return None
        if sheet is None or sheet.keys() != _VALUES or sheet["images"].tolist() != list(self.images):
            return None
        return sheet

    def _save(self, trainer: Trainer, epoch: int, images: Tensor) -> None:
        """Draw a sheet from its stored values."""
        from lightning_cifar.plots import Occlusion, draw_occlusion_maps

        sheet = self._read(trainer, epoch)
        if sheet is None:
            return
        shown = displayable(trainer, images.float())
        columns = zip(sheet["titles"].tolist(), sheet["notes"].tolist(), sheet["mistakes"].tolist(), strict=True)
        rows = [
            Occlusion(image, drops, *texts)
            for image, drops, texts in zip(shown, sheet["drops"].astype(np.float32), columns, strict=True)
        ]
        title = f"{sheet['title']}, colors from {-self._limit:g} to {self._limit:g}"
        figure = draw_occlusion_maps(rows, title=title, label=str(sheet["label"]), limit=self._limit)
        step = max(int(sheet["step"]) - 1, 0)
        save_figure(trainer, f"{_NAME}/epoch_{epoch:03d}", figure, tag=f"{_NAME}/val", step=step)


def _round_up(drops: NDArray[np.generic]) -> float:
    """Return the largest change, rounded up to 1, 2 or 5 times a power of ten."""
    largest = np.nanmax(np.abs(drops.astype(np.float64)), initial=_FINEST)
    power = 10.0 ** math.floor(math.log10(largest))
    return float(next(factor * power for factor in (1, 2, 5, 10) if largest <= factor * power * (1 + 1e-9)))


def _logits(module: LightningModule, images: Tensor) -> Tensor:
    """Compute the logits (N, K) in evaluation mode."""
    types = [parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()]
    with evaluation(module):
        logits: Tensor = module(images.to(types[0] if types else images.dtype))
    return logits
