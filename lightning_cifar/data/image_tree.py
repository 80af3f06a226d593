"""A folder of images by class, as torchvision's ``ImageFolder`` has it: which classes, which files, which split.

No pixels are read here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from lightning_cifar.data.counter_rng import permutation
from lightning_cifar.files.images import SUFFIXES, find_images, plain_text

logger = logging.getLogger(__name__)

Split = Literal["train", "val", "test"]
_SPLITS: tuple[Split, ...] = ("train", "val", "test")
KINDS = ", ".join(suffix.lstrip(".") for suffix in SUFFIXES)


class LabelledFiles(NamedTuple):
    """N files, and the number of each one's class."""

    files: list[Path]
    labels: list[int]

    def take(self, indices: Sequence[int]) -> LabelledFiles:
        return LabelledFiles([self.files[i] for i in indices], [self.labels[i] for i in indices])


def check_root(root: Path) -> None:
    """Raises FileNotFoundError or NotADirectoryError where ``root`` is no folder."""
    if not root.exists():
        raise FileNotFoundError(f"there is no folder {root}: pass --data.root with a folder of images.")
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is no folder: pass --data.root with a folder of images.")


def find_parts(root: Path) -> dict[Split, Path]:
    """The folders of the splits: ``train``, ``val`` and ``test`` as far as they are there, or else ``root`` itself.

    ``train`` counts where there are folders inside; with images alone it is a class of trains.
    """
    check_root(root)
    if not _folders(root / "train"):
        return {"train": root}
    return {split: root / split for split in _SPLITS if (root / split).is_dir()}


def find_class_names(folder: Path) -> tuple[str, ...]:
    """The names of the folders inside, in their order."""
    return tuple(path.name for path in _folders(folder))


def check_class_names(folder: Path, names: Sequence[str]) -> None:
    """Raises ValueError where a folder has fewer than two folders inside, and says what it has instead."""
    if len(names) == 1:
        raise ValueError(f"{folder} has the images of one class ({names[0]}): at least two class folders are needed.")
    if names:
        return
    images, _ = find_images(folder)
    if not images:
        raise ValueError(f"there is no image in {folder}: put images ({KINDS}) into it, in one folder a class.")
    raise ValueError(
        f"{folder} has images ({images[0].name}, ...) but no class folders: put them into one folder a class; to "
        "predict, pass the --ckpt_path of a network that has classes, or --data.class_names imagenet."
    )


def imagenet_classes() -> tuple[str, ...]:
    """Names of the 1000 classes, in the order of the outputs of published weights; a few names occur twice."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def list_labelled(folder: Path, class_names: Sequence[str]) -> LabelledFiles:
    """The images of the class folders, those in folders inside them too, by class and by name.

    Args:
        folder: With the class folders.
        class_names: In the order of their numbers; one without a folder has no images.

    Raises:
        ValueError: A class folder is empty, or is none of the classes.
    """
    found = {path.name: path for path in _folders(folder)}
    if strangers := sorted(found.keys() - set(class_names)):
        listed = ", ".join(class_names[:10]) + (" ..." if len(class_names) > 10 else "")
        raise ValueError(f"{folder / strangers[0]} is the folder of no class ({listed}): rename it, or move it away.")
    labelled, left_out = LabelledFiles([], []), _loose(folder)
    for label, name in enumerate(class_names):
        if name not in found:
            continue
        images, others = find_images(found[name])
        if not images:
            kinds = f" (only {', '.join(_suffixes(others))})" if others else ""
            raise ValueError(
                f"the class folder {found[name]} holds no image{kinds}: put images ({KINDS}) into it, or delete it."
            )
        left_out += others
        labelled.files.extend(images)
        labelled.labels.extend([label] * len(images))
    tell_left_out(folder, left_out)
    return labelled


def tell_left_out(folder: Path, files: Sequence[Path]) -> None:
    """Say which kinds of files are no images of a class."""
    if files:
        kinds = ", ".join(_suffixes(files))
        logger.warning(
            "left out: %d of the files in %s, which are no images of a class (%s)", len(files), folder, kinds
        )


def split_off(
    whole: LabelledFiles, num_classes: int, *, val: float, test: float, seed: int
) -> dict[Split, LabelledFiles]:
    """Divide the files of each class with a seed, so that every split has its share of every class.

    Args:
        whole: What to divide.
        num_classes: K.
        val: Share in [0, 1], rounded to whole images of each class.
        test: Likewise.
        seed: Another one chooses others.
    """
    own: list[list[int]] = [[] for _ in range(num_classes)]
    for i, label in enumerate(whole.labels):
        own[label].append(i)
    chosen: dict[Split, list[int]] = {split: [] for split in _SPLITS}
    for label, indices in enumerate(own):
        size = len(indices)
        num_val = math.floor(val * size + 0.5)
        num_test = min(math.floor(test * size + 0.5), size - num_val)
        order = [indices[i] for i in permutation(seed, label, size).tolist()]
        chosen["val"] += order[:num_val]
        chosen["test"] += order[num_val : num_val + num_test]
        chosen["train"] += order[num_val + num_test :]
    return {split: whole.take(sorted(indices)) for split, indices in chosen.items()}


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _loose(folder: Path) -> list[Path]:
    """Files beside the class folders."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _suffixes(files: Sequence[Path]) -> list[str]:
    """Kinds of files, five at most, in printable characters."""
    kinds = sorted({plain_text(path.suffix.lower() or path.name) for path in files})
    return kinds[:5] + ["..."] * (len(kinds) > 5)
