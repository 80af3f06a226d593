"""Atomic writes: a reader sees the old content or the new content of a file, never a part of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Write a file atomically; its folder is created.

    Args:
        durable: Whether to wait until it is on the disk, so that a power cut also leaves the old or the new content.

    Raises:
        OSError: The write failed. The class is that of the system error, and the message names the path in one line.
    """
    with appearing(path) as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def appearing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file under a temporary name; it is renamed afterwards, or removed on any error.

    A link with either name is replaced, and its target is unchanged. The folder of the file may be a link, see
    :mod:`lightning_cifar.files.links`.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.unlink(missing_ok=True)  # left by a killed process
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            with os.fdopen(handle, "wb") as file:
                yield file
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        if (error.strerror or "").startswith("could not write"):
            raise  # from another file that was open at the same time
        raise OSError(error.errno, f"could not write {path}: {error.strerror or error}") from None
