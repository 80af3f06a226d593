"""The experiments that come with the package: ``configs/...`` is found from any folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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


def with_found_configs(words: Sequence[str]) -> list[str]:
    """The words of a command line with the paths after ``--config`` and ``-c`` replaced by those of existing files."""
    found = list(words)
    for i, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option in ("-c", "--config") and equals:
            found[i] = f"{option}={find_config(value)}"
        elif word in ("-c", "--config") and i + 1 < len(words):
            found[i + 1] = find_config(words[i + 1])
    return found
