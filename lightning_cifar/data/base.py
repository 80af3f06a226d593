"""Base classes of the DataModules and of their batch loaders."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import SequentialSampler, TensorDataset

from lightning_cifar.data.split_folders import Split


def shuffles(trainer: pl.Trainer | None) -> bool:
    """Return whether training batches have a new order in each epoch: False with ``overfit_batches``.

    The Trainer turns shuffling off by replacing the sampler of a DataLoader, which these loaders do not have.
    """
    return not getattr(trainer, "overfit_batches", 0)  # Lightning sets it untyped


class SeededLoaders:
    """Mixin of the DataModules: all loaders come from one method, and a resumed run has the same seed."""

    trainer: pl.Trainer | None
    seed: int | None
    _run_seed: int | None = None

    def loader(self, split: Split, *, train: bool = False) -> Any:
        """Return the batches of a split: in order and unchanged, or shuffled and augmented for training."""
        raise NotImplementedError

    def train_dataloader(self) -> Any:
        return self.loader("train", train=True)

    def val_dataloader(self) -> Any:
        return self.loader("val")

    def test_dataloader(self) -> Any:
        return self.loader("test")

    def predict_dataloader(self) -> Any:
        return self.loader("test")

    def placement(self) -> tuple[torch.device, int, int]:
        """Return the Trainer's device, rank and world size; without a Trainer, the CPU, 0 and 1."""
        if self.trainer is None:
            return torch.device("cpu"), 0, 1
        return self.trainer.strategy.root_device, self.trainer.global_rank, self.trainer.world_size

    def resolved_seed(self) -> int:
        """Return ``seed``, or the seed of the run, which is fixed at its first use."""
        if self.seed is not None:
            return self.seed
        if self._run_seed is None:
            self._run_seed = torch.initial_seed()
        return self._run_seed

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to see the same batches."""
        return {"seed": self.resolved_seed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._run_seed = int(state_dict["seed"])  # an explicit ``seed`` has priority


class EpochLoader:
    """Base of the loaders that take the place of a DataLoader; the Trainer sets the epoch through ``sampler``.

    Args:
        dataset: The whole data, on the device of the batches.
        seed: Seed of the orders.
        shuffle: Whether each epoch has a new order.
    """

    batch_sampler = None  # the Trainer reads it

    def __init__(self, dataset: TensorDataset, *, seed: int, shuffle: bool) -> None:
        self.dataset, self.seed, self.shuffle = dataset, seed, shuffle
        self.epoch = 0
        self.sampler = self if shuffle else InOrder(self)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order and augmentations the next iteration has."""
        self.epoch = epoch


class InOrder(SequentialSampler):
    """Sampler by which the Trainer recognises a loader that does not shuffle; it passes the epoch on."""

    def __init__(self, loader: EpochLoader) -> None:
        super().__init__(loader.dataset)
        self._loader = loader

    def set_epoch(self, epoch: int) -> None:
        self._loader.set_epoch(epoch)
