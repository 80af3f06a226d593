"""Points around a straight line: a small data set that shows how a network overfits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from lightning_cifar.data.base import EpochLoader, SeededLoaders, shuffles
from lightning_cifar.data.checks import check_at_least
from lightning_cifar.data.counter_rng import permutation, uniform
from lightning_cifar.data.split_folders import Split

# Two streams of uniform numbers give one stream of normal ones; no two splits share a stream.
_FIRST_STREAM: dict[Split, int] = {"train": 0, "val": 2, "test": 4}


class Points(NamedTuple):
    """Points: x and y, float32 (N, 1) each."""

    x: Tensor
    y: Tensor


class NoisyLineDataModule(SeededLoaders, pl.LightningDataModule):
    """Points ``y = slope * x + noise`` at evenly spaced x in [-1, 1].

    Training, validation and test points have the same x and different noise. A batch is (x (N, 1), y (N, 1)), float32,
    on the Trainer's device.

    Args:
        num_points: Number of points of each split.
        noise: Standard deviation of the normally distributed noise.
        slope: Slope of the line.
        batch_size: Number of training points in a batch, for each device; None for all of them.
        passes: Number of passes over the points in an epoch, so that what happens once in an epoch (validation,
            checkpoint, log) does not happen after every step of a full batch.
        data_seed: Seed of the noise.
        seed: Seed of the orders, where a batch is not all points; None for the seed of the run (``seed_everything``).

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> data = NoisyLineDataModule(num_points=4, noise=0.0, slope=2.0)
        >>> data.points("train").y[:, 0].tolist() == [2 * x for x in data.points("test").x[:, 0].tolist()]
        True
    """

    def __init__(
        self,
        num_points: int = 50,
        noise: float = 0.3,
        slope: float = 1.0,
        *,
        batch_size: int | None = None,
        passes: int = 50,
        data_seed: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_at_least(2, num_points=num_points)
        check_at_least(1, passes=passes)
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size (={batch_size}) must be at least 1, or null for all points.")
        if not (math.isfinite(noise) and noise >= 0):
            raise ValueError(f"noise (={noise}) must be 0 or a positive number.")
        if not math.isfinite(slope):
            raise ValueError(f"slope (={slope}) must be a number.")
        self.num_points, self.noise, self.slope = num_points, noise, slope
        self.batch_size, self.passes = batch_size, passes
        self.data_seed, self.seed = data_seed, seed

    def __str__(self) -> str:
        # Lightning's version needs a data set in each loader; the command line prints this text.
        return f"{type(self).__name__}(num_points={self.num_points}, noise={self.noise}, slope={self.slope})"

    def points(self, split: Split) -> Points:
        """Return all points of a split, in the order of x."""
        indices = torch.arange(self.num_points)
        x = torch.linspace(-1, 1, self.num_points)
        first = _FIRST_STREAM[split]
        u, v = uniform(self.data_seed, 0, range(first, first + 2), indices).double()
        # Box and Muller, doi:10.1214/aoms/1177706645. u is below 1, so that the logarithm is finite.
        normal = (-2 * (1 - u).log()).sqrt() * (2 * math.pi * v).cos()
        y = self.slope * x + self.noise * normal.float()
        return Points(x[:, None], y[:, None])

    def loader(self, split: Split, *, train: bool = False) -> PointLoader:
        """Return the batches of a split: in order, or for training ``passes`` times, shuffled if a pass has several."""
        device, rank, world_size = self.placement()
        # For training, all ranks have the same number of points; otherwise each point is in exactly one rank.
        end = self.num_points - self.num_points % world_size if train else self.num_points
        x, y = (values[rank:end:world_size].to(device) for values in self.points(split))
        return PointLoader(
            Points(x, y),
            batch_size=len(x) if self.batch_size is None or not train else self.batch_size,
            passes=self.passes if train else 1,
            seed=self.resolved_seed(),
            shuffle=train and shuffles(self.trainer),
        )


class PointLoader(EpochLoader):
    """Iterates over (x, y).

    Args:
        passes: Number of passes over all points in an epoch.
        shuffle: Whether each pass has a new order; a batch of all points is not shuffled.
    """

    def __init__(
        self, points: Points, *, batch_size: int, passes: int = 1, seed: int = 0, shuffle: bool = False
    ) -> None:
        super().__init__(TensorDataset(*points), seed=seed, shuffle=shuffle)
        self.points, self.batch_size, self.passes = points, batch_size, passes

    @property
    def num_samples(self) -> int:
        """Number of points of this rank in a pass."""
        return len(self.points.x)

    def __len__(self) -> int:
        return self.passes * math.ceil(len(self.points.x) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = self.points
        size, epoch = len(x), self.epoch
        for turn in range(self.passes):
            if self.batch_size >= size:
                yield x, y
                continue
            if self.shuffle:
                order = permutation(self.seed, epoch * self.passes + turn, size, x.device)
                x, y = self.points.x[order], self.points.y[order]
            for start in range(0, size, self.batch_size):
                yield x[start : start + self.batch_size], y[start : start + self.batch_size]
