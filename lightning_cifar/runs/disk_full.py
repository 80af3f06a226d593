"""A disk that becomes full during a run: one line, with the folder and how to go on."""

from __future__ import annotations

import errno
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_cifar.errors import UsageError
from lightning_cifar.runs.resume import can_resume


def is_full(error: BaseException | None) -> bool:
    """Whether it says that no space is left on a disk, or none of what the user may take."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def no_space(folder: Path, *, resumes: bool) -> UsageError:
    """What the user is told.

    Args:
        folder: Of the run.
        resumes: Whether ``fit --resume`` is how such a run goes on.
    """
    if resumes and can_resume(folder):
        return UsageError(
            f"no space is left in {folder}: free some, then go on with lightning-cifar fit --resume {folder}"
        )
    return UsageError(f"no space is left in {folder}: free some, then start anew")


@contextmanager
def silent_writers() -> Iterator[None]:
    """Threads and files that meet a full disk inside print no traceback: who waits for them meets it too, and tells."""
    of_threads, of_files = threading.excepthook, sys.unraisablehook

    def in_thread(args: Any) -> None:
        if not is_full(args.exc_value):
            of_threads(args)

    def in_file(args: Any) -> None:
        if not is_full(args.exc_value):
            of_files(args)

    threading.excepthook, sys.unraisablehook = in_thread, in_file
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = of_threads, of_files
