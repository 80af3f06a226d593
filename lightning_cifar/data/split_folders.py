"""Which folders of a data set are its training, validation and test images, by their customary names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from lightning_cifar.files.image_folders import find_images, is_system
from lightning_cifar.files.text import plain_text

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

# train, Training, valid, test_set, TestImages; with words of their own before or after: seg_train and seg_test
_NAME = re.compile(
    r"(?P<before>(?:.*[ _.-])?)"
    r"(?:(?P<train>train|training)|(?P<val>val|valid|validation|dev)|(?P<test>test|testing))"
    r"(?:[ _.-]?(?:set|data|images|imgs))?"
    r"(?P<after>(?:[ _.-].*)?)"
)


class Parts(NamedTuple):
    """Folders of a data set."""

    folders: dict[Split, Path]
    """Of the splits; without any, ``train`` is the folder of the whole data set."""
    unused: list[Path]
    """Folders beside them that hold images."""


def inner_folders(folder: Path) -> list[Path]:
    """The folders inside, by name, without hidden ones and those of systems; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_system(path.name))


def named_splits(folders: Iterable[Path]) -> dict[Split, list[Path]]:
    """The folders whose names are those of splits, in small letters or large ones.

    A name with further words, such as ``seg_train``, counts where the same words name another split beside it, so that
    a class ``model train`` does not.
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
    """The folders of the splits as far as they are there, or else ``root`` itself as ``train``.

    One folder that has the name of a split and holds images alone is a class where other folders are beside it: one of
    trains, say.

    Raises:
        ValueError: Two folders name the same split, or folders could be classes as well as splits.
    """
    folders = inner_folders(root)
    named = named_splits(folders)
    count = sum(map(len, named.values()))
    if not count or (count == 1 and len(folders) > 1 and not any(inner_folders(paths[0]) for paths in named.values())):
        _check_classes(folders)
        return Parts({"train": root}, [])
    for split, paths in named.items():
        if len(paths) > 1:
            raise ValueError(f"{_names(paths)} in {plain_text(root)} both name the {split} images: keep one of them.")
    parts = {split: named[split][0] for split in SPLITS if split in named}
    inside = {path.name for part in parts.values() for path in inner_folders(part)}
    unused = [path for path in folders if path not in parts.values() and find_images(path).images]
    if unused and (len(parts) == 1 or inside & {path.name for path in unused}):
        raise ValueError(
            f"{plain_text(root)} has folders of splits ({_names(parts.values())}) beside folders of classes "
            f"({_names(unused)}): move one kind away."
        )
    return Parts(parts, unused)


def _check_classes(folders: Iterable[Path]) -> None:
    """Raises ValueError where a class has the folders of splits inside."""
    for folder in folders:
        inside = named_splits(inner_folders(folder))
        if len(inside) > 1:
            shown, name = plain_text(folder), plain_text(folder.name)
            names = _names(inside[split][0] for split in SPLITS if split in inside)
            raise ValueError(
                f"{shown} has folders of splits inside ({names}): pass "
                f"--data.root {shown}, or, if {name} is a class, put its images into train/{name}, test/{name}, ..."
            )


def _names(paths: Iterable[Path]) -> str:
    names = [plain_text(path.name) for path in paths]
    return ", ".join(names[:5]) + (f" ... ({len(names)} in all)" if len(names) > 5 else "")
