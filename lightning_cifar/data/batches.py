"""The batch loader: a batch is a pure function of (seed, epoch, sample indices) and stays on the device.

At the start of an epoch, its order and all its random numbers are drawn at once. For each batch, rows of bytes are
gathered from the images in memory, augmented as uint8, and normalised into float32 in channels_last memory format.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from lightning_cifar.data.augment import Pipeline
from lightning_cifar.data.base import EpochLoader
from lightning_cifar.data.checks import check_at_least
from lightning_cifar.data.counter_rng import permutation
from lightning_cifar.data.geometry import Samples


class BatchLoader(EpochLoader):
    """Iterates over (images, labels): float32 (N, C, H, W), normalised, and int64 (N,).

    It has no workers: a batch of 128 images of 32 x 32 pixels takes well below a millisecond on one core.

    Args:
        images: uint8 (M, H, W, C), on the device of the batches.
        labels: int64 (M,), on the same device.
        pipeline: Augments and normalises the images.
        batch_size: Number of samples in a batch of each rank.
        seed: Seed of the orders and of the augmentations.
        shuffle: Whether each epoch has a new order.
        rank: Number of this process. The batches of all ranks together contain the samples of one process with
            ``world_size`` times the batch size. With ``shuffle``, all ranks have the same number of batches; otherwise
            each sample is in exactly one rank.
        world_size: Number of processes.
        num_views: Number of augmented versions of each image: the augmentations of epoch e are those of epoch
            e % num_views; the order is not. None for new ones in each epoch.
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
        check_at_least(1, batch_size=batch_size, num_views=num_views)
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images have {len(labels)} labels: pass one label for each image.")
        if len(images) < world_size:
            raise ValueError(f"{len(images)} samples cannot be shared by {world_size} processes.")
        super().__init__(TensorDataset(images, labels), seed=seed, shuffle=shuffle)
        self.labels = labels
        self.pipeline = pipeline
        self.batch_size = batch_size
        self.rank, self.world_size = rank, world_size
        self.num_views = num_views
        pipeline.load(images)

    @property
    def num_versions(self) -> int | None:
        """Number of versions of each image in all epochs together; None if each epoch has new ones."""
        return self.num_views if self.pipeline.operations else 1

    @property
    def num_samples(self) -> int:
        """Number of samples of this rank in an epoch."""
        size = len(self.labels)
        if self.shuffle:
            return size // self.world_size
        return (size - self.rank + self.world_size - 1) // self.world_size

    def __len__(self) -> int:
        return (self.num_samples + self.batch_size - 1) // self.batch_size

    def order(self) -> Tensor:
        """Return the sample indices of this rank in this epoch: int64 (num_samples,)."""
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
