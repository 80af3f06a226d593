"""Expands ``~`` in paths. Does not import torch or Lightning."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any


def expand_user(path: str | os.PathLike[str]) -> Path:
    """Replace a leading ``~`` or ``~user`` by the home folder of that user.

    A shell expands ``~`` only at the beginning of a word: neither in a YAML file nor in ``--option=~/folder``. The name
    of an unknown user is unchanged, as in a shell.

    Example:
        >>> expand_user("~/data") == Path.home() / "data"
        True
        >>> expand_user("data/~").as_posix()
        'data/~'
    """
    return Path(os.path.expanduser(path))


def expand_users(settings: Any) -> Any:
    """Replace ``~`` at the beginning of every path in nested settings, in place.

    Example:
        >>> expand_users({"a": ["~/data", "relu"]}) == {"a": [f"{Path.home()}/data", "relu"]}
        True
    """
    if isinstance(settings, str) and (settings == "~" or settings.startswith("~/")):
        return str(expand_user(settings))
    if isinstance(settings, list):
        settings[:] = map(expand_users, settings)
    elif isinstance(settings, MutableMapping) or hasattr(settings, "__setitem__"):
        for name in list(settings.keys()):
            settings[name] = expand_users(settings[name])
    return settings
