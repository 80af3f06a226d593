"""Settings that are taken from the configuration in a checkpoint.

A checkpoint is untrusted data. Only plain values are taken from it, by the rules in this file: a model class with its
hyper-parameters, a data class with settings that are neither paths nor addresses, and the Trainer's numeric settings.
Callbacks, loggers, strategies, plugins, profilers, folders and callables are never taken. A class that a checkpoint
names is imported only if it is a public class of this package, or if the user names it too.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from inspect import signature
from typing import Any

from lightning_cifar import data, models
from lightning_cifar.checkpoints.reading import Checkpoint
from lightning_cifar.errors import UsageError, one_line
from lightning_cifar.models.arguments import argument_names
from lightning_cifar.models.transfer import Transfer

_PACKAGES = {"model": models, "data": data}
_NUMBERS = (  # of the Trainer; of the data, all numbers but "download", which would cause a request to a network
    *("max_epochs", "min_epochs", "max_steps", "min_steps"),
    *("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches", "overfit_batches"),
    *("val_check_interval", "check_val_every_n_epoch", "num_sanity_val_steps", "log_every_n_steps"),
    *("accumulate_grad_batches", "gradient_clip_val", "deterministic", "detect_anomaly", "sync_batchnorm"),
)
_TEXTS = {
    "trainer": ("precision", "gradient_clip_algorithm"),
    "data": ("augment", "class_names", "resize", "statistics", "damaged"),
}
_NEVER = ("callbacks", "logger", "strategy", "plugins", "profiler")
_MAX_ITEMS = 10_000  # of a list, such as the names of the classes
_HUGE = 2**63  # torch and NumPy refuse larger integers


def trained_settings(
    checkpoint: Checkpoint, *, of_fit: bool, allowed: Collection[str] = (), given: Collection[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Settings for a run that continues or evaluates a checkpoint.

    Args:
        of_fit: Whether the run trains. Only then are the Trainer's settings taken.
        allowed: Dotted names of classes outside this package that may be imported, because the user wrote them.
        given: Sections, ``model`` or ``data``, for which the user names a class.

    Returns:
        The settings ``seed_everything``, ``model``, ``data`` and ``trainer``, if the checkpoint contains them, and the
        names of the settings of the training that are not taken.

    Raises:
        UsageError: If a class is not one of this package, or a setting does not exist in this version.
    """
    config, left_out = checkpoint.config, []
    settings: dict[str, Any] = {}
    if isinstance(seed := config.get("seed_everything"), int) and _is_numeric(seed):
        settings["seed_everything"] = seed
    for name in _PACKAGES:
        section = read_section(checkpoint, name, allowed, is_given=name in given)
        if section is None:
            continue
        kind, class_path, taken = section
        held = _mapping(config.get(name)).get("init_args")
        if name == "model" and held is not None:  # the data determine the others, such as num_classes
            taken = {key: value for key, value in taken.items() if key in _mapping(held) or key == "weights"}
        if name == "data":
            known = signature(kind).parameters
            others = {key: value for key, value in _mapping(held).items() if key not in taken}
            left_out += [f"data.{key}" for key in others if key not in known or others[key] != known[key].default]
        settings[name] = {"class_path": class_path, "init_args": taken}
    if of_fit:
        held = _mapping(config.get("trainer"))
        settings["trainer"] = {name: held[name] for name in _NUMBERS if name in held and _is_numeric(held[name])}
        settings["trainer"] |= {name: held[name] for name in _TEXTS["trainer"] if isinstance(held.get(name), str | int)}
        left_out += [f"trainer.{name}" for name in _NEVER if held.get(name) not in (None, True, [], "auto")]
    return settings, left_out


