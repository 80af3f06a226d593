"""Report a disk that becomes full during a run in one line, with the folder and the next step."""

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
    """Return whether an error means that the disk is full or the quota of the user is used up."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def no_space(folder: Path, *, resumes: bool) -> UsageError:
    """Return the error for a full disk. ``fit --resume`` can continue the run if ``resumes`` is True."""
    again = f"continue with lightning-cifar fit --resume {folder}" if resumes and can_resume(folder) else "start again"
    return UsageError(f"no space is left in {folder}: free some, then {again}")


@contextmanager
def silent_writers() -> Iterator[None]:
    """Suppress the tracebacks of threads and files for a full disk; the main thread gets the same error."""
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
