"""Whether a file is what was written: its SHA-256 stands in a file beside it, as ``sha256sum --check`` reads it."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

from lightning_cifar.errors import UsageError
from lightning_cifar.files.atomic import write_atomically
from lightning_cifar.files.reading import MissingFileError, UnreadableFileError, read_bytes

SUFFIX = ".sha256"


_LARGEST = 1 << 16  # bytes of a digest's file, which holds two lines at most


class DamagedError(UsageError):
    """A file is not what was written."""


def beside(path: Path) -> Path:
    """Where the digest of a file stands."""
    return path.with_name(path.name + SUFFIX)


def write_verified(path: Path, content: bytes) -> None:
    """Write a file with its digest beside, to the disk, so that whoever reads at any moment finds the two agreeing.

    While one content takes the place of another, both digests stand there.

    Raises:
        OSError: It cannot be written; the message names the file. The former content is untouched.
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
    """The content of a file, once it was found undamaged.

    Without a digest beside it, a zip archive (which a checkpoint is) is held against its own check sums.

    Raises:
        DamagedError: With the file and the reason.
        UnreadableFileError: It is not a regular file, or cannot be read.
    """
    content = read_bytes(path, limit=None, follow=True)
    _refuse_packed(path, content)
    lines = _lines(path)
    if lines is not None:
        digest = hashlib.sha256(content).hexdigest().encode()
        if digest not in [line.split(b" ")[0] for line in lines]:
            raise DamagedError(f"{path} is damaged: its SHA-256 is not the one in {beside(path).name}.")
        return content
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return content  # it has no check sums; its reader will say more
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            broken = archive.testzip()
    except Exception as error:  # the zip reader raises many kinds on damaged bytes
        raise DamagedError(f"{path} is damaged: {error}.") from error
    if broken is not None:
        raise DamagedError(f"{path} is damaged: the check sum of {broken} in it is wrong.")
    return content


def _refuse_packed(path: Path, content: bytes) -> None:
    """torch packs nothing in its archives: one whose content is larger than itself is there to fill the memory."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            total = sum(member.file_size for member in archive.infolist())
    except Exception:  # no archive, or a damaged one: the next who reads it says so
        return
    if total > len(content):
        raise DamagedError(f"{path} is refused: it is packed, {len(content):,} bytes that swell to {total:,}.")


def move_verified(path: Path, to: Path) -> None:
    """Give a file and its digest another name, in place of what had it."""
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
    """Remove a file and its digest."""
    path.unlink(missing_ok=True)
    beside(path).unlink(missing_ok=True)


def _line(path: Path, content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {path.name}\n".encode()


def _lines(path: Path) -> list[bytes] | None:
    """Return the lines beside a file, damaged ones too: they are digests of nothing. None where it has no digest.

    Raises:
        DamagedError: The digest's file is not a regular file, or cannot be read.
    """
    try:
        return read_bytes(beside(path), limit=_LARGEST).splitlines(keepends=True)
    except MissingFileError:
        return None
    except UnreadableFileError as error:
        raise DamagedError(str(error)) from error
