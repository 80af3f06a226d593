"""A trained classifier out of a checkpoint alone: the network, its class names, how its images are normalised."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from lightning_cifar import data, models
from lightning_cifar.checkpoints.reading import CONFIG_KEY, read_checkpoint
from lightning_cifar.errors import UsageError, one_line


class Trained(NamedTuple):
    """What is needed to ask a network about one's own images."""

    model: models.Classifier
    """In evaluation mode, on the GPU if there is one."""
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    epochs: int
    """Completed when the checkpoint was written."""
    notes: tuple[str, ...]
    """What had to be assumed."""


def load_trained(path: Path, content: Mapping[str, Any] | None = None) -> Trained:
    """Read a checkpoint of a classifier. Its data need not be there.

    Args:
        path: Of the checkpoint, such as ``runs/.../checkpoints/best.ckpt``.
        content: Of the checkpoint, where it was read already.

    Raises:
        UsageError: If the file is no checkpoint of a classifier of this package, or damaged, or its weights are not
            finite.
    """
    content = read_checkpoint(path) if content is None else content
    model = _load_model(path, content)
    broken = next((name for name, value in model.state_dict().items() if not torch.isfinite(value).all()), None)
    if broken:
        raise UsageError(f"{path} holds weights that are not finite ({broken}), its training diverged: take another.")
    notes: list[str] = []
    source = trained_with(path, content, notes)
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
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return Trained(model, names, source.mean, source.std, int(content.get("epoch", -1)) + 1, tuple(notes))


def _load_model(path: Path, content: Mapping[str, Any]) -> models.Classifier:
    if "class_path" not in content:
        raise UsageError(f"{path} does not say which network it holds: it was not written by this package.")
    known = _find_class(path, content["class_path"])
    name = known.__name__
    if not issubclass(known, models.Classifier):
        raise UsageError(f"{path} holds {name}, which does not classify images.")
    try:
        model = known(**content.get("hyper_parameters", {}))
        model.load_state_dict(content["state_dict"])
    except (TypeError, ValueError, RuntimeError) as error:
        detail = one_line(error)[:160]
        raise UsageError(f"{path} does not fit {name} of this version of the package: {detail} ...") from error
    return model


def trained_with(path: Path, content: Mapping[str, Any], notes: list[str]) -> data.ImageDataModule:
    """The data module as it was configured, but for what would need files; nothing is loaded.

    Args:
        path: Of the checkpoint, for messages.
        content: Of the checkpoint.
        notes: Gets what had to be assumed.

    Raises:
        UsageError: If the checkpoint does not say it, or its data has no images.
    """
    section = (yaml.safe_load(content.get(CONFIG_KEY) or "{}") or {}).get("data") or {}
    class_path, settings = section.get("class_path"), dict(section.get("init_args") or {})
    if class_path is None:  # trained in Python: the data module left its state under its name
        class_path = next((name for name in data.__all__ if name in content), None)
        if class_path is None:
            raise UsageError(f"{path} says nothing of its data, so that the normalisation of its images is not known.")
        notes.append(f"the checkpoint has no settings of its data: normalised as {class_path} does by default")
    known = _find_class(path, class_path if "." in class_path else f"{data.__name__}.{class_path}")
    for unneeded in ("albumentations", "augment"):
        settings.pop(unneeded, None)
    try:
        source: object = known(**settings)
    except Exception as error:
        raise UsageError(f"{path}: the settings of its data cannot be used: {one_line(error)[:160]}") from error
    if not isinstance(source, data.ImageDataModule):
        raise UsageError(f"{path}: its data is {known.__name__}, which gives no images.")
    if isinstance(source, data.ImageFolderDataModule) and known.__qualname__ in content:
        source.load_state_dict(content[known.__qualname__])  # the classes, which its folder need not tell any more
    return source


def _find_class(path: Path, class_path: str) -> type[Any]:
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"{path} needs {class_path}, which cannot be imported: {one_line(error)[:120]}") from error
    if not isinstance(found, type):
        raise UsageError(f"{path} needs {class_path}, which is no class.")
    return found
