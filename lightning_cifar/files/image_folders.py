"""Lists image files in folders, without hidden and system files. Does not import torch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif")
"""Suffixes of image files, in lower case; upper case is found too."""
# Files and folders of Synology, QNAP, macOS, Windows and Linux, in lower case; hidden ones begin with a dot.
_SYSTEM = {
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb"),
    *("__macosx", "icon\r", "network trash folder", "temporary items"),
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "recycler"),
    *("system volume information", "lost+found", "__pycache__"),
}


def list_files(paths: Sequence[Path]) -> tuple[list[Path], int]:
    """List the given files, and the files in the given folders by name, without hidden and system files.

    Returns:
        The files, and the number of folders inside the folders, which are skipped.

    Raises:
        OSError: A file or folder does not exist, or cannot be read.
    """
    files, folders = [], 0
    for path in paths:
        if not path.is_dir():
            path.stat()  # raises if it does not exist
            files.append(path)
            continue
        inside = sorted(entry for entry in path.iterdir() if not is_system(entry.name))
        files += [entry for entry in inside if entry.is_file()]
        folders += sum(entry.is_dir() for entry in inside)
    return files, folders


class FoundFiles(NamedTuple):
    """Files in a folder and in all folders inside it, sorted by name."""

    images: list[Path]
    """Files with the suffix of an image."""
    others: list[Path]
    skipped: Counter[str]
    """Numbers of hidden and system files, by the name of the file or of the hidden or system folder."""


def is_system(name: str) -> bool:
    """Return whether a file or folder is hidden, or belongs to the system, such as thumbnails and recycle bins."""
    return name.startswith(".") or name.casefold() in _SYSTEM


def find_images(folder: Path) -> FoundFiles:
    """Find the files in a folder and in all folders inside it; links are followed.

    Raises:
        OSError: The folder does not exist, or a folder inside it cannot be read.
    """
    found = FoundFiles([], [], Counter())
    pending, seen = [folder], set()
    while pending:
        here = pending.pop()
        if (real := here.resolve()) in seen:
            continue  # a link to a folder above it
        seen.add(real)
        for path in here.iterdir():
            if is_system(path.name):
                found.skipped[path.name] += count_files(path)
            elif path.is_dir():
                pending.append(path)
            else:
                (found.images if path.suffix.lower() in SUFFIXES else found.others).append(path)
    found.images.sort()
    found.others.sort()
    return found


def count_files(path: Path) -> int:
    """Return the number of files in a folder and all readable folders inside it; 1 for a file."""
    if path.is_symlink() or not path.is_dir():
        return 1
    return sum(len(names) for _, _, names in os.walk(path))
