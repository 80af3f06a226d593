"""Image folders by class, as for torchvision's ``ImageFolder``: classes, files, splits. Reads no pixels."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.utilities import rank_zero_info

from lightning_cifar.data.counter_rng import permutation
from lightning_cifar.data.split_folders import SPLITS, Split, inner_folders
from lightning_cifar.files.image_folders import SUFFIXES, count_files, find_images, is_system
from lightning_cifar.files.text import join_some, plain_text

logger = logging.getLogger(__name__)

KINDS = ", ".join(suffix.lstrip(".") for suffix in SUFFIXES)


class LabelledFiles(NamedTuple):
    """N files and the label of each."""

    files: list[Path]
    labels: list[int]

    def take(self, indices: Sequence[int]) -> LabelledFiles:
        return LabelledFiles([self.files[i] for i in indices], [self.labels[i] for i in indices])


def check_root(root: Path) -> None:
    """Raise FileNotFoundError or NotADirectoryError if ``root`` is not a folder."""
    if not root.exists():
        raise FileNotFoundError(f"the folder {plain_text(root)} does not exist: pass --data.root with an image folder.")
    if not root.is_dir():
        raise NotADirectoryError(f"{plain_text(root)} is not a folder: pass --data.root with an image folder.")


def find_class_names(folder: Path) -> tuple[str, ...]:
    """Return the sorted names of the folders inside, as :func:`plain_text`.

    Raises:
        ValueError: Two of them are the same text.
    """
    return tuple(_by_class(folder))


def check_class_names(folder: Path, names: Sequence[str]) -> None:
    """Raise ValueError if a folder has fewer than two class folders; the message states what it has instead."""
    shown = plain_text(folder)
    if len(names) == 1:
        raise ValueError(f"{shown} has only one class folder ({names[0]}): add at least one more.")
    if names:
        return
    images = find_images(folder).images
    if not images:
        raise ValueError(f"{shown} contains no images: add images ({KINDS}), in one folder for each class.")
    raise ValueError(
        f"{shown} has images ({plain_text(images[0].name)}, ...) but no class folders: put them into one folder for "
        "each class; to predict, pass the --ckpt_path of a trained network, or --data.class_names imagenet."
    )


def imagenet_classes() -> tuple[str, ...]:
    """Return the names of the 1000 classes, in the order of published weights; a few names occur twice."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def list_labelled(folder: Path, class_names: Sequence[str]) -> LabelledFiles:
    """Return the images in the class folders, including folders inside them, sorted by class and name.

    Args:
        class_names: Names in the order of the labels; a class without a folder has no images.

    Raises:
        ValueError: A class folder is empty, or does not belong to a class.
    """
    found = _by_class(folder)
    if unknown := sorted(found.keys() - set(class_names)):
        shown, listed = plain_text(found[unknown[0]]), join_some(class_names, 10)
        raise ValueError(f"{shown} is not the folder of a class ({listed}): rename it, or move it away.")
    labelled, (left_out, skipped) = LabelledFiles([], []), _beside_folders(folder)
    for label, name in enumerate(class_names):
        if name not in found:
            continue
        inside = find_images(found[name])
        skipped += inside.skipped
        if not inside.images:
            shown = plain_text(found[name])
            only = f" (only {_suffixes(inside.others)})" if inside.others else ""
            raise ValueError(f"the class folder {shown} contains no images{only}: add images ({KINDS}), or delete it.")
        left_out += inside.others
        labelled.files.extend(inside.images)
        labelled.labels.extend([label] * len(inside.images))
    report_left_out(folder, left_out, skipped)
    return labelled


def report_left_out(folder: Path, files: Sequence[Path], skipped: Mapping[str, int]) -> None:
    """Log the kinds of files that are not images of a class, and the number of skipped hidden and system files."""
    shown = plain_text(folder)
    if files:
        kinds = _suffixes(files)
        logger.warning("left out: %d files in %s that are not images of a class (%s)", len(files), shown, kinds)
    if skipped:
        names = [plain_text(name) for name in sorted(skipped, key=lambda name: (-skipped[name], name))]
        rank_zero_info(f"skipped {sum(skipped.values())} hidden and system files in {shown} ({join_some(names, 3)})")


def split_off(
    whole: LabelledFiles, num_classes: int, *, val: float, test: float, seed: int
) -> dict[Split, LabelledFiles]:
    """Split the files of each class with a seed, so that every split has its share of every class.

    Args:
        val: Share of validation in [0, 1], rounded to whole images of each class.
        test: Share of the test, likewise.
    """
    by_label: list[list[int]] = [[] for _ in range(num_classes)]
    for i, label in enumerate(whole.labels):
        by_label[label].append(i)
    chosen: dict[Split, list[int]] = {split: [] for split in SPLITS}
    for label, indices in enumerate(by_label):
        size = len(indices)
        num_val = math.floor(val * size + 0.5)
        num_test = min(math.floor(test * size + 0.5), size - num_val)
        order = [indices[i] for i in permutation(seed, label, size).tolist()]
        chosen["val"] += order[:num_val]
        chosen["test"] += order[num_val : num_val + num_test]
        chosen["train"] += order[num_val + num_test :]
    return {split: whole.take(sorted(indices)) for split, indices in chosen.items()}


def _by_class(folder: Path) -> dict[str, Path]:
    """Return the folders inside, sorted by class name: file systems keep one name in several Unicode forms."""
    found: dict[str, Path] = {}
    for path in inner_folders(folder):
        name = plain_text(path.name)
        if found.setdefault(name, path) != path:
            raise ValueError(f"{plain_text(folder)} has two folders displayed as {name}: rename one of them.")
    return dict(sorted(found.items()))


def _beside_folders(folder: Path) -> tuple[list[Path], Counter[str]]:
    """Return the files next to the class folders, and the numbers of hidden and system files there."""
    entries = sorted(folder.iterdir())
    skipped = Counter({path.name: count_files(path) for path in entries if is_system(path.name)})
    return [path for path in entries if not is_system(path.name) and not path.is_dir()], skipped


def report_skipped(root: Path) -> None:
    """Log the number of hidden and system files next to the class folders."""
    report_left_out(root, [], _beside_folders(root)[1])


def _suffixes(files: Sequence[Path]) -> str:
    """Return at most five suffixes of files, in printable characters."""
    return join_some(sorted({plain_text(path.suffix.lower() or path.name) for path in files}), 5)
