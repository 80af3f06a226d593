"""The DataModule of an image folder, by class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lightning_cifar.data.augment import build
from lightning_cifar.data.checks import check_at_least
from lightning_cifar.data.decoding import Damaged, DamagedFilesError, FileBatches, Reader, check_memory, mean_and_std
from lightning_cifar.data.folder_splits import FolderSplits, warn_of_copies
from lightning_cifar.data.geometry import Crop, Flip
from lightning_cifar.data.image_datamodule import ImageDataModule, LabelledImages
from lightning_cifar.data.image_tree import (
    LabelledFiles,
    check_class_names,
    find_class_names,
    imagenet_classes,
)
from lightning_cifar.data.split_folders import Split
from lightning_cifar.files.images import Fit
from lightning_cifar.files.paths import expand_user
from lightning_cifar.files.text import join_some, plain_text

if TYPE_CHECKING:
    from lightning_cifar.data.batches import BatchLoader

# Mean and std of ImageNet's training images, as for torchvision's networks; for grey, the means over the channels.
_IMAGENET = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.449,), (0.226,))}
_STAGES: dict[str | None, tuple[Split, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    None: ("train", "val", "test"),
}


class ImageFolderDataModule(ImageDataModule):
    """Images in one folder for each class, ``root/cat/a.jpg``, as for torchvision's ``ImageFolder``.

    If ``root/train`` contains the class folders, it is the training set, and ``root/val`` and ``root/test`` are the
    other splits. Missing splits (without ``root/train``, all) are split off each class with a seed. Every
    kind of png, jpeg, webp, bmp and gif is read (grey, transparent, 16 bits, palettes, CMYK, rotated by the camera; see
    :func:`lightning_cifar.files.images.read_image`), scaled bicubically, and kept in memory as uint8. To ``predict``,
    all images in ``root`` are read batch by batch, whatever their class, and a batch is (images, indices of the files
    in ``file_names``).

    Args:
        root: Folder of the images.
        class_names: Names of the class folders in the order of the outputs of the network. ``folders`` takes all class
            folders by name, ``imagenet`` the thousand classes of published weights. None is for predictions with a
            network that has class names.
        image_size: Height and width of the resized images, pixels. None is 224, or the value of a checkpoint.
        in_channels: 3, or 1 for grey. None is 3, or the value of a checkpoint.
        resize: ``crop`` takes the largest square in the centre, ``squash`` the whole image, distorted.
        statistics: Source of the mean and std that are not given: ``imagenet``, or ``own`` for the training images.
        val_share: Share of the images of each class for validation; 0 for none.
        test_share: Share of the images of each class for the test; 0 for none.
        damaged: ``refuse`` or ``skip`` files that cannot be read; both name them.
        max_memory: Largest memory for the images, GB; None is half of the memory of the machine.
        threads: Number of threads that read files; None is one for each processor core.
        mean: Mean of each channel for the normalisation, for images in [0, 1]. A checkpoint has that of its training.
        std: Standard deviation of each channel for the normalisation, likewise.
        **loading: See :class:`~lightning_cifar.data.image_datamodule.ImageDataModule`.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: A value is out of range. When the classes are used, or in ``setup``: there are fewer than two
            classes, a class has no image, a file is damaged, or the images do not fit into memory.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as folder:
        ...     for name in ("cat", "dog"):
        ...         Path(folder, name).mkdir()
        ...         Image.new("RGB", (8, 8)).save(Path(folder, name, "a.png"))
        ...     ImageFolderDataModule(folder, image_size=8).class_names
        ('cat', 'dog')
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
                raise ValueError(f"{name} (={share}) must be between 0 and 1.")
        if val_share + test_share > 1:
            raise ValueError(f"val_share (={val_share}) + test_share (={test_share}) must not exceed 1.")
        check_at_least(1, image_size=image_size, threads=threads)
        if max_memory is not None and not max_memory > 0:
            raise ValueError(f"max_memory (={max_memory}) must be above 0 GB.")
        if isinstance(class_names, list) and len(set(map(plain_text, class_names))) < max(2, len(class_names)):
            raise ValueError(f"class_names (={class_names}) must be at least two different names.")
        self._splits = FolderSplits(self.root, val_share=val_share, test_share=test_share)
        # Whether validation images exist is needed before the files are listed; setup sets their number.
        super().__init__(mean=mean, std=std, num_val=1 if self._splits.has_val else 0, **loading)
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

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the labels; empty if there are none."""
        if self._class_names is None:
            self._class_names = find_class_names(self._splits.class_folder)
        return self._class_names

    @class_names.setter
    def class_names(self, names: tuple[str, ...]) -> None:
        self._class_names = names

    @property
    def num_classes(self) -> int:
        names = self.class_names
        if self._by_folders:
            check_class_names(self._splits.class_folder, names)
        if not names:
            # The link from the data to the model skips missing attributes: the model keeps its number.
            raise AttributeError("an ImageFolderDataModule without class_names has no number of classes")
        return len(names)

    def __str__(self) -> str:
        # Lightning's version makes the loaders; jsonargparse prints this text when it skips a link.
        return f"{type(self).__name__}({self.root})"

    @cached_property
    def _photographs(self) -> list[Path]:
        return self._reader.find_all()

    @property
    def file_names(self) -> list[str]:
        """Names of the images for prediction, relative to ``root``, in printable characters."""
        return [self._reader.name(path) for path in self._photographs]

    def setup(self, stage: str | None = None) -> None:
        """Read the images that the stage needs; a second call does nothing."""
        if stage == "predict":
            _ = self._photographs  # read and checked here, before the batches
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
            warn_of_copies(self.root, files)
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
        """Return the error for the files of all splits, so that the user can fix them at once."""
        messages, total = error.messages, error.total
        for split, (files, _) in self._split().items():
            if split == found_in:
                continue
            total += len(files)
            if split not in self._arrays:
                messages = messages + self._reader.find_damaged(files, task=f"checking {split} images")
        return DamagedFilesError(self.root, messages, total)

    def load(self, part: Split) -> LabelledImages:
        """Read the images of a split, in the order of their classes and names."""
        files, labels = self._split()[part]
        views, kept = self._reader.read(files, task=f"reading {part} images")
        chosen = np.asarray(labels, np.int64)[kept]
        if part == "train":
            self._check_classes(chosen.tolist())
        return LabelledImages(views, chosen)

    def loader(self, split: Split, *, train: bool = False) -> BatchLoader:
        if self._own_statistics:  # and no checkpoint has set them
            self._measure()
        return super().loader(split, train=train)

    def predict_dataloader(self) -> FileBatches:
        """Return batches of all images in ``root``, whatever their class, with the indices of the files."""
        if self._own_statistics:
            raise ValueError(
                "statistics (=own) need training images, but a prediction has none: pass the --ckpt_path of a trained "
                "network, or --data.mean and --data.std."
            )
        device, rank, world_size = self.placement()
        return FileBatches(
            self._photographs,
            self._reader,
            mean=self.mean,
            std=self.std,
            batch_size=self.eval_batch_size,
            device=device,
            rank=rank,
            world_size=world_size,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with all that predictions need if the folder no longer exists."""
        own = {"class_names": list(self.class_names), "mean": list(self.mean), "std": list(self.std)}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        names = tuple(map(plain_text, state_dict["class_names"]))
        if self._class_names and names != self._class_names:
            raise ValueError(
                f"{plain_text(self.root)} has {_list(self._class_names)}, but the checkpoint was trained with "
                f"{_list(names)}: pass the folder of that training, or start without --ckpt_path."
            )
        self._class_names, self._by_folders = names, False
        mean, std = self._given
        self.mean = tuple(state_dict["mean"]) if mean is None else self.mean
        self.std = tuple(state_dict["std"]) if std is None else self.std
        self._own_statistics = False

    def _split(self) -> dict[Split, LabelledFiles]:
        """Return the files of each split."""
        if not self._files:
            names = self.class_names
            if not self._by_folders and not names:
                raise ValueError(
                    "class_names (=None) is for predictions only: pass folders, or the names of the classes."
                )
            if self._by_folders:
                check_class_names(self._splits.class_folder, names)
            self._files = self._splits.find(names, num_train=self.num_train, seed=self.split_seed)
            self.num_val = len(self._files["val"].files)
        return self._files

    def _check_classes(self, labels: Sequence[int]) -> None:
        missing = sorted(set(range(self.num_classes)) - set(labels))
        if missing and self.num_train is None:
            name = self.class_names[missing[0]]
            raise ValueError(f"the class {name} in {self.root} has no training images: add some.")

    def _check_memory(self, splits: Sequence[Split]) -> None:
        """Log the memory that the images need, and raise an error if it is too much."""
        operations = build(self.augment) if self.albumentations is None else []
        # Crops are gathered from a padded copy, mirror images from a second one.
        copies = 2 if any(isinstance(each, Flip) for each in operations) else 0
        copies = max(copies, any(isinstance(each, Crop) for each in operations))
        sizes = {split: len(self._split()[split].files) for split in splits}
        images = sum(size * (1 + copies * (split == "train")) for split, size in sizes.items())
        needed = images * self.image_size**2 * self.in_channels / 1e9
        check_memory(sum(sizes.values()), self.image_size, needed, self.max_memory)

    def _measure(self) -> None:
        """Set mean and std to those of the training images."""
        if "train" not in self._arrays:
            self._arrays["train"] = self.load("train")
        mean_found, std_found = mean_and_std(self._arrays["train"].images)
        if min(std_found) <= 0:
            raise ValueError(f"statistics (=own): a channel of the images in {self.root} is constant: pass imagenet.")
        mean_given, std_given = self._given
        self.mean = mean_found if mean_given is None else self.mean
        self.std = std_found if std_given is None else self.std
        self._own_statistics = False


def _list(names: Sequence[str]) -> str:
    return f"{len(names)} classes ({join_some(names, 5)})"
