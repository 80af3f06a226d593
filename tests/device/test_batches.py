"""Batches are made on the device of the images, without a wait for it."""

from typing import Any

import pytest
import torch

from lightning_cifar.data.augment import BY_NAME, Pipeline, build
from lightning_cifar.data.batches import BatchLoader

VARIANTS: list[Any] = [
    [],
    *([name] for name in BY_NAME if name != "trivial_augment"),
    [{"trivial_augment": 2}],  # few strengths make small tables
    ["flip", {"crop": 4}, "flip", "crop"],
    [{"crop": 2}, {"flip": {"alternating": True}}],
    [{"crop": {"padding": 4, "mode": "zero"}}, {"erasing": {"fill": 3}}],
    [{"cutout": {"size": 8, "p": 0.5}}, {"cutout": {"size": 8, "fill": 0}}],
]


@pytest.mark.parametrize("device", ["cuda"], indirect=True)
@pytest.mark.parametrize("augment", VARIANTS, ids=str)
def test_no_augmentation_waits_for_the_device(augment: list[Any], device: Any) -> None:
    images = torch.zeros(8, 32, 32, 3, dtype=torch.uint8, device=device.device)
    labels = torch.zeros(8, dtype=torch.int64, device=device.device)
    pipeline = Pipeline(build(augment), mean=(0.5,) * 3, std=(0.2,) * 3)
    loader = BatchLoader(images, labels, pipeline=pipeline, batch_size=3, shuffle=True)
    list(loader)  # tables are made once
    device.clear()
    loader.set_epoch(1)
    for x, y in loader:
        assert x.device.type == y.device.type == device.device.type
        assert x.dtype == torch.float32
        assert x.is_contiguous(memory_format=torch.channels_last)
    assert device.waits == device.doubles == []
