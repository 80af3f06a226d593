"""What is taken from the configuration in a checkpoint.

A checkpoint is untrusted data. Only plain values are taken from it, by the rules in this file: a model class with its
hyper-parameters, a data class with settings that are neither paths nor addresses, and the Trainer's numeric settings.
Callbacks, loggers, strategies, plugins, profilers, folders and callables are never taken. Nothing that a checkpoint
names is imported, unless the user names it too.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from inspect import signature
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lightning_cifar import data, models
from lightning_cifar.errors import UsageError, one_line
from lightning_cifar.models.arguments import argument_names
from lightning_cifar.models.transfer import Transfer

if TYPE_CHECKING:
    from lightning_cifar.checkpoints.reading import Checkpoint

_TRAINER = (
    *("max_epochs", "min_epochs", "max_steps", "min_steps"),
    *("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches", "overfit_batches"),
    *("val_check_interval", "check_val_every_n_epoch", "num_sanity_val_steps", "log_every_n_steps"),
    *("accumulate_grad_batches", "gradient_clip_val", "deterministic", "detect_anomaly", "sync_batchnorm"),
)
_TRAINER_TEXTS = ("precision", "gradient_clip_algorithm")
_NEVER = ("callbacks", "logger", "strategy", "plugins", "profiler")
_DATA_TEXTS = ("augment", "class_names", "resize", "statistics", "damaged")
_MOST = 10_000  # items in a list: names of classes, at most
_NETWORK = ("download",)
"""Of the data: would make the checkpoint cause a request to a network."""


def trained_settings(
    checkpoint: Checkpoint, *, of_fit: bool, allowed: Collection[str] = (), given: Collection[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """The settings of a run that goes on from a checkpoint, or evaluates it.

    Args:
        checkpoint: Of any origin.
        of_fit: Whether the run trains. Only then are the Trainer's settings taken.
        allowed: Dotted names of classes outside this package that may be imported: the user wrote them.
        given: Sections, ``model`` or ``data``, for which the user names a class.

    Returns:
        The settings: ``seed_everything``, ``model``, ``data`` and ``trainer``, as far as the checkpoint has them; and
        the names of those that were left out although the training had them.

    Raises:
        UsageError: If a class is not one of this package, or a setting does not exist in this version.
    """
    config, left_out = checkpoint.config, []
    settings: dict[str, Any] = {}
    if isinstance(seed := config.get("seed_everything"), int) and _is_numeric(seed):
        settings["seed_everything"] = seed
    model = model_settings(checkpoint, allowed, is_given="model" in given)
    if model is not None:
        settings["model"] = model
    source = data_settings(checkpoint, allowed, is_given="data" in given)
    if source is not None:
        settings["data"] = {"class_path": source[0], "init_args": source[1]}
        left_out += [f"data.{name}" for name in source[2]]
    if of_fit:
        held = _mapping(config.get("trainer"))
        taken = {name: held[name] for name in _TRAINER if name in held and _is_numeric(held[name])}
        taken |= {name: held[name] for name in _TRAINER_TEXTS if isinstance(held.get(name), str | int)}
        settings["trainer"] = taken
        left_out += [f"trainer.{name}" for name in _NEVER if held.get(name) not in (None, True, [], "auto")]
    return settings, left_out


def model_settings(
    checkpoint: Checkpoint, allowed: Collection[str] = (), *, is_given: bool = False, all_of_them: bool = False
) -> dict[str, Any] | None:
    """Class and arguments of the network in a checkpoint; None if it does not say, or the user says another.

    Args:
        checkpoint: Of any origin.
        allowed: See :func:`trained_settings`.
        is_given: Whether the user names a class.
        all_of_them: With the arguments that a command line takes from the data, such as ``num_classes``.

    Raises:
        UsageError: See :func:`trained_settings`.
    """
    section = _mapping(checkpoint.config.get("model"))
    class_path = checkpoint.content.get("class_path") or section.get("class_path")
    if class_path is None or (is_given and not _is_known(class_path, models, allowed)):
        return None
    found = find_class(checkpoint, class_path, models, "--model", allowed)
    # The hyper-parameters are what the model had in the end, a learning rate that was found included.
    held = checkpoint.hyper_parameters or _mapping(section.get("init_args"))
    settings = _with_own_weights(checkpoint, held, allowed)
    _refuse_unknown(checkpoint, found, settings, "model")
    if "init_args" in section and not all_of_them:  # there, the data determine the others
        names = _mapping(section["init_args"]).keys()
        settings = {name: value for name, value in settings.items() if name in names}
    return {"class_path": _path_of(class_path, found), "init_args": settings | _no_weights(found)}


def data_settings(
    checkpoint: Checkpoint, allowed: Collection[str] = (), *, is_given: bool = False
) -> tuple[str, dict[str, Any], list[str]] | None:
    """Class and arguments of the data of a training, and the names of the arguments that are not taken.

    Raises:
        UsageError: See :func:`trained_settings`.
    """
    section = _mapping(checkpoint.config.get("data"))
    class_path = section.get("class_path")
    if class_path is None or (is_given and not _is_known(class_path, data, allowed)):
        return None
    found = find_class(checkpoint, class_path, data, "--data", allowed)
    held = _mapping(section.get("init_args"))
    taken = {name: value for name, value in held.items() if _is_taken(name, value)}
    _refuse_unknown(checkpoint, found, taken, "data")
    defaults = {name: parameter.default for name, parameter in signature(found).parameters.items()}
    left_out = [name for name, value in held.items() if name not in taken and value != defaults.get(name)]
    return _path_of(class_path, found), taken, left_out


def find_class(
    checkpoint: Checkpoint, class_path: object, module: ModuleType, option: str, allowed: Collection[str] = ()
) -> type[Any]:
    """A class that a checkpoint names: a public one of this package, or one that the user names too.

    Nothing else is imported, and nothing is called.

    Args:
        checkpoint: For the message.
        class_path: As the checkpoint has it.
        module: ``lightning_cifar.models`` or ``lightning_cifar.data``.
        option: With which the user can name it.
        allowed: Names that the user wrote.

    Raises:
        UsageError: If it is neither.
    """
    if not isinstance(class_path, str):
        raise UsageError(f"{checkpoint.path} names a class by a {type(class_path).__name__}, which is not text.")
    name = class_path.rpartition(".")[2]
    if class_path in allowed and not class_path.startswith("lightning_cifar."):
        try:
            found = getattr(importlib.import_module(class_path.rpartition(".")[0]), name)
        except (ImportError, AttributeError) as error:
            raise UsageError(f"{option} {class_path} cannot be imported: {one_line(error)[:160]}") from error
        if not isinstance(found, type):
            raise UsageError(f"{option} {class_path} is not a class.")
        return found
    if not _is_known(class_path, module, ()):
        raise UsageError(
            f"{checkpoint.path} names {class_path[:100]!r}, which is not a class of this package. "
            f"If you trust it, pass {option} {class_path[:100]}."
        )
    known: type[Any] = getattr(module, name)
    return known


def _is_known(class_path: object, module: ModuleType, allowed: Collection[str]) -> bool:
    if not isinstance(class_path, str):
        return False
    place, _, name = class_path.rpartition(".")
    # By its public name: where in the package an earlier version had it does not matter.
    return class_path in allowed or (place.split(".")[0] in ("", "lightning_cifar") and name in module.__all__)


def _path_of(class_path: str, found: type[Any]) -> str:
    ours = found.__module__.startswith("lightning_cifar.")
    return f"lightning_cifar.{found.__name__}" if ours else class_path


def _with_own_weights(checkpoint: Checkpoint, held: Mapping[str, Any], allowed: Collection[str]) -> dict[str, Any]:
    """Hyper-parameters without files of weights: the checkpoint has the weights. Members' classes are checked too."""
    settings: dict[str, Any] = {}
    for name, value in held.items():
        if isinstance(value, dict):
            value = _with_own_weights(checkpoint, value, allowed)
        if name == "class_path":
            member = find_class(checkpoint, value, models, "--config with it, or --model", allowed)
            value = _path_of(value, member)  # the place in the package is not imported
        settings[name] = None if name == "weights" else _plain(checkpoint, name, value)
    if "class_path" in held and isinstance(settings.setdefault("init_args", {}), dict):
        settings["init_args"] |= _no_weights(member)
    return settings


