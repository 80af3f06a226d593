"""Checks that a checkpoint, a network and data fit together, before anything is written."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from jsonargparse import Namespace
from lightning.pytorch.trainer.connectors import checkpoint_connector

from lightning_cifar import data, models
from lightning_cifar.checkpoints.reading import Checkpoint
from lightning_cifar.checkpoints.trained import training_data
from lightning_cifar.errors import UsageError


def check_settings(
    checkpoint: Checkpoint, model: Mapping[str, Any], *, of_fit: bool, new: str = "start without --ckpt_path"
) -> None:
    """Refuse a checkpoint of another class than the section ``model``, and of another optimizer if the run trains."""
    path, held = checkpoint.path, checkpoint.content.get("class_path")
    settings = model.get("init_args", {})
    for name in ("optimizer", "decay_norm_and_bias") if of_fit else ():
        before = checkpoint.hyper_parameters.get(name)
        if before is not None and settings.get(name, before) != before:
            raise UsageError(
                f"{path} was trained with {name}={before}, and its state does not fit {settings[name]}: "
                f"leave --model.{name} out, or {new}."
            )
    if isinstance(held, str) and held.rsplit(".", 1)[-1] != model["class_path"].rsplit(".", 1)[-1]:
        held, wanted = (name.rsplit(".", 1)[-1] for name in (held, model["class_path"]))
        raise UsageError(f"{path} contains {held}, not {wanted}: leave --model out, or choose another checkpoint.")


def show_as_trained(checkpoint: Checkpoint, section: Namespace) -> None:
    """Fill the section ``data`` for images of the user with the size, normalisation and class names of the training."""
    if section["class_path"].rsplit(".", 1)[-1] != "ImageFolderDataModule":
        return
    source, settings = training_data(checkpoint, []), section["init_args"]
    for name in ("image_size", "in_channels", "mean", "std"):
        if settings[name] is None:
            value = getattr(source, name)
            settings[name] = list(value) if isinstance(value, tuple) else value
    if settings["class_names"] == "folders":
        settings["class_names"] = list(source.class_names)


def check_kinds(model: pl.LightningModule, datamodule: pl.LightningDataModule) -> None:
    """Refuse numbers for a classifier, and images for a regressor."""
    network, source = type(model).__name__, type(datamodule).__name__
    if isinstance(model, models.Classifier) and isinstance(datamodule, data.NoisyLineDataModule):
        raise UsageError(f"{network} classifies images, but {source} has none: choose MLPRegressor or other data.")
    if isinstance(model, models.Regressor) and isinstance(datamodule, data.ImageDataModule):
        raise UsageError(f"{network} fits numbers, but {source} has images: choose a classifier or other data.")


def check_weights(checkpoint: Checkpoint, model: pl.LightningModule, datamodule: pl.LightningDataModule) -> None:
    """Load a checkpoint into a network, or refuse one of other classes or layers."""
    content = checkpoint.content
    if isinstance(datamodule, data.ImageFolderDataModule) and "ImageFolderDataModule" in content:
        datamodule.load_state_dict(content["ImageFolderDataModule"])  # refuses other classes
    held, wanted = checkpoint.hyper_parameters.get("num_classes"), model.hparams.get("num_classes")
    if isinstance(held, int) and isinstance(wanted, int) and held != wanted:
        raise UsageError(
            f"{checkpoint.path} was trained with {held} classes, but {type(datamodule).__name__} has {wanted}: pass "
            "data of the same classes, or start without --ckpt_path."
        )
    checkpoint.load_into(model, f"{type(model).__name__} as configured")


def is_of_restoring(error: BaseException) -> bool:
    """Return whether an error was raised while Lightning restored the states in a checkpoint."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_filename == checkpoint_connector.__file__ for frame, _ in frames)
