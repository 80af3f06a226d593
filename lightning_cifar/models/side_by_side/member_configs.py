"""Checking and building the members of a group of networks from plain configurations."""

from __future__ import annotations

import contextvars
import copy
import importlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from lightning_cifar.errors import did_you_mean
from lightning_cifar.models.arguments import argument_names, parse_arguments

Settings: TypeAlias = dict[str, Any]
"""Plain values: ``class_path``, ``init_args`` and ``seed`` of a member."""

KEYS = ("class_path", "init_args", "seed")
# Hooks that the training loop calls on the group and not on its members.
UNCALLED = ("optimizer_step", "optimizer_zero_grad", "backward", "lr_scheduler_step", "configure_callbacks")
PLAIN = (type(None), bool, int, float, str)


def check_members(members: object, shared: Mapping[str, object] | None = None) -> dict[str, Settings]:
    """Check the settings of members, and return a copy of them.

    Args:
        members: Settings by name.
        shared: Arguments of every member, overridden by its ``init_args``.

    Raises:
        ValueError: If there are none, a name is not an identifier, a class or an argument is unknown, or a value has
            the wrong type or is not plain.
    """
    if not isinstance(members, Mapping) or not members:
        raise ValueError(
            f"members (={members!r}) must contain at least one: {{plain: {{class_path: MLP}}, "
            "norm: {class_path: MLP, init_args: {batch_norm: true}}}."
        )
    checked = {}
    for name, settings in members.items():
        _check_name(name)
        checked[name] = _check_settings(f"members.{name}", settings, shared or {})
    return checked


def build_members(
    members: Mapping[str, Settings], given: Mapping[str, object]
) -> tuple[dict[str, pl.LightningModule], dict[str, Tensor]]:
    """Build the members, each from torch's present random state, or from its seed.

    Afterwards, torch's random state is the same as if only the first member had been built.

    Args:
        members: Settings from :func:`check_members`.
        given: Properties of the data, passed to all members with these arguments. None is not passed on.

    Returns:
        The members, and for each the state of torch's generator after it was built.

    Raises:
        ValueError: If a member cannot be built, contradicts ``given``, or expects other inputs than another.
    """
    modules: dict[str, pl.LightningModule] = {}
    states: dict[str, Tensor] = {}
    start = torch.get_rng_state()
    try:
        for name, settings in members.items():
            torch.set_rng_state(start)
            if settings.get("seed") is not None:
                torch.default_generator.manual_seed(settings["seed"])
            # In a new context: in the present one, save_hyperparameters would find the arguments of the group, which
            # Lightning's command line has left there.
            modules[name] = contextvars.Context().run(_build, name, settings, given)
            states[name] = torch.get_rng_state()
    finally:
        torch.set_rng_state(next(iter(states.values()), start))
    _check_needs(modules)
    return modules, states


def find_class(class_path: str, where: str) -> type[pl.LightningModule]:
    """Find a LightningModule by its name in this package, or by its dotted path.

    Raises:
        ValueError: If there is no such class; the message names a similar one.
    """
    package = importlib.import_module("lightning_cifar.models")
    module_path, _, class_name = class_path.rpartition(".")
    try:
        module: Any = importlib.import_module(module_path) if module_path else package
    except (ImportError, TypeError) as error:
        raise ValueError(f"{where} (={class_path!r}): there is no module {module_path} ({error}).") from error
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, pl.LightningModule)):
        hint = did_you_mean(class_name, package.__all__)
        names = ", ".join(name for name in package.__all__ if name != "SideBySide")
        raise ValueError(f"{where} (={class_path!r}): there is no such LightningModule.{hint} There are {names}.")
    return found


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"members: the name {name!r} must consist of letters, digits and _, such as batch_norm.")
    if hasattr(nn.ModuleDict(), name):
        raise ValueError(f"members: the name {name!r} is an attribute of torch's ModuleDict: choose another.")


