"""The files of each split of an image folder: in folders of the splits, or split off each class."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from lightning_cifar.data.copies import find_copies
from lightning_cifar.data.counter_rng import permutation
from lightning_cifar.data.image_tree import LabelledFiles, check_root, list_labelled, report_skipped, split_off
from lightning_cifar.data.split_folders import SPLITS, Parts, Split, find_parts, inner_folders, named_splits
from lightning_cifar.files.text import plain_text

logger = logging.getLogger(__name__)


class FolderSplits:
    """Finds the files of each split.

    Args:
        root: Folder of the images.
        val_share: Share of the images of each class for validation, if there is no folder for it.
        test_share: Share of the images of each class for the test, if there is no folder for it.
    """

    def __init__(self, root: Path, *, val_share: float, test_share: float) -> None:
        self.root = root
        self.shares: dict[Split, float] = {"val": val_share, "test": test_share}

    @property
    def has_val(self) -> bool:
        """Whether validation images can exist; the folder need not exist yet."""
        return self.shares["val"] > 0 or "val" in named_splits(inner_folders(self.root))

    @cached_property
    def parts(self) -> Parts:
        """Folders of the splits."""
        check_root(self.root)
        return find_parts(self.root)

    @property
    def class_folder(self) -> Path:
        """Folder of the training images, which contains the class folders.

        Raises:
            ValueError: There are folders of other splits, but none of training images.
        """
        folders = self.parts.folders
        if "train" not in folders:
            beside = ", ".join(plain_text(path.name) for path in folders.values())
            raise ValueError(f"{plain_text(self.root)} has {beside} but no folder train: add one, or rename one.")
        return folders["train"]

    def find(self, class_names: Sequence[str], *, num_train: int | None, seed: int) -> dict[Split, LabelledFiles]:
        """Find the files of each split, and log their numbers and sources.

        Args:
            class_names: Names of the classes, in the order of their labels.
            num_train: Number of training images; None for all.
            seed: Seed of the choice of images.

        Raises:
            ValueError: A class folder is empty or unknown, or ``num_train`` is larger than the number of images.
        """
        folders = self.parts.folders
        files = split_off(
            list_labelled(folders["train"], class_names) if "train" in folders else LabelledFiles([], []),
            len(class_names),
            val=0 if "val" in folders else self.shares["val"],
            test=0 if "test" in folders else self.shares["test"],
            seed=seed,
        )
        for split in folders.keys() - {"train"}:
            files[split] = list_labelled(folders[split], class_names)
        if num_train is not None:
            size = len(files["train"].files)
            if num_train > size:
                raise ValueError(f"num_train (={num_train}) must not exceed the {size} training images.")
            order = permutation(seed, -1, size).tolist()
            files["train"] = files["train"].take(sorted(order[:num_train]))
        self._report({split: len(files[split].files) for split in SPLITS})
        return files

    def _report(self, sizes: Mapping[Split, int]) -> None:
        parts = []
        for split, size in sizes.items():
            source = f" ({100 * self.shares[split]:g} % of each class)" if split in self.shares else ""
            if (folder := self.parts.folders.get(split)) is not None:
                source = f" (folder {plain_text(folder.name)})" if folder != self.root else ""
            parts.append(f"{split} {size:,}{source}")
        names = [plain_text(path.name) for path in self.parts.unused]
        unused = f"; not used: {', '.join(names)}" if names else ""
        rank_zero_info(f"images in {plain_text(self.root)}: {', '.join(parts)}{unused}")
        if self.root not in self.parts.folders.values():
            report_skipped(self.root)

    def no_images(self, split: Split) -> ValueError:
        """Return the error for a split without images."""
        folder = self.parts.folders.get(split)
        if folder is None or folder == self.root:
            share = self.shares[split]
            return ValueError(
                f"{split}_share (={share}) gives no {split} images in {plain_text(self.root)}: raise it, or add images."
            )
        return ValueError(
            f"{plain_text(folder)} has no images in class folders: add class folders with images, or delete it to "
            f"split {split} images off the training images."
        )


def warn_of_copies(root: Path, files: Mapping[Split, LabelledFiles]) -> None:
    """Warn if two splits contain files with the same content."""
    copies = find_copies({split: files[split].files for split in SPLITS})
    if copies:
        pairs = [" = ".join(plain_text(path.relative_to(root)) for path in pair) for pair in copies[:3]]
        more = f" and {len(copies) - 3} more" if len(copies) > 3 else ""
        logger.warning(
            "%d images have the same content as images of another split (%s%s), which makes scores too good: "
            "remove one of each pair",
            len(copies),
            ", ".join(pairs),
            more,
        )
