"""A lock that keeps two processes from writing into one folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from weakref import WeakSet

from lightning_cifar.errors import UsageError
from lightning_cifar.files.links import open_own


class FolderLock:
    """Hold a folder for this process, until it ends however it ends.

    Args:
        folder: Folder of a run or of a study.
        busy: Error message where another process holds it.

    Raises:
        UsageError: Another process holds it, or ``.lock`` in it is not a file of its own.
    """

    _handle: int | None = None

    def __init__(self, folder: Path, busy: str = "") -> None:
        self._handle = open_own(folder / ".lock", os.O_RDWR)  # which NFS needs for an exclusive lock
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            message = busy or f"a run is going on in {folder}: wait for its end, or pass another --run_dir."
            raise UsageError(message) from None
        _held.add(self)

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    __del__ = release


_held: WeakSet[FolderLock] = WeakSet()


def _let_go() -> None:
    """The workers of a loader outlive a killed run by some seconds, and would hold its folder for so long."""
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_let_go)
