"""The output path of a command: one rule for ``--out`` in all commands."""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path

from lightning_cifar.errors import UsageError

_FILE = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,11}")


def new_run(stem: str) -> Path:
    """Return a path in ``runs/`` with the stem and the time, which does not exist."""
    stem = f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    paths = (Path("runs", f"{stem}-{i}" if i else stem) for i in range(1000))
    return next(path for path in paths if not path.exists())


def choose_output(out: Path, name: str | None, *suffixes: str, option: str = "--out") -> Path:
    """Return the file or folder for a path given by the user.

    A path is a folder if that folder exists, or if it has no suffix such as ``.html``; otherwise it is a file. Nothing
    is created.

    Args:
        out: Path given by the user.
        name: Name of the file in a folder; None if a command writes several files and needs a folder.
        suffixes: Allowed suffixes of the file; that of ``name`` by default.
        option: Option for messages.

    Raises:
        UsageError: The path is a file instead of a folder or the reverse, or is not writable.

    Example:
        >>> [choose_output(Path(out), "report.html").as_posix() for out in ("new", "a.html")]
        ['new/report.html', 'a.html']
    """
    out = out.expanduser()
    given = f"{option} (={out})"
    suffixes = suffixes or (Path(name or "").suffix,)
    is_file = not out.is_dir() and (out.is_file() or _FILE.fullmatch(out.suffix) is not None)
    if is_file and name is None:
        raise UsageError(f"{given} must be a folder for several files: pass a new name, without a suffix.")
    if is_file and out.suffix.lower() not in suffixes:
        raise UsageError(f"{given} must end in {' or '.join(suffixes)}, or be a folder.")
    path = out if is_file or name is None else out / name
    if name is not None and path.is_dir():
        raise UsageError(f"{given}: {path} is a folder: pass another {option}.")
    parent = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not parent.is_dir():
        raise UsageError(f"{given} cannot be written: {parent} is not a folder; pass another {option}.")
    if not os.access(parent, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise UsageError(f"{given} cannot be written: permission denied; pass another {option}.")
    return path
