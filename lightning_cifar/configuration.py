"""Configuration files: found in ``configs/``, and checked before torch is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lightning_cifar.errors import UsageError, one_line

_SECTIONS = ("trainer", "model", "data")
_MOST = 1_000_000  # values in a file
_EXAMPLE = "such as model: {class_path: LeNet}"
_PACKAGE = Path(__file__).parent
_ROOTS = (_PACKAGE, _PACKAGE.parent)  # inside an installed package, and beside it in a checkout


def find_config(path: str) -> str:
    """The path itself where there is such a file, or does not begin with ``configs/``; else that of the package's."""
    if not path.startswith("configs/") or Path(path).exists():
        return path
    return next((str(root / path) for root in _ROOTS if (root / path).is_file()), path)


def list_configs() -> list[str]:
    """``configs/demo.yaml`` and so on, in order."""
    return sorted({file.relative_to(root).as_posix() for root in _ROOTS for file in (root / "configs").rglob("*.yaml")})


def read_configuration(path: str | Path) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        UsageError: If the file holds no settings, or other values than plain ones; it names the file and the place.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not valid YAML: it is not text.") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    return parse_configuration(path, text)


def parse_configuration(path: str | Path, text: str) -> dict[str, Any]:
    """The settings in a YAML text; ``path`` is for the messages.

    Raises:
        UsageError: See :func:`read_configuration`.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        reason = "nested too deeply" if deep else one_line(error).replace("<unicode string>", str(path))
        if r"'\t'" in reason:
            reason += ": indent with spaces, not tabs"
        raise UsageError(f"{path} is not valid YAML: {reason}") from error
    if node is None:
        raise UsageError(f"{path} is empty: it must hold settings, {_EXAMPLE}.")
    _refuse_tags(path, node)
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(f"{path} must hold settings by name, {_EXAMPLE}.")
    for name, line in _duplicates(node, ""):
        raise UsageError(f"{path}, line {line}: {name} is given a second time, and only one would count: rename it.")
    for key, value in node.value:
        name = str(key.value).rstrip("+")
        if name in _SECTIONS and isinstance(value, yaml.SequenceNode):
            raise UsageError(f"{path}, line {key.start_mark.line + 1}: {name} must hold settings by name.")
        if name == "trainer" and isinstance(value, yaml.ScalarNode) and value.tag != "tag:yaml.org,2002:null":
            raise UsageError(f"{path}, line {key.start_mark.line + 1}: trainer (={value.value}) must hold settings.")
        _check_classes(path, name, value)
    try:
        content: dict[str, Any] = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # a date that does not exist, a name that cannot be one
        raise UsageError(f"{path} is not valid YAML: {one_line(error)}") from error
    return content


def _refuse_tags(path: str | Path, root: yaml.Node) -> None:
    """Plain values alone: what ``!!python/...`` asks for is never made, and is not passed over either.

    Raises:
        UsageError: naming the place; also of aliases that contain themselves, or stand for a million values.
    """
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        where = f"{path}, line {node.start_mark.line + 1}"
        if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.startswith("tag:yaml.org,2002:python"):
            raise UsageError(f"{where}: the tag {node.tag[:80]} is refused: configurations hold plain values.")
        if not isinstance(node, yaml.CollectionNode):
            return 1
        if id(node) not in sizes:
            sizes[id(node)] = _MOST + 1  # until it is known: in itself it has no end
            items = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
            sizes[id(node)] = 1 + sum(size(item) for item in items)
        if sizes[id(node)] > _MOST:
            raise UsageError(f"{where}: with its aliases (*) this stands for more than {_MOST:,} values: write less.")
        return sizes[id(node)]

    size(root)


def _check_classes(path: str | Path, name: str, node: yaml.Node) -> None:
    """A class is named by a text."""
    if not isinstance(node, yaml.MappingNode):
        for i, item in enumerate(node.value if isinstance(node, yaml.SequenceNode) else ()):
            _check_classes(path, f"{name}.{i}", item)
        return
    for key, value in node.value:
        if key.value == "class_path" and value.tag != "tag:yaml.org,2002:str":
            found = f" (={value.value})" if isinstance(value, yaml.ScalarNode) else ""
            line = value.start_mark.line + 1
            raise UsageError(f"{path}, line {line}: {name}.class_path{found} must be the name of a class.")
        _check_classes(path, f"{name}.{key.value}", value)


def _duplicates(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            yield from _duplicates(item, f"{prefix}{i}.")
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            if name in seen:
                yield name, key.start_mark.line + 1
            seen.add(name)
            yield from _duplicates(value, f"{name}.")
