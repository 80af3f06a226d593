"""Settings of an arm that override those of the base."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from typing import Any

from lightning_cifar.errors import UsageError, did_you_mean

Config = dict[str, Any]

_SECTIONS = ("seed_everything", "trainer", "model", "data", "test_after_fit", "compile")


def merge(base: Config, overrides: Mapping[str, Any], where: str) -> Config:
    """Override settings of the base by dotted keys. ``model.lr`` is short for ``model.init_args.lr``.

    A new class starts without the arguments of the previous class, since the same name may have another meaning.
    """
    config = copy.deepcopy(base)
    # Classes first, then their arguments.
    for key in sorted(overrides, key=lambda key: (key.count("."), not key.endswith("class_path"))):
        value = overrides[key]
        parts = key.split(".")
        if parts[0] not in _SECTIONS:
            raise UsageError(f"{where}: the setting {key!r} does not exist.{did_you_mean(parts[0], _SECTIONS)}")
        if parts[0] in ("model", "data"):
            section = config.setdefault(parts[0], {})
            if parts[1:] in ([], ["class_path"]):
                config[parts[0]] = {"class_path": value, "init_args": {}}
                continue
            if parts[1] != "init_args":
                parts.insert(1, "init_args")
            if "class_path" not in section:
                raise UsageError(f"{where}: {key} needs a class: set {parts[0]}.class_path.")
        section = config
        for part in parts[:-1]:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise UsageError(f"{where}: {key} cannot be set: {part} is {section!r}, not a section.")
        section[parts[-1]] = copy.deepcopy(value)
    return config


def flatten(config: Mapping[str, Any], prefix: str = "") -> Config:
    """Return settings by dotted key, down to the arguments of model, data and trainer, which are not flattened."""
    flat: Config = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        depth = name.replace(".init_args", "").count(".")
        if isinstance(value, dict) and value and (depth == 0 or name.endswith(".init_args")):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def short_name(value: object) -> str:
    """Return a value as a part of a folder's name."""
    text = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return re.sub(r"[^\w+=.,-]+", "-", text).strip("-") or "none"
