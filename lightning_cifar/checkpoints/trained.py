"""Load a trained classifier from a checkpoint: the network, its class names, and the normalisation of its images."""

from __future__ import annotations

from collections.abc import Collection
from inspect import signature
from pathlib import Path
from typing import NamedTuple

import torch

from lightning_cifar import data, models
from lightning_cifar.checkpoints.reading import Checkpoint
from lightning_cifar.checkpoints.settings import find_class, read_section
from lightning_cifar.errors import UsageError, one_line


class Trained(NamedTuple):
    """A trained classifier with the facts that predictions and explanations need."""

    model: models.Classifier
    """The network in evaluation mode, on the GPU if there is one."""
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    epochs: int
    """Completed epochs of training."""
    notes: tuple[str, ...]
    """Assumptions about facts that the checkpoint does not contain."""
    source: data.ImageDataModule
    """The data module of the training; it has not read any data."""


def load_trained(checkpoint: Path | Checkpoint, *, allowed: Collection[str] = ()) -> Trained:
    """Load a trained classifier from a checkpoint. The data of its training are not needed.

    Nothing in the checkpoint is executed.

    Args:
        checkpoint: Path of a checkpoint, such as ``runs/.../checkpoints/best.ckpt``, or a checkpoint in memory.
        allowed: Dotted names of classes outside this package, such as ``small.Small``, that may be imported.

    Raises:
        UsageError: If the file is not a checkpoint of a classifier of this package, or is damaged, or its weights are
            not finite.

    Example:
        >>> content = {"state_dict": models.LeNet().state_dict(), "class_path": "LeNet", "SyntheticDataModule": {}}
        >>> trained = load_trained(Checkpoint(Path("lenet.ckpt"), content))
        >>> trained.class_names[:2], trained.mean
        (('disc', 'ring'), (0.5, 0.5, 0.5))
    """
    if isinstance(checkpoint, Path):
        checkpoint = Checkpoint.read(checkpoint)
    path, epochs = checkpoint.path, checkpoint.content.get("epoch", -1)  # the current epoch, counted from 0
    model = _load_model(checkpoint, allowed)
    broken = next((name for name, value in model.state_dict().items() if not torch.isfinite(value).all()), None)
    if broken:
        raise UsageError(f"{path} has weights that are not finite ({broken}): use another, the training diverged.")
    notes: list[str] = []
    source = training_data(checkpoint, notes, allowed)
    names: tuple[str, ...] = tuple(getattr(source, "class_names", ()))
    if len(names) != model.num_classes:
        notes.append(f"the data have {len(names)} class names, but the network has {model.num_classes}: numbered")
        names = tuple(f"class {k}" for k in range(model.num_classes))
    if len(source.mean) != model.in_channels:
        raise UsageError(
            f"{path}: the data have {len(source.mean)} channels, but the network has {model.in_channels}: the "
            "normalisation of its images is not known."
        )
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    done = epochs + 1 if isinstance(epochs, int) else 0
    return Trained(model, names, source.mean, source.std, done, tuple(notes), source)


def _load_model(checkpoint: Checkpoint, allowed: Collection[str]) -> models.Classifier:
    path, content = checkpoint.path, checkpoint.content
    if "class_path" not in content:
        raise UsageError(f"{path} does not name the class of its network: it was not written by this package.")
    kind, _ = find_class(checkpoint, str(content["class_path"]), "model", allowed)
    if not issubclass(kind, models.Classifier):
        raise UsageError(f"{path} contains {kind.__name__}, which does not classify images.")
    section = read_section(checkpoint, "model", allowed)
    assert section is not None  # its class is named
    try:
        model = kind(**section[2])
        model.load_state_dict(content["state_dict"])
    except (TypeError, ValueError, RuntimeError) as error:
        detail = one_line(error)[:160]
        raise UsageError(f"{path} does not fit {kind.__name__} of this version of the package: {detail} ...") from error
    return model


def training_data(checkpoint: Checkpoint, notes: list[str], allowed: Collection[str] = ()) -> data.ImageDataModule:
    """Make the data module of the training without reading files. Assumptions are appended to ``notes``.

    Raises:
        UsageError: If the checkpoint does not name its data, or they have no images.
    """
    path, content = checkpoint.path, checkpoint.content
    section = read_section(checkpoint, "data", allowed)
    if section is not None:
        kind, _, settings = section
    else:  # trained in Python: the state of the data module has the name of its class
        name = next((name for name in data.__all__ if name in content), None)
        if name is None:
            raise UsageError(f"{path} does not name its data: the normalisation of its images is not known.")
        notes.append(f"the checkpoint has no settings of its data: normalised as {name} does by default")
        kind, settings = getattr(data, name), {}
    if not issubclass(kind, data.ImageDataModule):
        raise UsageError(f"{path}: its data are {kind.__name__}, which has no images.")
    settings.pop("augment", None)
    root = signature(kind).parameters.get("root")
    if root is not None and root.default is root.empty:
        settings["root"] = "data"  # required, but not used here
    try:
        source = kind(**settings)
        if isinstance(source, data.ImageFolderDataModule) and kind.__qualname__ in content:
            source.load_state_dict(content[kind.__qualname__])  # with the names of the classes
    except Exception as error:
        raise UsageError(f"{path}: the settings of its data cannot be used: {one_line(error)[:160]}") from error
    return source
