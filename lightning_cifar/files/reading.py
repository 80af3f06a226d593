"""Guarded readers of untrusted files: the content has a known format and size, or is refused in one line.

Every reader opens regular files only, so that a FIFO or a device never blocks, reads a limited number of bytes, and
raises :class:`UnreadableFileError` with the name of the file and the reason.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml

from lightning_cifar.errors import UsageError, one_line
from lightning_cifar.files.shapes import mismatch

T = TypeVar("T")

LARGEST = 64 << 20
"""Largest text file in bytes: a hundred times the largest that a run writes. Tables may be larger."""
LARGEST_TABLE = 2 << 30
DEEPEST = 100
"""Largest depth of nested lists and mappings. Beyond the stack size, the parsers crash the process."""
MOST_VALUES = 1_000_000
"""Largest number of values in a YAML file; an alias counts as all values that it repeats."""
_LONGEST_NUMBER = 400  # characters


class UnreadableFileError(UsageError):
    """A file cannot be read as its format; the message is one line with its name and the reason."""


class MissingFileError(UnreadableFileError):
    """The file does not exist."""


class BrokenFileError(UnreadableFileError):
    """The file is empty, truncated, or has a syntax error, as after a crash or on a full disk."""


def open_regular(path: Path, *, follow: bool = False) -> int:
    """Open a regular file for reading and return the file descriptor; never blocks.

    Args:
        follow: Whether the file may be a symbolic link. Use True only for paths that the user names, not for files
            inside a received folder.

    Raises:
        UnreadableFileError: The file does not exist, or is a link, a folder, a FIFO or a device.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        handle = os.open(path, flags)
    except FileNotFoundError as error:
        raise MissingFileError(f"the file {path} does not exist.") from error
    except OSError as error:
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise UnreadableFileError(f"{path} cannot be read: {reason}.") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UnreadableFileError(f"{path} cannot be read: it is not a regular file.")
    return handle


def read_bytes(path: Path, *, limit: int | None = LARGEST, follow: bool = False) -> bytes:
    """Return the content of a regular file.

    Args:
        limit: Largest size in bytes; None for no limit.

    Raises:
        UnreadableFileError: The file is not a regular file, is too large, or cannot be read.
    """
    with os.fdopen(open_regular(path, follow=follow), "rb") as file:
        try:
            content = file.read() if limit is None else file.read(limit + 1)
        except OSError as error:
            raise UnreadableFileError(f"{path} cannot be read: {error.strerror}.") from error
    if limit is not None and len(content) > limit:
        raise UnreadableFileError(f"{path} cannot be read: it is larger than {limit:,} bytes.")
    return content


def read_text(path: Path, *, limit: int | None = LARGEST, follow: bool = False) -> str:
    """Return the text of a UTF-8 file; the line ends are unchanged.

    Raises:
        UnreadableFileError: See :func:`read_bytes`; BrokenFileError if the bytes are not UTF-8.
    """
    try:
        return read_bytes(path, limit=limit, follow=follow).decode()
    except UnicodeDecodeError as error:
        raise BrokenFileError(f"{path} cannot be read: byte {error.start} is not UTF-8 text.") from error


def read_json(path: Path, shape: type[T]) -> T:
    """Return the content of a JSON file of a known shape.

    Args:
        shape: Type of the content, usually a TypedDict: see :mod:`lightning_cifar.files.shapes`. Additional keys are
            allowed and kept.

    Raises:
        UnreadableFileError: See :func:`read_bytes`; BrokenFileError if the text is not JSON; also if a value has
            another type or a key is missing.
    """
    text = read_text(path)
    try:
        content = json.loads(text, parse_int=_small_int)
    except RecursionError as error:
        raise _too_deep(path) from error
    except ValueError as error:
        reason = "it is empty" if not text.strip() else one_line(error)
        raise BrokenFileError(f"{path} is not valid JSON: {reason}.") from error
    if _depth(content) > DEEPEST:
        raise _too_deep(path)
    if (found := mismatch(content, shape)) is not None:
        raise UnreadableFileError(f"{path}: {found}.")
    checked: T = content
    return checked


