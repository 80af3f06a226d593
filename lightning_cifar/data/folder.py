"""One's own folder of images, by class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from lightning_cifar.data.augment import build
from lightning_cifar.data.decoding import Damaged, DamagedFilesError, FileBatches, Reader, check_memory, mean_and_std
from lightning_cifar.data.folder_splits import FolderSplits, tell_copies
from lightning_cifar.data.geometry import Crop, Flip
from lightning_cifar.data.image_datamodule import ImageDataModule, LabelledImages
from lightning_cifar.data.image_tree import (
    KINDS,
    LabelledFiles,
    check_class_names,
    check_root,
    find_class_names,
    imagenet_classes,
    tell_left_out,
)
from lightning_cifar.data.split_folders import Split
from lightning_cifar.files.image_folders import find_images
from lightning_cifar.files.images import Fit
from lightning_cifar.files.paths import expand_user
from lightning_cifar.files.text import plain_text

if TYPE_CHECKING:
    from lightning_cifar.data.albumentations_loader import PerSampleLoader
    from lightning_cifar.data.batches import BatchLoader

# Of ImageNet's training images, as torchvision's networks were trained with; grey: their means over the channels.
_IMAGENET = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.449,), (0.226,))}
_STAGES: dict[str | None, tuple[Split, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    None: ("train", "val", "test"),
}


class ImageFolderDataModule(ImageDataModule):
    """One's own images in one folder a class, ``root/cat/a.jpg``, as torchvision's ``ImageFolder`` has them.

    Where there is ``root/train`` with the class folders inside, it is the training set, and ``root/val`` and
    ``root/test`` are the others; what of them is missing, or all where there is no ``root/train``, is split off each
    class with a seed. Every kind of png, jpeg, webp, bmp and gif is read (grey, transparent, 16 bits, palettes, CMYK,
    turned by the camera; see :func:`lightning_cifar.files.images.read_image`), scaled bicubically, and kept in memory
    as uint8. To ``predict``, the classes do not matter: all images in ``root`` are read, batch by batch, and a batch is
    (images, numbers of the files in ``file_names``).

    Args:
        root: Folder of the images.
        class_names: Names of the class folders in the order of the network's outputs; ``folders`` takes those there
            are, by name; ``imagenet`` the thousand classes of published weights; None is for predicting with a network
            that names its classes itself.
        image_size: Height and width that images are brought to, pixels. None is 224, or what the network of a
            checkpoint was trained with.
        in_channels: 3, or 1 for grey. None is 3, or as the checkpoint has it.
        resize: ``crop`` takes the largest square in the middle, ``squash`` the whole image, distorted.
        statistics: What to normalise with where ``mean`` and ``std`` are not given: those of ``imagenet``, or the
            training images' ``own``.
        val_share: Of the images of each class, for validation; 0 is none.
        test_share: Likewise, for the test.
        damaged: ``refuse`` files that cannot be read, naming them, or ``skip`` them, naming them too.
        max_memory: What the images may take, in GB; None is half of the machine's.
        threads: That read files; None is one for each processor core.
        mean: Per channel, of images in [0, 1]. A checkpoint brings those of its training.
        std: Likewise.
        **loading: See :class:`~lightning_cifar.data.image_datamodule.ImageDataModule`.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: If a value is out of range; where the classes are asked for, or in ``setup``: there are fewer than
            two classes, a class has no image, a file is damaged, or the images would not fit into memory.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        class_names: list[str] | Literal["folders", "imagenet"] | None = "folders",
        image_size: int | None = None,
        in_channels: Literal[1, 3] | None = None,
        resize: Fit = "crop",
        statistics: Literal["imagenet", "own"] = "imagenet",
        val_share: float = 0.15,
        test_share: float = 0.15,
        damaged: Damaged = "refuse",
        max_memory: float | None = None,
        threads: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **loading: Any,
    ) -> None:
        self.root = expand_user(root)
        self.image_size = 224 if image_size is None else image_size
        self.in_channels = 3 if in_channels is None else in_channels
        self.own_mean, self.own_std = _IMAGENET[self.in_channels]
        for name, share in {"val_share": val_share, "test_share": test_share}.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} (={share}) must lie between 0 and 1.")
        if val_share + test_share > 1:
            raise ValueError(f"val_share (={val_share}) + test_share (={test_share}) must not exceed 1.")
        for name, number in {"image_size": self.image_size, "threads": 1 if threads is None else threads}.items():
            if number < 1:
                raise ValueError(f"{name} (={number}) must be at least 1.")
        if max_memory is not None and not max_memory > 0:
            raise ValueError(f"max_memory (={max_memory}) must be above 0 GB.")
        if isinstance(class_names, list) and len(set(map(plain_text, class_names))) < max(2, len(class_names)):
            raise ValueError(f"class_names (={class_names}) must be at least two different names.")
        # Whether there will be validation is asked before the files are looked at; how much, setup says.
        has_val = FolderSplits(self.root, val_share=val_share, test_share=test_share, num_train=None, seed=0).has_val
        super().__init__(mean=mean, std=std, num_val=1 if has_val else 0, **loading)
        self._splits = FolderSplits(
            self.root, val_share=val_share, test_share=test_share, num_train=self.num_train, seed=self.split_seed
        )
        self.max_memory = max_memory
        self._own_statistics = statistics == "own" and (mean is None or std is None)
        self._given = mean, std
        self._reader = Reader(self.root, self.image_size, self.in_channels, resize, damaged, threads)
        self._by_folders = class_names == "folders"
        self._class_names: tuple[str, ...] | None = None
        if class_names != "folders":
            names = imagenet_classes() if class_names == "imagenet" else class_names or ()
            self._class_names = tuple(map(plain_text, names))
        self._files: dict[Split, LabelledFiles] = {}
        self._photographs: list[Path] | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Empty where there are none."""
        if self._class_names is None:
            self._class_names = find_class_names(self._class_folder())
        return self._class_names

    @class_names.setter
    def class_names(self, names: tuple[str, ...]) -> None:
        self._class_names = names

    @property
    def num_classes(self) -> int:
        names = self.class_names
        if self._by_folders:
            check_class_names(self._class_folder(), names)
        if not names:
            # What links a model to its data passes over what is not there: the model has its own number.
            raise AttributeError("an ImageFolderDataModule without class_names has no number of classes")
        return len(names)

    def __str__(self) -> str:
        # Lightning's asks for the loaders, and jsonargparse writes this into a message when it passes over a link.
        return f"{type(self).__name__}({self.root})"

    @property
    def file_names(self) -> list[str]:
        """Names of the images that are predicted, relative to ``root``, in printable characters."""
        return [self._reader.name(path) for path in self._find_photographs()]

    def setup(self, stage: str | None = None) -> None:
        """Read the images that the stage needs; a second call does nothing."""
        if stage == "predict":
            self._find_photographs()
            return
        files = self._split()
        wanted = [split for split in _STAGES[stage] if split not in self._arrays]
        for split, share in self._splits.shares.items():
            if split in wanted and not files[split].files:
                if share > 0 or stage == split:
                    raise self._splits.no_images(split)
                wanted.remove(split)
        if "train" in wanted:
            self._check_classes(files["train"].labels)
            tell_copies(self.root, files)
        if wanted:
            self._check_memory([*self._arrays, *wanted])
        for split in wanted:
            try:
                self._arrays[split] = self.load(split)
            except DamagedFilesError as error:
                raise self._with_other_splits(error, split) from None
        if "train" in wanted and self._own_statistics:
            self._measure()

    def _with_other_splits(self, error: DamagedFilesError, found_in: Split) -> DamagedFilesError:
        """The same for all files: the reader of the message mends them once, and not split after split."""
        told, total = error.told, error.total
        for split, (files, _) in self._split().items():
            if split == found_in:
                continue
            total += len(files)
            if split not in self._arrays:
                told = told + self._reader.find_damaged(files, task=f"checking {split} images")
        return DamagedFilesError(self.root, told, total)

    def load(self, part: Split) -> LabelledImages:
        """Read the images of a split, in the order of their classes and names."""
        files, labels = self._split()[part]
        views, kept = self._reader.read(files, task=f"reading {part} images")
        chosen = np.asarray(labels, np.int64)[kept]
        if part == "train":
            self._check_classes(chosen.tolist())
        return LabelledImages(views, chosen)

    def loader(self, split: Split, *, train: bool = False) -> BatchLoader | PerSampleLoader:
        if self._own_statistics:  # and no checkpoint has brought them
            self._measure()
        return super().loader(split, train=train)

    def predict_dataloader(self) -> FileBatches:  # type: ignore[override]  # its batches name files, not classes
        """All images in ``root``, whatever their class."""
        if self._own_statistics:
            raise ValueError(
                "statistics (=own) are those of training images, and there is none here: pass the --ckpt_path of a "
                "network that was trained with them, or --data.mean and --data.std."
            )
        device, rank, world_size = torch.device("cpu"), 0, 1
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return FileBatches(
            self._find_photographs(),
            self._reader,
            mean=self.mean,
            std=self.std,
            batch_size=self.eval_batch_size,
            device=device,
            rank=rank,
            world_size=world_size,
        )

    def state_dict(self) -> dict[str, Any]:
        """Also what a network has to be shown photographs with, when the folder is gone."""
        own = {"class_names": list(self.class_names), "mean": list(self.mean), "std": list(self.std)}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        names = tuple(map(plain_text, state_dict["class_names"]))
        if self._class_names and names != self._class_names:
            raise ValueError(
                f"{plain_text(self.root)} has {_list(self._class_names)}, and the checkpoint was trained with "
                f"{_list(names)}: pass the folder of its training, or start without --ckpt_path."
            )
        self._class_names, self._by_folders = names, False
        mean, std = self._given
        self.mean = tuple(state_dict["mean"]) if mean is None else self.mean
        self.std = tuple(state_dict["std"]) if std is None else self.std
        self._own_statistics = False

    def _class_folder(self) -> Path:
        return self._splits.class_folder

    def _split(self) -> dict[Split, LabelledFiles]:
        """The files of each split."""
        if not self._files:
            names = self.class_names
            if not self._by_folders and not names:
                raise ValueError(
                    "class_names (=None) leaves no classes to train or test: pass folders, or their names."
                )
            if self._by_folders:
                check_class_names(self._class_folder(), names)
            self._files = self._splits.find(names)
            self.num_val = len(self._files["val"].files)
        return self._files

    def _find_photographs(self) -> list[Path]:
        """Of all classes or none."""
        if self._photographs is None:
            check_root(self.root)
            images, others, skipped = find_images(self.root)
            if not images:
                raise ValueError(f"there is no image in {self.root}: put images ({KINDS}) into it.")
            tell_left_out(self.root, others, skipped)
            self._photographs = self._reader.check(images)
            if not self._photographs:
                raise ValueError(f"none of the {len(images)} files in {self.root} is an image: {images[0].name}, ...")
        return self._photographs

    def _check_classes(self, labels: Sequence[int]) -> None:
        missing = sorted(set(range(self.num_classes)) - set(labels))
        if missing and self.num_train is None:
            name = self.class_names[missing[0]]
            raise ValueError(f"there is no training image of the class {name} in {self.root}: add some.")

    def _check_memory(self, splits: Sequence[Split]) -> None:
        """Say what the images will take, and refuse what is too much."""
        operations = build(self.augment) if self.albumentations is None else []
        # Crops are gathered from a padded copy, and mirror images from one more.
        copies = 2 if any(isinstance(each, Flip) for each in operations) else 0
        copies = max(copies, any(isinstance(each, Crop) for each in operations))
        sizes = {split: len(self._split()[split].files) for split in splits}
        images = sum(size * (1 + copies * (split == "train")) for split, size in sizes.items())
        needed = images * self.image_size**2 * self.in_channels / 1e9
        check_memory(sum(sizes.values()), self.image_size, needed, self.max_memory)

    def _measure(self) -> None:
        """Normalise with what the training images have."""
        if "train" not in self._arrays:
            self._arrays["train"] = self.load("train")
        mean_found, std_found = mean_and_std(self._arrays["train"].images)
        if min(std_found) <= 0:
            raise ValueError(
                f"statistics (=own): the images in {self.root} have a channel that is the same everywhere: "
                "pass imagenet."
            )
        mean_given, std_given = self._given
        self.mean = mean_found if mean_given is None else self.mean
        self.std = std_found if std_given is None else self.std
        self._own_statistics = False


def _list(names: Sequence[str]) -> str:
    return f"{len(names)} classes ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
