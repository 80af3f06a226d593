"""Find and check configuration files before torch is imported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lightning_cifar.errors import UsageError
from lightning_cifar.files.reading import parse_yaml, read_text

_SECTIONS = ("trainer", "model", "data")
_EXAMPLE = "such as model: {class_path: LeNet}"
_PACKAGE = Path(__file__).parent
_ROOTS = (_PACKAGE, _PACKAGE.parent)  # in an installed package, or beside it in a repository


def find_config(path: str) -> str:
    """Return the path itself if the file exists; for ``configs/...``, else the file in the package."""
    if not path.startswith("configs/") or Path(path).exists():
        return path
    return next((str(root / path) for root in _ROOTS if (root / path).is_file()), path)


def list_configs() -> list[str]:
    """List the configurations in the package, such as ``configs/demo.yaml``."""
    return sorted({file.relative_to(root).as_posix() for root in _ROOTS for file in (root / "configs").rglob("*.yaml")})


def read_configuration(path: str | Path) -> dict[str, Any]:
    """Read the settings in a YAML file.

    Raises:
        UsageError: If the file does not contain settings, or contains other values than plain ones.
    """
    return parse_configuration(path, read_text(Path(path), follow=True))


def flat_settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as text by dotted key, without ``init_args``, with the names of classes."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, dict) and value:
            flat |= flat_settings(value, name)
        elif key == "class_path":
            flat[prefix] = str(value).rsplit(".", 1)[-1]
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat


def parse_configuration(path: str | Path, text: str) -> dict[str, Any]:
    """Parse the settings in a YAML text; ``path`` is for the messages."""
    content = parse_yaml(path, text)
    if content is None:
        raise UsageError(f"{path} is empty: it must contain settings, {_EXAMPLE}.")
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(f"{path} must contain settings by name, {_EXAMPLE}.")
    _check_names(path, node)
    for key, value in node.value:
        name, place = str(key.value).rstrip("+"), f"{path}, line {key.start_mark.line + 1}"
        if name in _SECTIONS and isinstance(value, yaml.SequenceNode):
            raise UsageError(f"{place}: {name} must contain settings by name.")
        if name == "trainer" and isinstance(value, yaml.ScalarNode) and value.tag != "tag:yaml.org,2002:null":
            raise UsageError(f"{place}: trainer (={value.value}) must contain settings.")
    settings: dict[str, Any] = content
    return settings


def _check_names(path: str | Path, node: yaml.Node, prefix: str = "") -> None:
    """Check that names are unique, and that each ``class_path`` is a text."""
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            _check_names(path, item, f"{prefix}{i}.")
    if not isinstance(node, yaml.MappingNode):
        return
    seen = set()
    for key, value in node.value:
        name, place = f"{prefix}{key.value}", f"{path}, line {key.start_mark.line + 1}"
        if name in seen:
            raise UsageError(f"{place}: {name} is given twice: remove one of them.")
        seen.add(name)
        if key.value == "class_path" and value.tag != "tag:yaml.org,2002:str":
            found = f" (={value.value})" if isinstance(value, yaml.ScalarNode) else ""
            raise UsageError(f"{place}: {name}{found} must be the name of a class.")
        _check_names(path, value, f"{name}.")
