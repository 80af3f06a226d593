"""The DataModules of grey 28 x 28 images: split, normalisation, and every augmentation on one channel."""

import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from lightning_cifar.data import FashionMNISTDataModule, MNISTDataModule
from lightning_cifar.data.augment import BY_NAME, Pipeline, build
from lightning_cifar.data.geometry import Samples
from lightning_cifar.data.sources import MNIST, IdxSource

NUM_TRAIN, NUM_TEST = 60, 20


class SmallMNIST(MNISTDataModule):
    """MNIST with fewer images."""

    source: ClassVar[IdxSource] = MNIST._replace(num_train=NUM_TRAIN, num_test=NUM_TEST)


def blobs(count: int) -> Any:
    """Return smooth images, so that interpolated ones can be compared."""
    y, x = np.mgrid[:28, :28]
    place = np.random.default_rng(0).uniform(8, 20, (count, 2))
    distance = (x - place[:, :1, None]) ** 2 + (y - place[:, 1:, None]) ** 2
    return (255 * np.exp(-distance / 40)).astype(np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, count in (("train", NUM_TRAIN), ("t10k", NUM_TEST)):
        header = struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + blobs(count).tobytes())
        numbers = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, count) + numbers.tobytes())
    return tmp_path


def make(root: Path, **settings: Any) -> SmallMNIST:
    return SmallMNIST(root, **{"verify": False, "num_val": 12, "batch_size": 16, "seed": 0, **settings})


def test_batches_are_grey_normalised_and_complete(root: Path) -> None:
    data = make(root)
    batches = list(data.train_dataloader())
    images, labels = (torch.cat(part) for part in zip(*batches, strict=True))
    assert images.shape == (48, 1, 28, 28)
    assert labels.dtype == torch.int64
    assert sum(len(y) for _, y in data.val_dataloader()) == 12
    test_images, test_labels = next(iter(data.test_dataloader()))
    assert test_labels.tolist() == [i % 10 for i in range(NUM_TEST)]
    expected = (torch.from_numpy(blobs(NUM_TEST)) / 255 - 0.1307) / 0.3081
    torch.testing.assert_close(test_images[:, 0], expected)


def test_no_augmentation_by_default(root: Path) -> None:
    pixels = {image.tobytes() for image in blobs(NUM_TRAIN)}
    images = torch.cat([x for x, _ in make(root, mean=[0.0], std=[1 / 255]).train_dataloader()])
    assert {image.numpy().round().astype(np.uint8).tobytes() for image in images} < pixels


def test_attributes_for_the_model() -> None:
    for kind in (MNISTDataModule, FashionMNISTDataModule):
        data = kind()
        assert (data.num_classes, data.in_channels, data.image_size, data.num_val) == (10, 1, 28, 5000)
        assert not any("/" in name for name in data.class_names)  # a level in the name of a metric


def test_the_two_data_sets_have_different_folders(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"FashionMNIST was not found .*FashionMNIST/raw"):
        FashionMNISTDataModule(root).setup("test")


def test_a_split_larger_than_the_data_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"num_train \(=0\) \+ num_val \(=60\) must lie within the 60"):
        make(root, num_val=60).setup("fit")


@pytest.mark.parametrize("name", BY_NAME)
def test_a_grey_image_is_augmented_like_three_equal_channels(name: str) -> None:
    grey = torch.from_numpy(blobs(64))[..., None]
    results = []
    for images, channels in ((grey, 1), (grey.expand(-1, -1, -1, 3).contiguous(), 3)):
        pipeline = Pipeline(build([name]), mean=[0.5] * channels, std=[0.5] * channels)
        pipeline.load(images)
        indices = torch.arange(64)
        results.append(pipeline.augment(Samples(1, 2, indices), pipeline.draw(1, 2, indices)))
    one, three = results
    assert one.shape == (64, 28, 28, 1)
    assert one.dtype == torch.uint8
    if name not in ("saturation", "grayscale"):
        assert not torch.equal(one, grey)
    # Three equal channels have a grey level that is up to 1 lower, by the sum of its weights, 0.9999.
    difference = (one.int() - three.int()).abs()
    assert difference.max() <= (0 if name in ("flip", "crop", "cutout", "erasing") else 2)


def test_augmentations_that_do_not_fit_are_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"crop: padding \(=28\) must be below the image size \(28 x 28 pixels\)"):
        make(root, augment=[{"crop": 28}])
    with pytest.raises(ValueError, match=r"cutout: size \(=29\) must not exceed the image size \(28 x 28 pixels\)"):
        make(root, augment=[{"cutout": 29}])
    with pytest.raises(ValueError, match=r"mean \(=\(0.5, 0.5, 0.5\)\) must have 1 values"):
        make(root, mean=[0.5] * 3)


def test_albumentations_takes_grey_images(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("albumentations")
    path = tmp_path / "pipeline.yaml"
    path.write_text("- HorizontalFlip: {p: 1}\n- CoarseDropout: {p: 0}\n")
    plain = torch.cat([x for x, _ in make(root).train_dataloader()])
    flipped = torch.cat([x for x, _ in make(root, albumentations=str(path)).train_dataloader()])
    torch.testing.assert_close(flipped, plain.flip(3))
