"""A folder of images by class, as torchvision's ``ImageFolder`` has it: which classes, which files, which split.

No pixels are read here.
"""

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
from lightning_cifar.files.text import plain_text

logger = logging.getLogger(__name__)

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
        raise FileNotFoundError(f"there is no folder {plain_text(root)}: pass --data.root with a folder of images.")
    if not root.is_dir():
        raise NotADirectoryError(f"{plain_text(root)} is no folder: pass --data.root with a folder of images.")


def find_class_names(folder: Path) -> tuple[str, ...]:
    """The names of the folders inside, in their order, as :func:`plain_text`.

    Raises:
        ValueError: Two of them are the same text.
    """
    return tuple(_by_class(folder))


def check_class_names(folder: Path, names: Sequence[str]) -> None:
    """Raises ValueError where a folder has fewer than two folders inside, and says what it has instead."""
    shown = plain_text(folder)
    if len(names) == 1:
        raise ValueError(f"{shown} has the images of one class ({names[0]}): at least two class folders are needed.")
    if names:
        return
    images = find_images(folder).images
    if not images:
        raise ValueError(f"there is no image in {shown}: put images ({KINDS}) into it, in one folder a class.")
    raise ValueError(
        f"{shown} has images ({plain_text(images[0].name)}, ...) but no class folders: put them into one folder a "
        "class; to predict, pass the --ckpt_path of a network that has classes, or --data.class_names imagenet."
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
    found = _by_class(folder)
    if unknown := sorted(found.keys() - set(class_names)):
        listed = ", ".join(class_names[:10]) + (" ..." if len(class_names) > 10 else "")
        path = found[unknown[0]]
        raise ValueError(f"{plain_text(path)} is the folder of no class ({listed}): rename it, or move it away.")
    labelled, (left_out, skipped) = LabelledFiles([], []), _beside_folders(folder)
    for label, name in enumerate(class_names):
        if name not in found:
            continue
        inside = find_images(found[name])
        skipped += inside.skipped
        if not inside.images:
            kinds, shown = ", ".join(_suffixes(inside.others)), plain_text(found[name])
            only = f" (only {kinds})" if kinds else ""
            raise ValueError(
                f"the class folder {shown} holds no image{only}: put images ({KINDS}) into it, or delete it."
            )
        left_out += inside.others
        labelled.files.extend(inside.images)
        labelled.labels.extend([label] * len(inside.images))
    tell_left_out(folder, left_out, skipped)
    return labelled


def tell_left_out(folder: Path, files: Sequence[Path], skipped: Mapping[str, int]) -> None:
    """Say which kinds of files are not images of a class, and how many hidden and system files were skipped."""
    shown = plain_text(folder)
    if files:
        kinds = ", ".join(_suffixes(files))
        logger.warning("left out: %d of the files in %s, which are no images of a class (%s)", len(files), shown, kinds)
    if skipped:
        names = [plain_text(name) for name in sorted(skipped, key=lambda name: (-skipped[name], name))]
        listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        rank_zero_info(f"skipped {sum(skipped.values())} hidden and system files in {shown} ({listed})")


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
    chosen: dict[Split, list[int]] = {split: [] for split in SPLITS}
    for label, indices in enumerate(own):
        size = len(indices)
        num_val = math.floor(val * size + 0.5)
        num_test = min(math.floor(test * size + 0.5), size - num_val)
        order = [indices[i] for i in permutation(seed, label, size).tolist()]
        chosen["val"] += order[:num_val]
        chosen["test"] += order[num_val : num_val + num_test]
        chosen["train"] += order[num_val + num_test :]
    return {split: whole.take(sorted(indices)) for split, indices in chosen.items()}


def _by_class(folder: Path) -> dict[str, Path]:
    """The folders inside by the name of the class, in its order: file systems keep one name in several forms."""
    found: dict[str, Path] = {}
    for path in inner_folders(folder):
        name = plain_text(path.name)
        if found.setdefault(name, path) != path:
            raise ValueError(f"{plain_text(folder)} has two folders that read {name}: rename one of them.")
    return dict(sorted(found.items()))


def _beside_folders(folder: Path) -> tuple[list[Path], Counter[str]]:
    """Files beside the class folders, and the numbers of hidden and system files there."""
    entries = sorted(folder.iterdir())
    skipped = Counter({path.name: count_files(path) for path in entries if is_system(path.name)})
    return [path for path in entries if not is_system(path.name) and not path.is_dir()], skipped


def tell_skipped(root: Path) -> None:
    """Say how many hidden and system files are beside the folders inside."""
    tell_left_out(root, [], _beside_folders(root)[1])


def _suffixes(files: Sequence[Path]) -> list[str]:
    """Kinds of files, five at most, in printable characters."""
    kinds = sorted({plain_text(path.suffix.lower() or path.name) for path in files})
    return kinds[:5] + ["..."] * (len(kinds) > 5)
