"""What can be said of a configuration file before torch is loaded."""

from __future__ import annotations

from pathlib import Path

import yaml

from lightning_cifar.duplicates import refuse_duplicates
from lightning_cifar.errors import UsageError, one_line

_SECTIONS = ("trainer", "model", "data")
_MOST = 1_000_000  # values in a file
_EXAMPLE = "such as model: {class_path: LeNet}"


def check_configuration(path: str | Path) -> None:
    """Refuse a file that holds no settings.

    Raises:
        UsageError: naming the file, and the place in it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not valid YAML: it is no text.") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    check_text(path, text)
    refuse_duplicates(path)


def check_text(path: str | Path, text: str) -> None:
    """The same of a text; ``path`` is for the messages.

    Raises:
        UsageError: likewise.
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
    for key, value in node.value:
        name = str(key.value).rstrip("+")
        if name in _SECTIONS and isinstance(value, yaml.SequenceNode):
            raise UsageError(f"{path}, line {key.start_mark.line + 1}: {name} must hold settings by name.")
        if name == "trainer" and isinstance(value, yaml.ScalarNode) and value.tag != "tag:yaml.org,2002:null":
            raise UsageError(f"{path}, line {key.start_mark.line + 1}: trainer (={value.value}) must hold settings.")
        _check_classes(path, name, value)


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