def _no_weights(found: type[Any]) -> dict[str, None]:
    """Say it even where the checkpoint does not: the default of a pretrained network is to download them."""
    return {"weights": None} if issubclass(found, Transfer) else {}


def _plain(checkpoint: Checkpoint, name: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(checkpoint, name, item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(checkpoint, name, item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UsageError(f"{checkpoint.path}: its setting {name[:80]} is a {type(value).__name__}, not a plain value.")


def _refuse_unknown(checkpoint: Checkpoint, found: type[Any], settings: Mapping[str, Any], section: str) -> None:
    """Refuse a setting that this version of a class does not have."""
    if not found.__module__.startswith("lightning_cifar."):
        return  # the user's own class checks its arguments
    known = argument_names(found)
    unknown = next((name for name in settings if name not in known), None)
    if unknown is not None:
        raise UsageError(
            f"{checkpoint.path} was written by another version: its setting {section}.{str(unknown)[:80]} does not "
            f"exist in {found.__name__} here. Use the version that wrote it, or train again."
        )


def _is_taken(name: str, value: object) -> bool:
    if name in _DATA_TEXTS and not (isinstance(value, list) and len(value) > _MOST):
        return True
    return name not in _NETWORK and _is_numeric(value)


def _is_numeric(value: object) -> bool:
    if isinstance(value, list):
        return len(value) <= _MOST and all(_is_numeric(item) for item in value)
    return value is None or isinstance(value, float) or (isinstance(value, bool | int) and abs(value) < 2**63)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
