"""The samples of several processes together are the data set: each sample once, at its index."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch.utils.data import BatchSampler, DistributedSampler

from lightning_cifar.callbacks.ranks import places
from lightning_cifar.data.augment import Pipeline
from lightning_cifar.data.batches import BatchLoader


def seen(loader: Any, samples: list[int], rank: int, ranks: int, batch_size: int = 3) -> dict[int, int]:
    """Sample and index, in the order of the batches of a process."""
    trainer: Any = SimpleNamespace(global_rank=rank, world_size=ranks)
    found: dict[int, int] = {}
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        for place, sample in zip(places(trainer, loader, start, len(batch)).tolist(), batch, strict=True):
            if place >= 0:
                assert place not in found
                found[place] = sample
    return found


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [4, 7, 8, 11])
@pytest.mark.parametrize("kind", ["padded", "shuffled", "predict", "own"])
def test_each_sample_once_and_at_its_place(ranks: int, size: int, kind: str) -> None:
    together: dict[int, int] = {}
    for rank in range(ranks):
        dataset: Any = range(size)
        loader: Any
        if kind == "own":
            images, labels = torch.zeros(size, 2, 2, 3, dtype=torch.uint8), torch.arange(size)
            pipeline = Pipeline([], mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
            loader = BatchLoader(images, labels, pipeline=pipeline, batch_size=3, rank=rank, world_size=ranks)
            samples = loader.order().tolist()
        elif kind == "predict":  # Lightning leaves the loader's sampler as it was
            unrepeated = UnrepeatedDistributedSampler(dataset, ranks, rank, shuffle=False)
            loader = SimpleNamespace(sampler=None, batch_sampler=BatchSampler(unrepeated, 3, drop_last=False))
            samples = list(unrepeated)  # type: ignore[arg-type]
        else:
            sampler: Any = DistributedSampler(dataset, ranks, rank, shuffle=kind == "shuffled")
            loader, samples = SimpleNamespace(sampler=sampler), list(sampler)
        part = seen(loader, samples, rank, ranks)
        assert not part.keys() & together.keys()
        together |= part
    assert sorted(together) == sorted(together.values()) == list(range(size))
    if kind != "shuffled":
        assert all(place == sample for place, sample in together.items())
