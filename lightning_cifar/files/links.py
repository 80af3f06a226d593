"""Protection against links in received folders: writes and removals never affect files outside the folder."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

from lightning_cifar.errors import UsageError


def inside(folder: Path, relative: str | Path) -> Path:
    """Return a path in a folder if neither a symbolic link nor ``..`` points outside the folder.

    Args:
        folder: Folder that the user named; it may be a link.
        relative: Path from the folder; it need not exist.

    Raises:
        UsageError: The real path is not in the folder.
    """
    path = folder / relative
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise UsageError(f"{path} points outside {folder}: remove the symbolic link, or correct the name.")
    return path


def refuse_links(folder: Path) -> None:
    """Refuse a folder in which a write could change files elsewhere. Call this before writing to an existing folder.

    Symbolic links that stay in the folder are allowed, such as Lightning's ``last.ckpt``.

    Raises:
        UsageError: The folder contains a symbolic link that points outside it, a file with several hard links, a FIFO,
            a socket or a device. The message names the first one.
    """
    root = os.path.realpath(folder)

    def fail(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=fail):
        for name in [*folders, *files]:
            path = Path(place, name)
            found = path.lstat()
            if stat.S_ISLNK(found.st_mode):
                if not Path(os.path.realpath(path)).is_relative_to(root):
                    raise UsageError(f"{path} is a symbolic link that points outside {folder}: remove it.")
            elif stat.S_ISREG(found.st_mode):
                if found.st_nlink > 1:
                    raise UsageError(
                        f"{path} has {found.st_nlink} hard links, and writing to it could change another file: "
                        f"copy the folder with cp -r, and continue in the copy."
                    )
            elif not stat.S_ISDIR(found.st_mode):
                raise UsageError(f"{path} is neither a regular file nor a folder: remove it.")


def remove_tree(folder: Path, *, inside: Path) -> None:
    """Remove a folder with its content; links in it are removed, and their targets are unchanged.

    Args:
        folder: Folder to remove.
        inside: Folder that must contain it, without symbolic links between the two.

    Raises:
        UsageError: The path contains a symbolic link; nothing is removed.
    """
    relative = folder.relative_to(inside)
    expected = os.path.join(os.path.realpath(inside), relative)
    if not relative.parts or ".." in relative.parts or os.path.realpath(folder) != expected:
        raise UsageError(f"{folder} is not removed: its path contains a symbolic link; remove the link.")
    shutil.rmtree(folder)


def open_own(path: Path, flags: int) -> int:
    """Open a file for writing in place and return the file descriptor; a missing file is created.

    Raises:
        UsageError: The file is a symbolic link, has several hard links, or is not a regular file.
    """
    try:
        handle = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise UsageError(f"{path} is not a regular file: remove it.") from error
        raise
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(handle)
        raise UsageError(f"{path} is not a regular file, or has several hard links: remove it.")
    os.set_blocking(handle, True)
    return handle
