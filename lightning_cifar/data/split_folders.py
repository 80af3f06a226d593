"""Finds the folders of training, validation and test images by their usual names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from lightning_cifar.files.image_folders import find_images, is_system
from lightning_cifar.files.text import plain_text

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

# train, Training, valid, test_set, TestImages; with further words before or after: seg_train and seg_test
_NAME = re.compile(
    r"(?P<before>(?:.*[ _.-])?)"
    r"(?:(?P<train>train|training)|(?P<val>val|valid|validation|dev)|(?P<test>test|testing))"
    r"(?:[ _.-]?(?:set|data|images|imgs))?"
    r"(?P<after>(?:[ _.-].*)?)"
)


class Parts(NamedTuple):
    """Folders of a data set."""

    folders: dict[Split, Path]
    """Folders of the splits; without any, ``train`` is the folder of the whole data set."""
    unused: list[Path]
    """Folders beside them that contain images."""


def inner_folders(folder: Path) -> list[Path]:
    """Return the sorted folders inside, without hidden and system folders; none if the folder does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_system(path.name))


def named_splits(folders: Iterable[Path]) -> dict[Split, list[Path]]:
    """Return the folders that are named after splits, in upper or lower case.

    A name with further words, such as ``seg_train``, counts if a folder with the same words names another split, so
    that a class ``model train`` does not count.
    """
    groups: dict[tuple[str, str], dict[Split, list[Path]]] = {}
    for folder in folders:
        match = _NAME.fullmatch(folder.name.casefold())
        if match is None:
            continue
        split = next(split for split in SPLITS if match[split])
        group = groups.setdefault((match["before"], match["after"]), {})
        group.setdefault(split, []).append(folder)
    found: dict[Split, list[Path]] = {}
    for affix, group in groups.items():
        if affix == ("", "") or (len(group) > 1 and "train" in group):
            for split, paths in group.items():
                found.setdefault(split, []).extend(paths)
    return found


def find_parts(root: Path) -> Parts:
    """Return the existing folders of the splits, or else ``root`` as ``train``.

    A single folder with the name of a split that contains only images and has other folders beside it is a class, such
    as one of trains.

    Raises:
        ValueError: Two folders name the same split, or folders can be both classes and splits.
    """
    folders = inner_folders(root)
    named = named_splits(folders)
    count = sum(map(len, named.values()))
    if not count or (count == 1 and len(folders) > 1 and not any(inner_folders(paths[0]) for paths in named.values())):
        _check_classes(folders)
        return Parts({"train": root}, [])
    for split, paths in named.items():
        if len(paths) > 1:
            raise ValueError(f"{_names(paths)} in {plain_text(root)} are both {split} images: keep one of them.")
    parts = {split: named[split][0] for split in SPLITS if split in named}
    inside = {path.name for part in parts.values() for path in inner_folders(part)}
    unused = [path for path in folders if path not in parts.values() and find_images(path).images]
    if unused and (len(parts) == 1 or inside & {path.name for path in unused}):
        raise ValueError(
            f"{plain_text(root)} contains folders of splits ({_names(parts.values())}) and of classes "
            f"({_names(unused)}): move one of the two kinds to another folder."
        )
    return Parts(parts, unused)


def _check_classes(folders: Iterable[Path]) -> None:
    """Raise ValueError if a class contains folders of splits."""
    for folder in folders:
        inside = named_splits(inner_folders(folder))
        if len(inside) > 1:
            shown, name = plain_text(folder), plain_text(folder.name)
            names = _names(inside[split][0] for split in SPLITS if split in inside)
            raise ValueError(
                f"{shown} contains folders of splits ({names}): pass --data.root {shown}, or, if {name} is a class, "
                f"move its images to train/{name}, test/{name}, ..."
            )


def _names(paths: Iterable[Path]) -> str:
    names = [plain_text(path.name) for path in paths]
    return ", ".join(names[:5]) + (f" ... ({len(names)} in all)" if len(names) > 5 else "")
