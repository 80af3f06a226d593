"""A batch is a pure function of (seed, epoch, indices)."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_cifar.data.augment import Pipeline, build
from lightning_cifar.data.batches import BatchLoader

IMAGES = torch.arange(101 * 8 * 6 * 3).mul(7919).remainder(251).to(torch.uint8).view(101, 8, 6, 3)
LABELS = torch.arange(101)
AUGMENT = ["flip", {"crop": 2}, {"cutout": 3}]


def loader(augment: list[Any] | None = None, **kwargs: Any) -> BatchLoader:
    pipeline = Pipeline(build(AUGMENT if augment is None else augment), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    return BatchLoader(IMAGES, LABELS, pipeline=pipeline, **{"batch_size": 16, "shuffle": True, "seed": 3, **kwargs})


def by_label(batches: BatchLoader) -> dict[int, Tensor]:
    return {int(label): image for images, labels in batches for image, label in zip(images, labels, strict=True)}


def test_epochs_and_seeds_differ_and_repeat() -> None:
    first = [labels.tolist() for _, labels in loader()]
    again = loader()
    assert [labels.tolist() for _, labels in again] == first
    again.set_epoch(1)
    assert [labels.tolist() for _, labels in again] != first
    assert [labels.tolist() for _, labels in loader(seed=4)] != first


def test_an_epoch_can_begin_twice_at_once() -> None:
    batches = loader()
    for (one, _), (other, _) in zip(batches, batches, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("world_size", [2, 3])
def test_all_ranks_together_have_the_batches_of_one_process(world_size: int) -> None:
    alone = by_label(loader(batch_size=8 * world_size))
    ranks = [loader(batch_size=8, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert len({len(rank) for rank in ranks}) == 1
    shared: dict[int, Tensor] = {}
    for rank in ranks:
        part = by_label(rank)
        assert not shared.keys() & part.keys()
        shared |= part
    assert len(shared) == 101 // world_size * world_size
    assert all(torch.equal(alone[label], image) for label, image in shared.items())
    first = torch.cat([next(iter(rank))[1] for rank in ranks]).sort().values
    assert torch.equal(first, next(iter(loader(batch_size=8 * world_size)))[1].sort().values)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_gives_each_sample_once_in_order(world_size: int) -> None:
    ranks = [loader(augment=[], shuffle=False, rank=rank, world_size=world_size) for rank in range(world_size)]
    seen = torch.cat([labels for rank in ranks for _, labels in rank])
    assert torch.equal(seen.sort().values, LABELS)
    for rank in ranks:
        assert len(rank) == len(list(rank))


def test_batches_are_normalised_and_channels_last() -> None:
    images, labels = next(iter(loader(augment=[], shuffle=False)))
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4])
    expected = ((IMAGES[:16].float() / 255 - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(images, expected, atol=1e-6, rtol=1e-6)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images.dtype == torch.float32
    assert torch.equal(labels, LABELS[:16])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"batch_size": 0}, r"batch_size \(=0\) must be at least 1"),
        ({"num_views": 0}, r"num_views \(=0\) must be at least 1"),
        ({"world_size": 200}, "101 samples cannot be shared by 200 processes"),
    ],
)
def test_impossible_loaders_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loader(**kwargs)


def test_views_repeat_while_the_order_does_not() -> None:
    batches, plain = loader(num_views=2), loader()
    assert (batches.num_versions, plain.num_versions, loader(augment=[]).num_versions) == (2, None, 1)
    seen, orders = [], []
    for epoch in range(4):
        batches.set_epoch(epoch)
        seen.append(by_label(batches))
        orders.append([int(label) for _, labels in batches for label in labels])
    assert all(torch.equal(seen[0][label], seen[2][label]) for label in seen[0])
    assert all(torch.equal(seen[1][label], seen[3][label]) for label in seen[0])
    assert not all(torch.equal(seen[0][label], seen[1][label]) for label in seen[0])
    assert len(set(map(tuple, orders))) == 4
    assert all(torch.equal(value, seen[0][label]) for label, value in by_label(plain).items())
