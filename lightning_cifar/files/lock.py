"""A lock against two processes that write to one folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from weakref import WeakSet

from lightning_cifar.errors import UsageError
from lightning_cifar.files.links import open_own


class FolderLock:
    """Lock a folder until the end of this process, also if it is killed.

    Args:
        busy: Error message if another process holds the lock.
        shared: Whether others may hold a shared lock at the same time, to find out only if somebody writes.

    Raises:
        UsageError: Another process holds the lock, or ``.lock`` is a link or not a regular file.
    """

    _handle: int | None = None

    def __init__(self, folder: Path, busy: str = "", *, shared: bool = False) -> None:
        mode = os.O_RDONLY if shared else os.O_RDWR  # NFS needs write access for an exclusive lock
        self._handle = open_own(folder / ".lock", mode)
        try:
            fcntl.flock(self._handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            message = busy or f"another run is using {folder}: wait until it ends, or pass another --run_dir."
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


def _release_all() -> None:
    """Release the locks in child processes: the workers of a loader outlive a killed run by some seconds."""
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_release_all)
