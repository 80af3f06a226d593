"""A lock that keeps two processes from writing into one folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO
from weakref import WeakSet

from lightning_cifar.errors import UsageError


class FolderLock:
    """Holds a run's folder for this process, until it ends however it ends.

    Raises:
        UsageError: Another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._file: IO[str] = (folder / ".lock").open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise UsageError(f"a run is going on in {folder}: wait for its end, or pass another --run_dir.") from None
        _held.add(self)

    def release(self) -> None:
        self._file.close()


_held: WeakSet[FolderLock] = WeakSet()


def _let_go() -> None:
    """The workers of a loader outlive a killed run by some seconds, and would hold its folder for so long."""
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_let_go)
