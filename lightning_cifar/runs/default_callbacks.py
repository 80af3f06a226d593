"""Default callbacks of a run, which depend on its model and data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, LearningRateMonitor

from lightning_cifar import callbacks, data, models
from lightning_cifar.runs.checkpoint_writers import checkpoint_writers
from lightning_cifar.runs.prediction_file import PredictionFile
from lightning_cifar.runs.progress_bars import default_bar
from lightning_cifar.runs.progress_lines import EpochLines


def default_callbacks(
    model: pl.LightningModule,
    datamodule: pl.LightningDataModule,
    command: str,
    config: Mapping[str, Any],
    checkpoints: Path,
    given: Sequence[Callback],
) -> list[Callback]:
    """Choose the callbacks of a run, whose section ``trainer`` is ``config``.

    The callbacks of the user (``given``) replace those of the same class, except the writers of checkpoints.
    """
    chosen: list[Callback] = []
    shows_images = isinstance(datamodule, data.ImageDataModule)
    if isinstance(model, models.Classifier):
        chosen.append(callbacks.ClassAccuracy())
    if shows_images:
        chosen.append(callbacks.SampleGrid())
    if command == "predict" and isinstance(datamodule, data.ImageFolderDataModule):
        chosen.append(callbacks.PredictionTable())
    elif command == "predict":
        chosen.append(PredictionFile())
    writers: list[Callback] = []
    if command == "fit":
        if config["enable_checkpointing"] is not False:
            chosen.append(callbacks.ExactResume())
        chosen += [callbacks.NonFiniteGuard(), callbacks.LayerTable()]
        if isinstance(model, models.Trainable | models.SideBySide):
            chosen.append(callbacks.LossCurves())
        if shows_images:
            chosen.append(callbacks.Throughput())
        chosen += default_bar(config)
        chosen.append(EpochLines())  # after the callbacks that log at the end of an epoch
        if config["logger"] is not False:
            chosen.append(LearningRateMonitor())
        if config["enable_checkpointing"] is not False and not config["fast_dev_run"]:
            validates = getattr(datamodule, "num_val", 1) > 0 and config["limit_val_batches"] != 0
            writers = checkpoint_writers(model, checkpoints, given, validates=validates)
    kinds = tuple(type(callback) for callback in given)
    return [*(each for each in chosen if not isinstance(each, kinds)), *writers]
