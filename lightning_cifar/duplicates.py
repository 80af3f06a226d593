"""Names that stand twice in a configuration, of which YAML readers silently keep the last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from lightning_cifar.errors import UsageError


def refuse_duplicates(path: str | Path) -> None:
    """Refuse a YAML file in which a name stands twice beside each other: two members called ``plain``, say.

    What is not YAML is left to the parser, which tells more of it.

    Raises:
        UsageError: naming the file, the line and the name.
    """
    try:
        root = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError):
        return
    for name, line in _duplicates(root, ""):
        raise UsageError(f"{path}, line {line}: {name} is given a second time, and only one would count: rename it.")


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