def _check_settings(where: str, settings: object, shared: Mapping[str, object]) -> Settings:
    if not isinstance(settings, Mapping):
        given = f"{type(settings).__name__}()" if isinstance(settings, nn.Module) else repr(settings)
        raise ValueError(
            f"{where} (={given}) must be a class with its arguments: "
            '{"class_path": "MLP", "init_args": {"hidden_sizes": [48, 24]}}.'
        )
    for key in settings:
        if str(key).startswith("init_args."):  # from --model.members.plain.init_args.lr 0.1
            raise ValueError(
                f"{where}.{key} would replace the whole member: give the member as one value, "
                "{class_path: ..., init_args: {...}}, or set an argument of all members with shared."
            )
        if key not in KEYS:
            hint = did_you_mean(str(key), KEYS)
            raise ValueError(f"{where}.{key} is unknown.{hint} A member has {', '.join(KEYS)}.")
    class_path, seed = settings.get("class_path"), settings.get("seed")
    init_args = settings.get("init_args") or {}
    if not isinstance(class_path, str):
        raise ValueError(f"{where}.class_path (={class_path!r}) must be the name of a class, such as MLP.")
    if not (seed is None or (isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0)):
        raise ValueError(f"{where}.seed (={seed!r}) must be a whole number of at least 0, or left out.")
    if not isinstance(init_args, Mapping):
        raise ValueError(f"{where}.init_args (={init_args!r}) must be arguments by name.")
    kind = find_class(class_path, f"{where}.class_path")
    if issubclass(kind, importlib.import_module("lightning_cifar.models").SideBySide):
        raise ValueError(f"{where}: {kind.__name__} cannot be a member of SideBySide: list its members instead.")
    for method in UNCALLED:
        if getattr(kind, method) is not getattr(pl.LightningModule, method):
            raise ValueError(
                f"{where}: {kind.__name__} overrides {method}, which SideBySide does not call: train it separately."
            )
    _check_arguments("shared", kind, shared)
    _check_arguments(f"{where}.init_args", kind, init_args)
    arguments = copy.deepcopy({**shared, **init_args})
    checked: Settings = {"class_path": class_path, "init_args": arguments}
    return checked if seed is None else {**checked, "seed": seed}


def _check_arguments(where: str, kind: type, arguments: Mapping[str, object]) -> None:
    known = argument_names(kind)
    for key, value in arguments.items():
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise ValueError(f"{where}.{key}: {kind.__name__} has no such argument.{hint}")
        if not _is_plain(value):
            raise ValueError(
                f"{where}.{key} is a {type(value).__name__}: give plain values, which can be saved in checkpoints."
            )
    try:
        parse_arguments(kind, arguments)
    except ValueError as error:
        raise ValueError(f"{where}.{error}.") from error


def _build(name: str, settings: Settings, given: Mapping[str, object]) -> pl.LightningModule:
    kind = find_class(settings["class_path"], f"members.{name}.class_path")
    known, arguments = argument_names(kind), dict(settings["init_args"])
    for key, value in given.items():
        if value is None or key not in known:
            continue
        if arguments.setdefault(key, value) != value:
            raise ValueError(
                f"members.{name}.init_args.{key} (={arguments[key]}) differs from that of the data ({value}): "
                "leave it out, or choose other data."
            )
    try:
        member = kind(**arguments)
    except (ValueError, TypeError) as error:
        raise ValueError(f"members.{name} ({kind.__name__}): {' '.join(str(error).split())}") from error
    if not member.automatic_optimization:
        raise ValueError(f"members.{name} ({kind.__name__}) uses manual optimization: train it in a separate run.")
    if not any(parameter.requires_grad for parameter in member.parameters()):
        raise ValueError(
            f"members.{name} ({kind.__name__}) has no trainable parameters: choose a class that builds a network."
        )
    return member


def _check_needs(members: Mapping[str, pl.LightningModule]) -> None:
    """Raise if members expect different inputs, since all get the same batches."""
    needs: dict[str, dict[str, object]] = {"num_classes": {}, "inputs of shape": {}}
    for name, member in members.items():
        example = member.example_input_array
        if isinstance(example, Tensor):
            needs["inputs of shape"][name] = tuple(example.shape[1:])
        if isinstance(number := getattr(member, "num_classes", None), int):
            needs["num_classes"][name] = number
    for what, wanted in needs.items():
        if len(set(wanted.values())) > 1:
            (first, one), *rest = wanted.items()
            second, other = next((name, value) for name, value in rest if value != one)
            raise ValueError(
                f"members get the same batches, but {first} needs {what} {one} and {second} {what} {other}: "
                "use the same, or train them in separate runs."
            )


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, (*value.keys(), *value.values())))
    return type(value) in PLAIN