def read_whole_json(path: Path, shape: type[T]) -> T | None:
    """Return the content of a JSON file as :func:`read_json`; None if the file is missing, or cut off by a crash."""
    try:
        return read_json(path, shape)
    except (MissingFileError, BrokenFileError):
        return None


def parse_yaml(path: object, text: str) -> Any:
    """Return the content of a YAML text of plain values; ``path`` is used in messages.

    Raises:
        UnreadableFileError: It is nested too deeply, has too many values, or contains a Python tag; BrokenFileError if
            it is not YAML.
    """
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster; optional in PyYAML
    try:
        _check_yaml(path, yaml.parse(text, Loader=loader))
        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        reason = one_line(error).replace('"<unicode string>"', str(path))
        mark = getattr(error, "problem_mark", None)
        if mark is not None and "\t" in "".join(text.splitlines()[mark.line : mark.line + 1])[: mark.column + 1]:
            reason += ": indent with spaces, not tabs"
        raise BrokenFileError(f"{path} is not valid YAML: {reason}") from error


def _check_yaml(path: object, events: Iterator[yaml.Event]) -> None:
    """Check a text by its events, which are parsed without recursion, before values are built."""
    sizes: dict[str, int] = {}  # numbers of values by anchor; too large while the anchor is open
    opened: list[tuple[str | None, int]] = []
    total = 0

    def refuse(reason: str) -> None:
        line = event.start_mark.line + 1 if event.start_mark is not None else 0
        raise UnreadableFileError(f"{path}, line {line}: {reason}")

    for event in events:
        if isinstance(event, yaml.AliasEvent):
            total += sizes.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
            text = event.value
            if not event.style and len(text) > _LONGEST_NUMBER and text[0] in "+-.0123456789" and " " not in text:
                refuse(f"the number {text[:20]}... is too long.")
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, total))
            total += 1
            if event.anchor is not None:
                sizes[event.anchor] = MOST_VALUES + 1
            if len(opened) > DEEPEST:
                refuse(f"it is nested too deeply (more than {DEEPEST} levels).")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        if total > MOST_VALUES:
            refuse(f"with its aliases (*) it has more than {MOST_VALUES:,} values.")
        tag = getattr(event, "tag", None) or ""
        if tag not in ("", "!") and (not tag.startswith("tag:yaml.org,2002:") or "python" in tag):
            refuse(f"the tag {one_line(tag)[:80]} is refused: only plain values are allowed.")


def read_npz(path: Path) -> dict[str, Any]:
    """Return the arrays of an ``.npz`` file by name; Python objects are refused.

    The file and its unpacked arrays have at most ``LARGEST`` bytes.

    Raises:
        UnreadableFileError: See :func:`read_bytes`; BrokenFileError if a checksum in the file is wrong, or an array
            has another size than its header states or contains Python objects.
    """
    import numpy as np

    content = read_bytes(path)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST:
                raise ValueError(f"its arrays are larger than {LARGEST:,} bytes")
            for member in archive.infolist():
                _check_array(archive.read(member))
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # the readers raise many types on damaged bytes
        raise BrokenFileError(f"{path} is damaged: {one_line(error)[:160] or type(error).__name__}.") from error


def _check_array(content: bytes) -> None:
    """Compare the size in the header of an array with its data, because NumPy allocates the memory first."""
    from numpy.lib import format as npy

    file = io.BytesIO(content)
    version = npy.read_magic(file)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("it contains Python objects")
    if math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError(f"an array of shape {shape} has another size than its header states")


def _small_int(text: str) -> int:
    if len(text) > 19:
        raise ValueError(f"the number {text[:20]}... is too long")
    return int(text)


def _too_deep(path: Path) -> UnreadableFileError:
    return UnreadableFileError(f"{path} cannot be read: it is nested too deeply (more than {DEEPEST} levels).")


def _depth(value: object) -> int:
    """Return the depth of nested lists and mappings, without recursion."""
    deepest, pending = 0, [(value, 1)]
    while pending:
        here, depth = pending.pop()
        items = here.values() if isinstance(here, dict) else here if isinstance(here, list) else None
        if items is not None:
            deepest = max(deepest, depth)
            pending += [(item, depth + 1) for item in items]
    return deepest
