"""Writing files so that a reader sees the old content or the new content, never a part of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    Args:
        path: of the file; its folder is made.
        content: of the file.
        durable: wait until it is on the disk, so that a power cut leaves the old content or the new one too.

    Raises:
        OSError: of the kind that the system gave (such as PermissionError), with one line that names the path.
    """
    with appearing(path) as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def appearing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file under another name; afterwards it takes its own name, or, on any error, is removed.

    A link with either name is replaced, and what it points to is unchanged. The file's folder may be a link: see
    :mod:`lightning_cifar.files.links`.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.unlink(missing_ok=True)  # of a process that was killed
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            with os.fdopen(handle, "wb") as file:
                yield file
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        if (error.strerror or "").startswith("could not write"):
            raise  # another file's, which was open at the same time
        raise OSError(error.errno, f"could not write {path}: {error.strerror or error}") from None
