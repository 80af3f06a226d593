"""What the image DataModules share: images in memory, the seeded split, the batch loaders."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch

from lightning_cifar.data.augment import Pipeline, Spec, build
from lightning_cifar.data.batches import BatchLoader, shuffles
from lightning_cifar.data.colour import Cutout
from lightning_cifar.data.counter_rng import permutation
from lightning_cifar.data.geometry import Crop

if TYPE_CHECKING:
    from lightning_cifar.data.albumentations_loader import PerSampleLoader

Split = Literal["train", "val", "test"]


class LabelledImages(NamedTuple):
    """Images uint8 (N, H, W, C) and labels int64 (N,)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


class ImageDataModule(pl.LightningDataModule):
    """Images in memory as uint8, split with a seed, in batches made on the Trainer's device.

    A batch is (images float32 (N, C, H, W) normalised, labels int64 (N,)). The official training images are split
    into training and validation; the official test images are for the end.

    Args:
        batch_size: Training images in a batch, of each device.
        eval_batch_size: The same for validation and test.
        num_train: Take only so many of the training images; None is all but the validation images.
        num_val: Official training images kept for validation. They do not depend on ``num_train``.
        augment: Augmentations of the training images, in order: names with their settings, such as
            ``[flip, {crop: 4}, {cutout: {size: 8, p: 0.5}}]``. Empty for none.
        albumentations: A YAML or JSON file with a pipeline of albumentations, which takes the place of ``augment``:
            image by image, and 40 times slower.
        num_workers: Processes that run that pipeline.
        num_views: Augmented versions of each training image, shown in turn, an epoch each: what is computed from them
            can be kept. None: new ones in each epoch.
        mean: Per channel, of images in [0, 1], to normalise with; None is the data's own.
        std: Likewise.
        seed: Orders the epochs and draws the augmentations; None is the seed of the run (``seed_everything``).
        split_seed: Chooses the validation images.

    Raises:
        ValueError: If a value is out of range, or the split is larger than the data.
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
        for name, value in {"batch_size": batch_size, "eval_batch_size": eval_batch_size}.items():
            if value < 1:
                raise ValueError(f"{name} (={value}) must be at least 1.")
        if num_views is not None and (num_views < 1 or albumentations is not None):
            fix = "leave it out with albumentations" if num_views > 0 else "must be at least 1"
            raise ValueError(f"num_views (={num_views}): {fix}.")
        if num_train is not None and num_train < 1:
            raise ValueError(f"num_train (={num_train}) must be at least 1.")
        if num_val < 0:
            raise ValueError(f"num_val (={num_val}) must not be negative.")
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_train, self.num_val = num_train, num_val
        self.augment: Sequence[Spec] = augment
        if num_workers < 0:
            raise ValueError(f"num_workers (={num_workers}) must not be negative.")
        self.albumentations, self.num_workers, self.num_views = albumentations, num_workers, num_views
        if albumentations is not None:
            from lightning_cifar.data.albumentations_pipeline import load_pipeline

            load_pipeline(albumentations)  # refuses what cannot be built
        self.mean = self._per_channel("mean", mean, self.own_mean)
        self.std = self._per_channel("std", std, self.own_std)
        if min(self.std) <= 0:
            raise ValueError(f"std (={self.std}) must be above 0.")
        self.seed, self.split_seed = seed, split_seed
        self._run_seed: int | None = None
        for operation in build(augment):  # refuses what cannot be built, before anything is loaded
            if isinstance(operation, Crop | Cutout):
                operation.check_size(self.image_size, self.image_size)
        self._arrays: dict[Split, LabelledImages] = {}

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @abstractmethod
    def load(self, part: Literal["train", "test"]) -> LabelledImages:
        """The official training or test images, in their official order."""

    def setup(self, stage: str | None = None) -> None:
        """Load what the stage needs and split it; a second call does nothing."""
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

    def loader(self, split: Split, *, train: bool = False) -> BatchLoader | PerSampleLoader:
        """Batches of a split: in order and plain, or shuffled and augmented for training."""
        if split not in self._arrays:
            self.setup("test" if split == "test" else "fit")
        device, rank, world_size = torch.device("cpu"), 0, 1
        if self.trainer is not None:
            strategy = self.trainer.strategy
            device, rank, world_size = strategy.root_device, self.trainer.global_rank, self.trainer.world_size
        if train and self.albumentations is not None:
            from lightning_cifar.data.albumentations_loader import PerSampleLoader

            return PerSampleLoader(
                *self._arrays[split],
                source=self.albumentations,
                mean=self.mean,
                std=self.std,
                batch_size=self.batch_size,
                seed=self.resolved_seed(),
                shuffle=shuffles(self.trainer),
                rank=rank,
                world_size=world_size,
                num_workers=self.num_workers,
            )
        images, labels = (torch.from_numpy(array).to(device) for array in self._arrays[split])
        pipeline = Pipeline(build(self.augment) if train else [], mean=self.mean, std=self.std)
        return BatchLoader(
            images,
            labels,
            pipeline=pipeline,
            batch_size=self.batch_size if train else self.eval_batch_size,
            seed=self.resolved_seed(),
            shuffle=train and shuffles(self.trainer),
            rank=rank,
            world_size=world_size,
            num_views=self.num_views if train else None,
        )

    def train_dataloader(self) -> BatchLoader | PerSampleLoader:
        return self.loader("train", train=True)

    def val_dataloader(self) -> BatchLoader | PerSampleLoader | list[Any]:
        return self.loader("val") if self.num_val else []

    def test_dataloader(self) -> BatchLoader | PerSampleLoader:
        return self.loader("test")

    def predict_dataloader(self) -> BatchLoader | PerSampleLoader:
        return self.loader("test")

    def resolved_seed(self) -> int:
        """``seed``, or the seed of the run, fixed at its first use."""
        if self.seed is not None:
            return self.seed
        if self._run_seed is None:
            self._run_seed = torch.initial_seed()
        return self._run_seed

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to see the same batches."""
        return {"seed": self.resolved_seed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._run_seed = int(state_dict["seed"])  # a seed that was given goes before it

    def _per_channel(self, name: str, given: Sequence[float] | None, own: tuple[float, ...]) -> tuple[float, ...]:
        values = own if given is None else tuple(given)
        if len(values) != self.in_channels:
            raise ValueError(f"{name} (={values}) must have {self.in_channels} values, one a channel.")
        return values
