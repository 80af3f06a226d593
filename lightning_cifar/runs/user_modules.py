"""Importing the user's own classes from the current folder: by name, and only those that the user asked for.

The current folder is not on ``sys.path``. There, a missing optional package of a library (``olefile`` of Pillow, say)
would be taken from any folder in which a command runs, such as one that somebody sent.
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
    """Finds modules in the folder in which they were asked for; after all other finders, so that none is hidden."""

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
    """The options of a command that reads a checkpoint and has no configuration: see :func:`allow_modules`."""
    text = "the checkpoint's own class, such as small.Small, where it is not one of this package"
    parser.add_argument("--model", metavar="CLASS", help=f"import {text}")
    parser.add_argument("--data", metavar="CLASS", help="the same of its data")


def allow_modules(*class_paths: str | None) -> frozenset[str]:
    """Let the modules of these classes be imported from the current folder.

    Args:
        *class_paths: Dotted names that the user wrote, such as ``small.Small``.

    Returns:
        The names.
    """
    names = frozenset(filter(None, class_paths))
    PathFinder.invalidate_caches()  # a file that was written a moment ago
    _FINDER.folders |= {name.split(".", 1)[0]: os.getcwd() for name in names}
    if _FINDER not in sys.meta_path:
        sys.meta_path.append(_FINDER)
    return names


def forget_current_folder() -> None:
    """Remove the current folder from ``sys.path``, where ``python -m`` puts it, unless PYTHONPATH names it."""
    wanted = [os.path.abspath(folder) for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    here = os.getcwd()
    if here not in wanted:
        sys.path[:] = [folder for folder in sys.path if folder and os.path.abspath(folder) != here]
