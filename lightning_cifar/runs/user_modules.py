"""Import of user-defined classes from the current folder, only if the user names them.

The current folder is not on ``sys.path``. Otherwise, a missing optional package of a library, such as ``olefile`` of
Pillow, would be imported from each folder in which a command runs, including received folders.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser


class _NamedModules(MetaPathFinder):
    """Finds modules in the folder in which the user named them. It is the last finder, so that it hides no module."""

    def __init__(self) -> None:
        self.folders: dict[str, str] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or fullname not in self.folders:
            return None
        return PathFinder.find_spec(fullname, [self.folders[fullname]], target)


_FINDER = _NamedModules()


def add_class_options(parser: ArgumentParser) -> None:
    """Add the options of a command that reads a checkpoint without a configuration, see :func:`allow_modules`."""
    for section in ("model", "data"):
        text = f"user-defined class of the {section} in the checkpoint, such as small.Small"
        parser.add_argument(f"--{section}", metavar="CLASS", help=text)


def allow_modules(*class_paths: str | None) -> frozenset[str]:
    """Allow the import of modules of classes, such as ``small.Small``, from the current folder; return the names."""
    names = frozenset(filter(None, class_paths))
    PathFinder.invalidate_caches()  # for a file that is new
    _FINDER.folders |= {name.split(".", 1)[0]: os.getcwd() for name in names}
    if _FINDER not in sys.meta_path:
        sys.meta_path.append(_FINDER)
    return names


def forget_current_folder() -> None:
    """Remove the current folder, which ``python -m`` adds, from ``sys.path``, unless PYTHONPATH names it."""
    wanted = [os.path.abspath(folder) for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    here = os.getcwd()
    if here not in wanted:
        sys.path[:] = [folder for folder in sys.path if folder and os.path.abspath(folder) != here]
