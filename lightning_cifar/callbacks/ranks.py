"""What several processes see of one data set: the places of their samples, and the results of all of them."""

from __future__ import annotations

from typing import TypeVar

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DistributedSampler

T = TypeVar("T")


def places(trainer: Trainer, loader: object, seen: int, count: int) -> Tensor:
    """Places in the data set of the next samples of this process.

    Of R processes, process r gets the samples r, r + R, r + 2R, ... of the set, as DistributedSampler deals them out.

    Args:
        trainer: Its rank and number of processes are used where the loader has no DistributedSampler.
        loader: The data loader that gave the samples.
        seen: Samples of this loader that came before, on this process.
        count: Number of the next samples.

    Returns:
        int64 (count,) on the CPU; -1 for samples that a DistributedSampler repeats to give each process as many.
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
    """The values of all processes, by rank. All processes take part."""
    if trainer.world_size == 1 or not torch.distributed.is_initialized():
        return [value]
    values = [value] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values
