"""Files with checksums: the SHA-256 is in a file beside it, in the format of ``sha256sum --check``."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

from lightning_cifar.errors import UsageError
from lightning_cifar.files.atomic import write_atomically
from lightning_cifar.files.reading import MissingFileError, UnreadableFileError, read_bytes

SUFFIX = ".sha256"
_LARGEST = 1 << 16  # bytes of a checksum file, which has two lines at most


class DamagedError(UsageError):
    """The content of a file differs from what was written."""


def beside(path: Path) -> Path:
    """Return the path of the checksum file."""
    return path.with_name(path.name + SUFFIX)


def write_verified(path: Path, content: bytes) -> None:
    """Write a file and its checksum to the disk, so that the two agree for a reader at any moment.

    While the content is replaced, the checksum file contains both checksums.

    Raises:
        OSError: The file cannot be written; the message names it. The old content is unchanged.
    """
    line = _line(path, content)
    before = (_lines(path) if path.is_file() else None) or []
    write_atomically(beside(path), b"".join([line, *before]), durable=True)
    try:
        write_atomically(path, content, durable=True)
    except OSError:
        if before:
            write_atomically(beside(path), b"".join(before))
        else:
            beside(path).unlink(missing_ok=True)
        raise
    if before:
        write_atomically(beside(path), line, durable=True)


def read_verified(path: Path) -> bytes:
    """Return the content of a file after comparing it with its checksum.

    Without a checksum file, a zip archive (such as a checkpoint) is compared with the checksums in the archive.

    Raises:
        DamagedError: The file is damaged; the message names it and the reason.
        UnreadableFileError: The file is not a regular file, or cannot be read.
    """
    content = read_bytes(path, limit=None, follow=True)
    _refuse_packed(path, content)
    lines = _lines(path)
    if lines is not None:
        digest = hashlib.sha256(content).hexdigest().encode()
        if digest not in [line.split(b" ")[0] for line in lines]:
            raise DamagedError(f"{path} is damaged: its SHA-256 differs from {beside(path).name}.")
        return content
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return content  # it has no checksums
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            broken = archive.testzip()
    except Exception as error:  # the zip reader raises many types on damaged bytes
        raise DamagedError(f"{path} is damaged: {error}.") from error
    if broken is not None:
        raise DamagedError(f"{path} is damaged: the checksum of {broken} in it is wrong.")
    return content


def _refuse_packed(path: Path, content: bytes) -> None:
    """Refuse a compressed archive, which could fill the memory; torch does not compress its archives."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            total = sum(member.file_size for member in archive.infolist())
    except Exception:  # not an archive, or a damaged one: its reader reports that
        return
    if total > len(content):
        raise DamagedError(f"{path} is refused: it is compressed, {len(content):,} bytes that expand to {total:,}.")


def move_verified(path: Path, to: Path) -> None:
    """Rename a file and its checksum file, and replace existing ones."""
    lines = _lines(path)
    if lines is not None:
        moved = [line.split(b" ")[0].strip() + f"  {to.name}\n".encode() for line in lines]
        kept = _lines(to) if to.is_file() else None
        write_atomically(beside(to), b"".join([*moved, *(kept or [])]))
        path.replace(to)
        write_atomically(beside(to), b"".join(moved))
        beside(path).unlink()
    else:
        path.replace(to)
        beside(to).unlink(missing_ok=True)


def remove_verified(path: Path) -> None:
    """Remove a file and its checksum file."""
    path.unlink(missing_ok=True)
    beside(path).unlink(missing_ok=True)


def _line(path: Path, content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {path.name}\n".encode()


def _lines(path: Path) -> list[bytes] | None:
    """Return the lines of the checksum file, including damaged ones; None if it does not exist.

    Raises:
        DamagedError: The checksum file is not a regular file, or cannot be read.
    """
    try:
        return read_bytes(beside(path), limit=_LARGEST).splitlines(keepends=True)
    except MissingFileError:
        return None
    except UnreadableFileError as error:
        raise DamagedError(str(error)) from error
