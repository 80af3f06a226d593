"""Points about a straight line: a toy on which a network can be seen to overfit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from lightning_cifar.data.batches import InOrder, shuffles
from lightning_cifar.data.counter_rng import permutation, uniform

Split = Literal["train", "val", "test"]
# Two streams of uniform numbers make one of normal ones; no two splits share any.
_FIRST_STREAM: dict[Split, int] = {"train": 0, "val": 2, "test": 4}


class Points(NamedTuple):
    """Places and values, float32 (N, 1) each."""

    x: Tensor
    y: Tensor


class NoisyLineDataModule(pl.LightningDataModule):
    """``y = slope * x + noise`` at places evenly spread over [-1, 1].

    Training, validation and test have the same places, and noise of their own. A batch is (x (N, 1), y (N, 1)),
    float32, made on the Trainer's device.

    Args:
        num_points: Points of each split.
        noise: Standard deviation of the noise, which is normal.
        slope: Of the line.
        batch_size: Training points in a batch, of each device; None is all of them.
        passes: An epoch goes so many times over the points, so that what happens once an epoch (validation, checkpoint,
            log) does not happen in every step of a full batch.
        data_seed: Another one draws other noise.
        seed: Orders the epochs where a batch is not all; None is the seed of the run (``seed_everything``).

    Raises:
        ValueError: If a value is out of range.
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
        if num_points < 2:
            raise ValueError(f"num_points (={num_points}) must be at least 2.")
        if not (math.isfinite(noise) and noise >= 0):
            raise ValueError(f"noise (={noise}) must be 0 or a positive number.")
        if not math.isfinite(slope):
            raise ValueError(f"slope (={slope}) must be a number.")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size (={batch_size}) must be at least 1, or null for all points.")
        if passes < 1:
            raise ValueError(f"passes (={passes}) must be at least 1.")
        self.num_points, self.noise, self.slope = num_points, noise, slope
        self.batch_size, self.passes = batch_size, passes
        self.data_seed, self.seed = data_seed, seed
        self._run_seed: int | None = None

    def __str__(self) -> str:
        # Lightning's own asks each loader for its data set, and the command line for this text.
        return f"{type(self).__name__}(num_points={self.num_points}, noise={self.noise}, slope={self.slope})"

    def points(self, split: Split) -> Points:
        """All points of a split, in order of their places."""
        indices = torch.arange(self.num_points)
        x = torch.linspace(-1, 1, self.num_points)
        first = _FIRST_STREAM[split]
        u, v = uniform(self.data_seed, 0, range(first, first + 2), indices).double()
        # Box and Muller, doi:10.1214/aoms/1177706645; u is below 1, so that the logarithm is finite.
        normal = (-2 * (1 - u).log()).sqrt() * (2 * math.pi * v).cos()
        y = self.slope * x + self.noise * normal.float()
        return Points(x[:, None], y[:, None])

    def loader(self, split: Split, *, train: bool = False) -> PointLoader:
        """Batches of a split: in order, or for training ``passes`` times, shuffled where there is more than one."""
        device, rank, world_size = torch.device("cpu"), 0, 1
        if self.trainer is not None:
            strategy = self.trainer.strategy
            device, rank, world_size = strategy.root_device, self.trainer.global_rank, self.trainer.world_size
        # When shuffling, all ranks get as many points; otherwise each point goes to one rank, once.
        end = self.num_points - self.num_points % world_size if train else self.num_points
        x, y = (values[rank:end:world_size].to(device) for values in self.points(split))
        return PointLoader(
            Points(x, y),
            batch_size=len(x) if self.batch_size is None or not train else self.batch_size,
            passes=self.passes if train else 1,
            seed=self.resolved_seed(),
            shuffle=train and shuffles(self.trainer),
        )

    def train_dataloader(self) -> PointLoader:
        return self.loader("train", train=True)

    def val_dataloader(self) -> PointLoader:
        return self.loader("val")

    def test_dataloader(self) -> PointLoader:
        return self.loader("test")

    def predict_dataloader(self) -> PointLoader:
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


class PointLoader:
    """Iterates over (x, y); takes the place of a DataLoader in a Trainer, which sets the epoch through ``sampler``.

    Args:
        points: On the device where the batches are wanted.
        batch_size: Points in a batch.
        passes: Times over all points in an epoch.
        seed: Orders the passes.
        shuffle: A new order each pass, where a batch is not all points.
    """

    def __init__(
        self, points: Points, *, batch_size: int, passes: int = 1, seed: int = 0, shuffle: bool = False
    ) -> None:
        self.points, self.batch_size, self.passes = points, batch_size, passes
        self.seed, self.shuffle = seed, shuffle
        self.epoch = 0
        self.dataset = TensorDataset(*points)
        self.sampler = self if shuffle else InOrder(self)  # the Trainer calls loader.sampler.set_epoch ...
        self.batch_sampler = None  # ... and asks for this one beside it

    @property
    def num_samples(self) -> int:
        """Points that a pass gives to this rank."""
        return len(self.points.x)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

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
