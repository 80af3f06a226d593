"""The split, the seeds and the errors of the image DataModules."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from shared import quiet_trainer

from lightning_cifar.data import CIFAR10DataModule, ImageDataModule, SyntheticDataModule
from lightning_cifar.data.image_datamodule import LabelledImages

SIZE = 300


class Numbered(ImageDataModule):
    """Each image encodes its number."""

    class_names = ("a", "b", "c")
    own_mean = (0.0, 0.0, 0.0)
    own_std = (1 / 255, 1 / 255, 1 / 255)  # normalised images are the grey levels themselves

    def load(self, part: str) -> LabelledImages:
        first = 0 if part == "train" else 10_000
        numbers = np.arange(first, first + (SIZE if part == "train" else 50))
        images = np.zeros((len(numbers), 32, 32, 3), np.uint8)
        images[..., 0], images[..., 1] = (numbers // 256)[:, None, None], (numbers % 256)[:, None, None]
        return LabelledImages(images, numbers % 3)


def numbers(loader: Any) -> list[int]:
    return [int(image[0, 0, 0].round() * 256 + image[1, 0, 0].round()) for images, _ in loader for image in images]


def make(**kwargs: Any) -> Numbered:
    return Numbered(**{"num_val": 100, "batch_size": 32, "seed": 0, **kwargs})


def test_splits_are_disjoint_and_complete() -> None:
    data = make()
    train, val, test = (
        numbers(loader) for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    )
    assert sorted(train + val) == list(range(SIZE))
    assert len(val) == 100
    assert test == list(range(10_000, 10_050))


def test_validation_does_not_depend_on_the_number_of_training_images_or_the_seed() -> None:
    reference = numbers(make().val_dataloader())
    assert numbers(make(num_train=20).val_dataloader()) == reference
    assert numbers(make(seed=9).val_dataloader()) == reference
    assert numbers(make(split_seed=1).val_dataloader()) != reference
    assert set(numbers(make(num_train=20).train_dataloader())) < set(numbers(make().train_dataloader()))


def test_the_seed_of_the_run_orders_the_epoch_and_is_in_the_checkpoint() -> None:
    torch.manual_seed(5)
    data = make(seed=None)
    order = numbers(data.train_dataloader())
    state = data.state_dict()
    torch.manual_seed(6)
    other = make(seed=None)
    assert numbers(other.train_dataloader()) != order
    other.load_state_dict(state)
    assert numbers(other.train_dataloader()) == order
    given = make(seed=8)
    given.load_state_dict(state)
    assert given.resolved_seed() == 8


def test_mean_and_std_can_be_replaced() -> None:
    images, _ = next(iter(make(mean=[0.5] * 3, std=[0.5] * 3).val_dataloader()))
    assert images.min() == -1


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"batch_size": 0}, r"batch_size \(=0\) must be at least 1"),
        ({"eval_batch_size": 0}, r"eval_batch_size \(=0\)"),
        ({"num_train": 0}, r"num_train \(=0\)"),
        ({"num_val": -1}, r"num_val \(=-1\)"),
        ({"mean": [0.5]}, r"mean \(=\(0.5,\)\) must have 3 values"),
        ({"std": [0.5, 0.0, 0.5]}, r"std .* must be above 0"),
        ({"augment": ["flipp"]}, "unknown augmentation 'flipp'. Did you mean flip"),
        ({"augment": [{"crop": {"pading": 4}}]}, "crop cannot be made from .*; its settings are padding, mode"),
        ({"augment": [{"crop": -1}]}, r"crop: padding \(=-1\)"),
        ({"augment": [{"flip": 1.5}]}, r"flip: p \(=1.5\)"),
        ({"augment": "flip"}, r"augment \(='flip'\) must be a list"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_loaded(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


def test_a_split_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match=r"num_train \(=250\) \+ num_val \(=100\) must lie within the 300"):
        make(num_train=250).setup("fit")
    with pytest.raises(ValueError, match=r"must not exceed the 50000"):
        SyntheticDataModule(num_train=50_000, num_val=1)


def test_a_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"crop: padding \(=40\) must be below the image size \(32 x 32"):
        make(augment=[{"crop": 40}]).train_dataloader()


def test_no_validation_split() -> None:
    data = make(num_val=0)
    assert data.val_dataloader() == []
    assert len(numbers(data.train_dataloader())) == SIZE


def test_missing_cifar10_names_the_fix(tmp_path: Path) -> None:
    data = CIFAR10DataModule(tmp_path)
    data.prepare_data()
    with pytest.raises(FileNotFoundError, match=r"--data.download true"):
        data.setup("fit")


def test_synthetic_test_images_are_not_training_images() -> None:
    data = SyntheticDataModule(num_train=200, num_val=50, num_test=60)
    data.setup()
    train, test = data.load("train").images, data.load("test").images
    assert len(test) == 60
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in test}


class Collect(pl.LightningModule):
    """Notes the labels of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.epochs: list[list[int]] = []

    def on_train_epoch_start(self) -> None:
        self.epochs.append([])

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.epochs[-1] += batch[1].tolist()
        return self.layer(torch.ones(1)).sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.0)


def test_a_plain_trainer_shuffles_each_epoch(tmp_path: Path) -> None:
    model = Collect()
    trainer = quiet_trainer(max_epochs=3, default_root_dir=tmp_path)
    trainer.fit(model, make())
    assert len(model.epochs) == 3
    assert model.epochs[0] != model.epochs[1] != model.epochs[2]
    assert sorted(model.epochs[0]) == sorted(model.epochs[2])
