"""The callbacks that a run has without being asked: those that have something to show for its model and data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint

from lightning_cifar import callbacks, data, models
from lightning_cifar.runs.prediction_file import PredictionFile
from lightning_cifar.runs.progress_bars import default_bar
from lightning_cifar.runs.progress_lines import EpochLines


def default_callbacks(
    model: pl.LightningModule,
    datamodule: pl.LightningDataModule,
    command: str,
    config: Mapping[str, Any],
    checkpoints: Path,
) -> list[Callback]:
    """Choose the callbacks of a run.

    Args:
        model: What runs.
        datamodule: On which data.
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        config: The section ``trainer`` of the configuration.
        checkpoints: The folder for the checkpoints of a ``fit``.
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
    if command != "fit":
        return chosen
    if config["enable_checkpointing"] is not False:
        chosen.append(callbacks.ExactResume())
    chosen.append(callbacks.NonFiniteGuard())
    chosen.append(callbacks.LayerTable())
    if isinstance(model, models.Trainable | models.SideBySide):
        chosen.append(callbacks.LossCurves())
    if shows_images:
        chosen.append(callbacks.Throughput())
    chosen += default_bar(config)
    chosen.append(EpochLines())  # after all that logs at the end of an epoch
    if config["logger"] is not False:
        chosen.append(LearningRateMonitor())
    if config["enable_checkpointing"] is not False and not config["fast_dev_run"]:
        chosen += _writers(model, datamodule, checkpoints)
    return chosen


def _writers(model: pl.LightningModule, datamodule: pl.LightningDataModule, folder: Path) -> list[Callback]:
    """Of the best and the last checkpoint."""
    # A model says by what it is judged; without validation, or without a word, the last checkpoint counts.
    validates = getattr(datamodule, "num_val", 1) > 0
    metric, mode = getattr(model, "monitor", (None, "min")) if validates else (None, "min")
    save = partial(ModelCheckpoint, folder, enable_version_counter=False)
    if metric is None:
        return [save("best", save_last=True)]  # one: Lightning cannot tell two without a metric apart
    # Two, since save_last=True writes last.ckpt only when the best one changes.
    return [save("best", monitor=metric, mode=mode), save("last", save_on_train_epoch_end=True)]