def read_section(
    checkpoint: Checkpoint, name: str, allowed: Collection[str] = (), *, is_given: bool = False
) -> tuple[type[Any], str, dict[str, Any]] | None:
    """The class of the model or of the data in a checkpoint, its name, and its arguments.

    The arguments of a model include those that a run takes from the data, such as ``num_classes``. The result is None
    if the checkpoint does not contain the section ``name``, or if the user names another class (``is_given``).
    """
    section = _mapping(checkpoint.config.get(name))
    class_path, held = section.get("class_path"), _mapping(section.get("init_args"))
    if name == "model":
        class_path = checkpoint.content.get("class_path") or class_path
    if class_path is None or (is_given and str(class_path) not in allowed and not _is_public(str(class_path), name)):
        return None
    kind, path = find_class(checkpoint, str(class_path), name, allowed)
    if name == "model":
        # The hyper-parameters are those at the end of the training: they include a learning rate that was found.
        network = {"class_path": class_path, "init_args": checkpoint.hyper_parameters or held}
        taken = _plain(checkpoint, name, network, allowed)["init_args"]
    else:
        taken = {key: value for key, value in held.items() if _is_taken_of_data(key, value)}
    known: Collection[str] = argument_names(kind) if kind.__module__.startswith("lightning_cifar.") else taken
    unknown = next((key for key in taken if key not in known), None)
    if unknown is not None:
        raise UsageError(
            f"{checkpoint.path} was written by another version: its setting {name}.{str(unknown)[:80]} does not "
            f"exist in {kind.__name__} here. Use the version that wrote it, or train again."
        )
    return kind, path, taken


def find_class(
    checkpoint: Checkpoint, class_path: str, section: str, allowed: Collection[str] = ()
) -> tuple[type[Any], str]:
    """Return a class that a checkpoint names, and its name: a public class of this package, or one that the user names.

    Nothing else is imported, and nothing is called. For a class of this package, only the last part of the name counts:
    earlier versions had some classes in other modules.

    Raises:
        UsageError: If the class is neither, or cannot be imported.
    """
    place, _, name = class_path.rpartition(".")
    if _is_public(class_path, section):
        return getattr(_PACKAGES[section], name), f"lightning_cifar.{name}"
    if class_path not in allowed:
        raise UsageError(
            f"{checkpoint.path} names {class_path[:100]!r}, which is not a class of this package. "
            f"If you trust it, pass --{section} {class_path[:100]}, or a --config that names it."
        )
    try:
        found = getattr(importlib.import_module(place), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--{section} {class_path} cannot be imported: {one_line(error)[:160]}") from error
    if not isinstance(found, type):
        raise UsageError(f"--{section} {class_path} is not a class.")
    return found, class_path


def _is_public(class_path: str, section: str) -> bool:
    place, _, name = class_path.rpartition(".")
    return place.split(".")[0] in ("", "lightning_cifar") and name in _PACKAGES[section].__all__


def _plain(checkpoint: Checkpoint, name: str, value: Any, allowed: Collection[str]) -> Any:
    """Check that a setting has plain values and allowed classes; return it without files of weights."""
    if isinstance(value, list | tuple) and len(value) <= _MAX_ITEMS:
        return [_plain(checkpoint, name, item, allowed) for item in value]
    if isinstance(value, dict):
        items = {str(key): None if key == "weights" else item for key, item in value.items()}
        plain = {key: _plain(checkpoint, key, item, allowed) for key, item in items.items()}
        if "class_path" in plain:
            kind, plain["class_path"] = find_class(checkpoint, str(plain["class_path"]), "model", allowed)
            if issubclass(kind, Transfer):  # by default, its weights are downloaded
                plain["init_args"] = {**_mapping(plain.get("init_args")), "weights": None}
        return plain
    if isinstance(value, str) or (not isinstance(value, list | tuple) and _is_numeric(value)):
        return value
    what = f"its setting {name[:80]} (type {type(value).__name__})"
    raise UsageError(f"{checkpoint.path}: {what} is not a plain value of limited size.")


def _is_taken_of_data(name: object, value: object) -> bool:
    if name in _TEXTS["data"]:
        return not isinstance(value, list) or len(value) <= _MAX_ITEMS
    return name != "download" and _is_numeric(value)


def _is_numeric(value: object) -> bool:
    if isinstance(value, list):
        return len(value) <= _MAX_ITEMS and all(_is_numeric(item) for item in value)
    return value is None or isinstance(value, float) or (isinstance(value, bool | int) and abs(value) < _HUGE)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
