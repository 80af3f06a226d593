"""A trained classifier from a checkpoint alone: the network, its class names, and how its images are normalised."""

from __future__ import annotations

from collections.abc import Collection
from inspect import signature
from pathlib import Path
from typing import NamedTuple

import torch

from lightning_cifar import data, models
from lightning_cifar.checkpoints.reading import Checkpoint
from lightning_cifar.checkpoints.settings import data_settings, find_class, model_settings
from lightning_cifar.errors import UsageError, one_line


class Trained(NamedTuple):
    """What is needed to ask a network about images."""

    model: models.Classifier
    """In evaluation mode, on the GPU if there is one."""
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    epochs: int
    """Completed when the checkpoint was written."""
    notes: tuple[str, ...]
    """What had to be assumed."""
    source: data.ImageDataModule
    """The data of the training, as far as the checkpoint tells; nothing is loaded."""


def load_trained(checkpoint: Path | Checkpoint, *, allowed: Collection[str] = ()) -> Trained:
    """Read a checkpoint of a classifier. Its data need not be there, and nothing in it is executed.

    Args:
        checkpoint: Its path, such as ``runs/.../checkpoints/best.ckpt``, or a checkpoint that was read already.
        allowed: Dotted names of classes outside this package, such as ``small.Small``, that may be imported.

    Raises:
        UsageError: If the file is no checkpoint of a classifier of this package, or damaged, or its weights are not
            finite.
    """
    if isinstance(checkpoint, Path):
        checkpoint = Checkpoint.read(checkpoint)
    path, content = checkpoint.path, checkpoint.content
    model = _load_model(checkpoint, allowed)
    broken = next((name for name, value in model.state_dict().items() if not torch.isfinite(value).all()), None)
    if broken:
        raise UsageError(f"{path} holds weights that are not finite ({broken}), its training diverged: take another.")
    notes: list[str] = []
    source = training_data(checkpoint, notes, allowed)
    names: tuple[str, ...] = tuple(getattr(source, "class_names", ()))
    if len(names) != model.num_classes:
        notes.append(f"the {len(names)} class names of the data do not go with {model.num_classes} outputs: numbers")
        names = tuple(f"class {k}" for k in range(model.num_classes))
    if len(source.mean) != model.in_channels:
        raise UsageError(
            f"{path}: the data has {len(source.mean)} channels and the network {model.in_channels}, so that the "
            "normalisation of its images is not known."
        )
    # The epoch that a checkpoint names is the one in which it was written, counted from 0.
    epochs = content.get("epoch", -1)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    done = epochs + 1 if isinstance(epochs, int) else 0
    return Trained(model, names, source.mean, source.std, done, tuple(notes), source)


def _load_model(checkpoint: Checkpoint, allowed: Collection[str]) -> models.Classifier:
    if "class_path" not in checkpoint.content:
        raise UsageError(f"{checkpoint.path} does not say which network it holds: it was not written by this package.")
    found = find_class(checkpoint, checkpoint.content["class_path"], models, "--model", allowed)
    if not issubclass(found, models.Classifier):
        raise UsageError(f"{checkpoint.path} holds {found.__name__}, which does not classify images.")
    settings = model_settings(checkpoint, allowed, all_of_them=True)
    assert settings is not None  # it has a class
    try:
        model = found(**settings["init_args"])
        model.load_state_dict(checkpoint.content["state_dict"])
    except (TypeError, ValueError, RuntimeError) as error:
        detail = one_line(error)[:160]
        raise UsageError(
            f"{checkpoint.path} does not fit {found.__name__} of this version of the package: {detail} ..."
        ) from error
    return model


def training_data(checkpoint: Checkpoint, notes: list[str], allowed: Collection[str] = ()) -> data.ImageDataModule:
    """The data module as it was configured, without what would read files; nothing is loaded.

    Args:
        checkpoint: Of any origin.
        notes: Gets what had to be assumed.
        allowed: See :func:`load_trained`.

    Raises:
        UsageError: If the checkpoint does not say it, or its data has no images.
    """
    path, content = checkpoint.path, checkpoint.content
    described = data_settings(checkpoint, allowed)
    if described is None:  # trained in Python: the data module left its state under its name
        name = next((name for name in data.__all__ if name in content), None)
        if name is None:
            raise UsageError(f"{path} says nothing of its data, so that the normalisation of its images is not known.")
        notes.append(f"the checkpoint has no settings of its data: normalised as {name} does by default")
        described = name, {}, []
    found = find_class(checkpoint, described[0], data, "--data", allowed)
    if not issubclass(found, data.ImageDataModule):
        raise UsageError(f"{path}: its data is {found.__name__}, which gives no images.")
    settings = {name: value for name, value in described[1].items() if name != "augment"}
    root = signature(found).parameters.get("root")
    if root is not None and root.default is root.empty:
        settings["root"] = "data"  # a folder is not taken from a checkpoint, and not needed here
    try:
        source = found(**settings)
        if isinstance(source, data.ImageFolderDataModule) and found.__qualname__ in content:
            source.load_state_dict(content[found.__qualname__])  # the classes, which its folder need not tell any more
    except Exception as error:
        raise UsageError(f"{path}: the settings of its data cannot be used: {one_line(error)[:160]}") from error
    return source
