"""A checkpoint contains the network, the names of its classes, and the normalisation of its images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_cifar.checkpoints.trained import load_trained
from lightning_cifar.data import SyntheticDataModule
from lightning_cifar.models import LeNet

Content = dict[str, Any]


@pytest.fixture
def content() -> Content:
    """What a run's checkpoint holds of this."""
    model = LeNet(activation="tanh")
    return {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "class_path": "lightning_cifar.models.lenet.LeNet",
        "epoch": 4,
        "SyntheticDataModule": {"seed": 0},
        "lightning_cifar_config": "data: {class_path: lightning_cifar.data.SyntheticDataModule, init_args: "
        "{mean: [0.4, 0.5, 0.6], num_train: 64, augment: [flip]}}",
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.ckpt"


def test_content_of_a_checkpoint(content: Content, path: Path) -> None:
    torch.save(content, path)
    trained = load_trained(path)
    assert trained.class_names == SyntheticDataModule.class_names
    assert (trained.mean, trained.std) == ((0.4, 0.5, 0.6), (0.25, 0.25, 0.25))
    assert (trained.epochs, trained.notes) == (5, ())
    assert trained.model.hparams["activation"] == "tanh"
    assert not any(module.training for module in trained.model.modules())
    for name, value in trained.model.state_dict().items():
        assert torch.equal(value.cpu(), content["state_dict"][name])


def test_a_checkpoint_of_python_has_the_default_normalisation(content: Content, path: Path) -> None:
    del content["lightning_cifar_config"]
    torch.save(content, path)
    trained = load_trained(path)
    assert trained.mean == (0.5, 0.5, 0.5)
    assert "normalised as SyntheticDataModule does by default" in trained.notes[0]


def test_the_data_are_not_needed(content: Content, path: Path) -> None:
    content["lightning_cifar_config"] = (
        "data: {class_path: lightning_cifar.data.CIFAR10DataModule, init_args: {root: /nowhere/at/all, "
        "albumentations: /nowhere/pipeline.yaml, augment: [flip], std: [1.0, 1.0, 1.0]}}"
    )
    torch.save(content, path)
    trained = load_trained(path)
    assert trained.class_names[3] == "cat"
    assert (trained.mean, trained.std) == ((0.4914, 0.4822, 0.4465), (1.0, 1.0, 1.0))


def test_outputs_without_names_are_numbered(content: Content, path: Path) -> None:
    model = LeNet(num_classes=4)
    torch.save(content | {"state_dict": model.state_dict(), "hyper_parameters": {"num_classes": 4}}, path)
    trained = load_trained(path)
    assert trained.class_names == ("class 0", "class 1", "class 2", "class 3")
    assert "but the network has 4" in trained.notes[0]
