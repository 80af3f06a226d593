"""Distributed evaluation: dataset indices of the samples of each process, and results gathered from all processes."""

from __future__ import annotations

from typing import TypeVar

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DistributedSampler

T = TypeVar("T")


def places(trainer: Trainer, loader: object, seen: int, count: int) -> Tensor:
    """Return the dataset indices of the next samples of this process.

    Of R processes, process r evaluates the samples r, r + R, r + 2R, ..., as in DistributedSampler.

    Args:
        trainer: its rank and number of processes are used if the loader has no DistributedSampler.
        loader: the data loader of the samples.
        seen: number of samples of this loader that this process has evaluated before.
        count: number of the next samples.

    Returns:
        int64 (count,) on the CPU; -1 for samples that a DistributedSampler repeats to make the shares equal.
    """
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler):  # in predict, Lightning hides it in the batch sampler
        sampler = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    if not isinstance(sampler, DistributedSampler):
        return torch.arange(seen, seen + count) * trainer.world_size + trainer.global_rank
    found = torch.arange(seen, seen + count) * sampler.num_replicas + sampler.rank
    size = len(sampler.dataset)  # type: ignore[arg-type]
    return torch.where(found < size, found, -1)


def gather(trainer: Trainer, value: T) -> list[T]:
    """Return the values of all processes, by rank. Must be called on all ranks."""
    if trainer.world_size == 1 or not torch.distributed.is_initialized():
        return [value]
    values = [value] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values
