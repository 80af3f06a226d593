"""The batch loader: a batch is a pure function of (seed, epoch, sample indices), and never leaves the device.

The way of a batch: the epoch's order and all of its random numbers are drawn at once; for each batch, rows of bytes are
gathered from the images in memory, augmented as uint8, and normalised into float32 in channels_last memory format.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import SequentialSampler, TensorDataset

from lightning_cifar.data.augment import Pipeline
from lightning_cifar.data.counter_rng import permutation
from lightning_cifar.data.geometry import Samples


def shuffles(trainer: pl.Trainer | None) -> bool:
    """Whether training batches come in a new order each epoch: not where ``overfit_batches`` repeats the same ones.

    The Trainer turns shuffling off by replacing the sampler of a DataLoader, which ours have not.
    """
    return not getattr(trainer, "overfit_batches", 0)  # Lightning sets it untyped


class Loader(Protocol):
    """A loader of ours."""

    dataset: TensorDataset

    def set_epoch(self, epoch: int) -> None: ...


class InOrder(SequentialSampler):
    """Tells the Trainer that a loader does not shuffle, and passes the epoch on to it."""

    def __init__(self, loader: Loader) -> None:
        super().__init__(loader.dataset)
        self._loader = loader

    def set_epoch(self, epoch: int) -> None:
        self._loader.set_epoch(epoch)


class BatchLoader:
    """Iterates over (images, labels): float32 (N, C, H, W), normalised, and int64 (N,).

    Takes the place of a DataLoader in a Trainer, which sets the epoch through ``sampler``. There are no workers: a
    batch of 128 images of 32 x 32 pixels costs well below a millisecond of one core.

    Args:
        images: uint8 (M, H, W, C), on the device where the batches are wanted.
        labels: int64 (M,), on the same device.
        pipeline: Augments and normalises.
        batch_size: Samples in a batch of each rank.
        seed: Orders the epochs and draws the augmentations.
        shuffle: A new order each epoch.
        rank: Which of ``world_size`` processes this is. A batch of all ranks together holds the samples that one
            process with ``world_size`` times the batch size would see. When shuffling, all ranks get as many batches;
            otherwise each sample goes to one rank, once.
        world_size: Number of processes.
        num_views: Augmented versions of each image: the augmentations of epoch e are those of epoch e % num_views, the
            order is not. None: new ones in each epoch.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        pipeline: Pipeline,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = False,
        rank: int = 0,
        world_size: int = 1,
        num_views: int | None = None,
    ) -> None:
        if num_views is not None and num_views < 1:
            raise ValueError(f"num_views (={num_views}) must be at least 1.")
        if batch_size < 1:
            raise ValueError(f"batch_size (={batch_size}) must be at least 1.")
        if len(images) != len(labels):
            raise ValueError(f"There are {len(images)} images but {len(labels)} labels.")
        if len(images) < world_size:
            raise ValueError(f"{len(images)} samples cannot be shared by {world_size} processes.")
        self.labels = labels
        self.pipeline = pipeline
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.rank, self.world_size = rank, world_size
        self.num_views = num_views
        self.epoch = 0
        self.dataset = TensorDataset(images, labels)
        self.sampler = self if shuffle else InOrder(self)  # the Trainer calls loader.sampler.set_epoch ...
        self.batch_sampler = None  # ... and asks for this one beside it
        pipeline.load(images)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order and augmentations the next iteration gives."""
        self.epoch = epoch

    @property
    def num_versions(self) -> int | None:
        """Versions of each image that all epochs together show; None where each epoch makes its own."""
        return self.num_views if self.pipeline.operations else 1

    @property
    def num_samples(self) -> int:
        """Samples an epoch gives to this rank."""
        size = len(self.labels)
        if self.shuffle:
            return size // self.world_size
        return (size - self.rank + self.world_size - 1) // self.world_size

    def __len__(self) -> int:
        return (self.num_samples + self.batch_size - 1) // self.batch_size

    def order(self) -> Tensor:
        """The sample indices of this rank in this epoch: int64 (num_samples,)."""
        size, device = len(self.labels), self.labels.device
        if self.shuffle:
            order = permutation(self.seed, self.epoch, size, device)
        else:
            order = torch.arange(size, device=device)
        return order[self.rank :: self.world_size][: self.num_samples].contiguous()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch = self.epoch if self.num_views is None else self.epoch % self.num_views
        order = self.order()
        labels = self.labels[order]
        draws = self.pipeline.draw(self.seed, epoch, order)
        for start in range(0, len(order), self.batch_size):
            batch = slice(start, start + self.batch_size)
            images = self.pipeline(Samples(self.seed, epoch, order[batch]), draws[:, batch])
            yield images, labels[batch]
