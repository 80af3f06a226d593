"""Base of the image DataModules: images in memory, the seeded split, the batch loaders."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch

from lightning_cifar.data.augment import Pipeline, Spec, build
from lightning_cifar.data.base import SeededLoaders, shuffles
from lightning_cifar.data.batches import BatchLoader
from lightning_cifar.data.checks import check_at_least
from lightning_cifar.data.colour import Cutout
from lightning_cifar.data.counter_rng import permutation
from lightning_cifar.data.geometry import Crop
from lightning_cifar.data.split_folders import Split


class LabelledImages(NamedTuple):
    """Images uint8 (N, H, W, C) and labels int64 (N,)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


class ImageDataModule(SeededLoaders, pl.LightningDataModule):
    """Base class: images in memory as uint8, split with a seed, in batches made on the Trainer's device.

    A batch is (normalised images float32 (N, C, H, W), labels int64 (N,)). The official training images are split into
    training and validation images; the official test images are used for the test only. A subclass sets
    ``class_names``, ``own_mean`` and ``own_std`` and defines ``load``.

    Args:
        batch_size: Number of training images in a batch, for each device.
        eval_batch_size: Number of images in a batch of validation and test.
        num_train: Number of training images; None for all but the validation images.
        num_val: Number of official training images for validation. The choice does not depend on ``num_train``.
        augment: Augmentations of the training images, in order: names with their settings, such as
            ``[flip, {crop: 4}, {cutout: {size: 8, p: 0.5}}]``. Empty for none.
        albumentations: YAML or JSON file with a pipeline of albumentations that replaces ``augment``. It works image by
            image and is 40 times slower.
        num_workers: Number of processes that run the albumentations pipeline.
        num_views: Number of augmented versions of each training image, one in each epoch in turn, so that what is
            computed from them can be cached. None for new ones in each epoch.
        mean: Mean of each channel for the normalisation, for images in [0, 1]; None for that of the data.
        std: Standard deviation of each channel for the normalisation; None for that of the data.
        seed: Seed of the orders and of the augmentations; None for the seed of the run (``seed_everything``).
        split_seed: Seed of the choice of validation images.

    Raises:
        ValueError: A value is out of range, or the split is larger than the data.

    Example:
        >>> class Noise(ImageDataModule):
        ...     class_names, own_mean, own_std = ("a", "b"), (0.5,) * 3, (0.25,) * 3
        ...     def load(self, part):
        ...         images = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), np.uint8)
        ...         return LabelledImages(images, np.arange(60) % 2)
        >>> images, labels = next(iter(Noise(num_val=10, batch_size=4).train_dataloader()))
        >>> images.shape
        torch.Size([4, 3, 32, 32])
    """

    class_names: tuple[str, ...]
    in_channels: int = 3
    image_size: int = 32
    own_mean: tuple[float, ...]
    own_std: tuple[float, ...]

    def __init__(
        self,
        *,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        num_train: int | None = None,
        num_val: int = 5000,
        augment: Sequence[str | dict[str, Any]] = ("flip", {"crop": 4}),
        albumentations: str | None = None,
        num_workers: int = 0,
        num_views: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        seed: int | None = None,
        split_seed: int = 0,
    ) -> None:
        super().__init__()
        check_at_least(1, batch_size=batch_size, eval_batch_size=eval_batch_size, num_train=num_train)
        check_at_least(0, num_val=num_val, num_workers=num_workers)
        if num_views is not None and (num_views < 1 or albumentations is not None):
            fix = "leave it out with albumentations" if num_views > 0 else "must be at least 1"
            raise ValueError(f"num_views (={num_views}): {fix}.")
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_train, self.num_val = num_train, num_val
        self.augment: Sequence[Spec] = augment
        self.albumentations, self.num_workers, self.num_views = albumentations, num_workers, num_views
        if albumentations is not None:
            from lightning_cifar.data.albumentations_pipeline import load_pipeline

            load_pipeline(albumentations)  # raises its errors before anything is loaded
        self.mean = self._per_channel("mean", mean, self.own_mean)
        self.std = self._per_channel("std", std, self.own_std)
        if min(self.std) <= 0:
            raise ValueError(f"std (={self.std}) must be above 0.")
        self.seed, self.split_seed = seed, split_seed
        for operation in build(augment):
            if isinstance(operation, Crop | Cutout):
                operation.check_size(self.image_size, self.image_size)
        self._arrays: dict[Split, LabelledImages] = {}
        self._fingerprint: str | None = None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @abstractmethod
    def load(self, part: Literal["train", "test"]) -> LabelledImages:
        """Return the official training or test images in their official order."""

    def setup(self, stage: str | None = None) -> None:
        """Load and split the images that the stage needs; a second call does nothing."""
        if stage in ("fit", "validate", None) and "train" not in self._arrays:
            train = self.load("train")
            size = len(train.labels)
            num_train = size - self.num_val if self.num_train is None else self.num_train
            if num_train < 1 or num_train + self.num_val > size:
                raise ValueError(
                    f"num_train (={num_train}) + num_val (={self.num_val}) must lie within the {size} training images."
                )
            order = permutation(self.split_seed, 0, size).numpy()
            chosen = {"val": order[: self.num_val], "train": order[self.num_val : self.num_val + num_train]}
            for split, indices in chosen.items():
                self._arrays[split] = LabelledImages(train.images[indices], train.labels[indices])  # type: ignore[index]
        if stage in ("test", "predict", None) and "test" not in self._arrays:
            self._arrays["test"] = self.load("test")

    def fingerprint(self) -> str:
        """Return a SHA-256 of the training and validation images with their labels, after ``setup("fit")``."""
        if self._fingerprint is None:
            digest = hashlib.sha256()
            arrays = [array for split in sorted({*self._arrays} - {"test"}) for array in self._arrays[split]]
            for array in arrays:
                digest.update(repr(array.shape).encode())
                digest.update(np.ascontiguousarray(array).data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def loader(self, split: Split, *, train: bool = False) -> BatchLoader:
        if split not in self._arrays:
            self.setup("test" if split == "test" else "fit")
        device, rank, world_size = self.placement()
        common: dict[str, Any] = {"seed": self.resolved_seed(), "rank": rank, "world_size": world_size}
        if train and self.albumentations is not None:
            from lightning_cifar.data.albumentations_loader import PerSampleLoader

            return PerSampleLoader(
                *self._arrays[split],
                source=self.albumentations,
                mean=self.mean,
                std=self.std,
                batch_size=self.batch_size,
                shuffle=shuffles(self.trainer),
                num_workers=self.num_workers,
                **common,
            )
        images, labels = (torch.from_numpy(array).to(device) for array in self._arrays[split])
        pipeline = Pipeline(build(self.augment) if train else [], mean=self.mean, std=self.std)
        return BatchLoader(
            images,
            labels,
            pipeline=pipeline,
            batch_size=self.batch_size if train else self.eval_batch_size,
            shuffle=train and shuffles(self.trainer),
            num_views=self.num_views if train else None,
            **common,
        )

    def val_dataloader(self) -> BatchLoader | list[Any]:
        return self.loader("val") if self.num_val else []

    def _per_channel(self, name: str, given: Sequence[float] | None, own: tuple[float, ...]) -> tuple[float, ...]:
        values = own if given is None else tuple(given)
        if len(values) != self.in_channels:
            raise ValueError(f"{name} (={values}) must have {self.in_channels} values, one for each channel.")
        return values
