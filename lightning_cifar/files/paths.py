"""Paths as users write them. Knows neither torch nor Lightning."""

from __future__ import annotations

import os
from pathlib import Path


def expand_user(path: str | os.PathLike[str]) -> Path:
    """Replace a leading ``~`` or ``~user`` by that user's home folder.

    A shell expands ``~`` only at the beginning of a word: neither in a YAML file nor in ``--option=~/folder``. The name
    of a user who does not exist is unchanged, as it is in a shell.

    Example:
        >>> expand_user("~/data") == Path.home() / "data"
        True
        >>> expand_user("data/~").as_posix()
        'data/~'
    """
    return Path(os.path.expanduser(path))
