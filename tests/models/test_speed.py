"""Whitening of patches, and where it takes place."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from shared import quiet_trainer
from torch import Tensor, nn

from lightning_cifar.data import SyntheticDataModule
from lightning_cifar.models import SpeedNet
from lightning_cifar.models.speed import whitening_filters


def correlated_images(channels: int) -> Tensor:
    noise = torch.randn(40, channels, 20, 20, generator=torch.Generator().manual_seed(channels))
    return F.avg_pool2d(noise, 3, stride=1) + noise.mean(1, keepdim=True)[:, :, 1:-1, 1:-1]


@pytest.mark.parametrize("channels", [1, 3])
def test_filtered_patches_are_uncorrelated(channels: int) -> None:
    images = correlated_images(channels)
    filters = whitening_filters(images, eps=0.0)
    size = 4 * channels
    assert filters.shape == (2 * size, channels, 2, 2)
    assert torch.equal(filters[size:], -filters[:size])
    responses = F.conv2d(images, filters[:size]).transpose(0, 1).flatten(1).double()
    torch.testing.assert_close(
        responses @ responses.T / responses.shape[1], torch.eye(size).double(), atol=1e-4, rtol=0
    )


def test_eps_limits_the_amplification_of_noise() -> None:
    images = torch.zeros(2, 3, 8, 8)
    assert whitening_filters(images, eps=0.25).flatten(1).norm(dim=1).allclose(torch.tensor(2.0))


def test_number_of_parameters() -> None:
    model = SpeedNet()
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_972_792
    assert [name for name, each in model.network.named_parameters() if not each.requires_grad] == ["0.weight"]


@pytest.mark.parametrize(("widths", "size"), [((8, 8), 32), ((8, 8, 0), 32), ((8, 8, 8), 16)])
def test_settings_that_cannot_be(widths: tuple[int, ...], size: int) -> None:
    with pytest.raises(ValueError, match="widths"):
        SpeedNet(widths, image_size=size)


def test_a_training_starts_with_filters_of_its_data_and_a_resume_keeps_them(tmp_path: Path) -> None:
    data = SyntheticDataModule(num_train=16, num_val=0, num_test=1, batch_size=8, augment=[])

    def fit(model: SpeedNet, epochs: int, ckpt_path: str | None = None) -> Tensor:
        trainer = quiet_trainer(max_epochs=epochs, limit_val_batches=0)
        trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        first = model.network.get_submodule("0")
        assert isinstance(first, nn.Conv2d)
        return first.weight.detach().clone()

    filters = fit(SpeedNet((4, 4, 4), lr=0.01), 1)
    data.train_dataloader().set_epoch(0)
    images, _ = next(iter(data.train_dataloader()))
    assert torch.equal(filters, whitening_filters(images))
    assert torch.equal(fit(SpeedNet((4, 4, 4), lr=0.01), 2, str(tmp_path / "last.ckpt")), filters)
