"""The callbacks that a run has without being asked: those that have something to show for its model and data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, Checkpoint, LearningRateMonitor

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
    """Choose the callbacks of a run.

    Args:
        model: What runs.
        datamodule: On which data.
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        config: The section ``trainer`` of the configuration.
        checkpoints: The folder for the checkpoints of a ``fit``.
        given: The user's own, which take the place of those of the same class. The writers of checkpoints stay.
    """
    kinds = tuple(type(callback) for callback in given)
    chosen = _chosen(model, datamodule, command, config, checkpoints, given)
    return [each for each in chosen if isinstance(each, Checkpoint) or not isinstance(each, kinds)]


def _chosen(
    model: pl.LightningModule,
    datamodule: pl.LightningDataModule,
    command: str,
    config: Mapping[str, Any],
    checkpoints: Path,
    given: Sequence[Callback],
) -> list[Callback]:
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
        validates = getattr(datamodule, "num_val", 1) > 0 and config["limit_val_batches"] != 0
        chosen += checkpoint_writers(model, checkpoints, given, validates=validates)
    return chosen
