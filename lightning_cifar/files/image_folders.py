"""Image files in folders: which there are, without those that systems put beside them. Without torch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif")
"""Of files that must be images; written in small letters or large ones."""
# Of Synology, QNAP, macOS, Windows and Linux; hidden ones begin with a dot. In small letters.
_SYSTEM = {
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb"),
    *("__macosx", "icon\r", "network trash folder", "temporary items"),
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "recycler"),
    *("system volume information", "lost+found", "__pycache__"),
}


def list_files(paths: Sequence[Path]) -> tuple[list[Path], int]:
    """Files that are named, and those in folders that are named, by name, without hidden ones and those of systems.

    Returns:
        The files, and how many folders inside the folders were not looked into.

    Raises:
        OSError: There is no such file or folder, or it cannot be read.
    """
    files, folders = [], 0
    for path in paths:
        if not path.is_dir():
            path.stat()  # raises where there is nothing
            files.append(path)
            continue
        inside = sorted(entry for entry in path.iterdir() if not is_system(entry.name))
        files += [entry for entry in inside if entry.is_file()]
        folders += sum(entry.is_dir() for entry in inside)
    return files, folders


class FoundFiles(NamedTuple):
    """Files in a folder and in all folders inside it, in the order of their names."""

    images: list[Path]
    """Those with an image's suffix."""
    others: list[Path]
    skipped: Counter[str]
    """Numbers of files that are hidden or that systems made, by the name of the file or of the folder around them."""


def is_system(name: str) -> bool:
    """Whether a file or folder is hidden, or is one that systems make, such as thumbnails and recycle bins."""
    return name.startswith(".") or name.casefold() in _SYSTEM


def find_images(folder: Path) -> FoundFiles:
    """Find the files in a folder and in all folders inside it; links are followed.

    Raises:
        OSError: There is no such folder, or one inside cannot be read.
    """
    found = FoundFiles([], [], Counter())
    pending, seen = [folder], set()
    while pending:
        here = pending.pop()
        if (real := here.resolve()) in seen:
            continue  # a link that leads to a folder above it
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
    """Number of files in a folder and in all folders inside it, as far as they can be read; 1 for a file."""
    if path.is_symlink() or not path.is_dir():
        return 1
    return sum(len(names) for _, _, names in os.walk(path))
