"""A small network that trains fast on a GPU, in the style of airbench (Jordan, arXiv:2404.00498)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cifar.models.classifier import Classifier
from lightning_cifar.models.trainable import check_sizes

PATCH = 2
"""Height and width of the patches of the first layer, in pixels."""


def whitening_filters(images: Tensor, eps: float = 5e-4) -> Tensor:
    """Return filters that make the pixels of a patch uncorrelated, each with its negative.

    The filters are the eigenvectors of the covariance of all 2 x 2 patches, divided by the root of their eigenvalues.

    Args:
        images: (N, C, H, W), normalised.
        eps: Number added to the eigenvalues, which limits the amplification of noise.

    Returns:
        (2 * C * 4, C, 2, 2), on the CPU.

    Example:
        >>> filters = whitening_filters(torch.rand(8, 3, 16, 16))
        >>> filters.shape
        torch.Size([24, 3, 2, 2])
    """
    patches = F.unfold(images.detach().cpu().double(), PATCH).transpose(1, 2).flatten(0, 1)  # (patches, C * 4)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / (values + eps).sqrt()).T.reshape(-1, images.shape[1], PATCH, PATCH).float()
    return torch.cat([filters, -filters])


class SpeedNet(Classifier):
    """A network in the style of airbench94: whitened patches, then three blocks of two convolutions each.

    The first layer is frozen: at the start of a training run, ``whitening_filters`` of the first batch replace its
    initial weights. Differences from airbench: the bias of the first layer is trained with the learning rate of all,
    the weights have torch's initial values, and there is no average over flipped and shifted test images.

    Args:
        widths: Channels of the three blocks. (64, 256, 256) are those of airbench94, with 1.97 million parameters.
        scale: Factor of the logits.
        **training: See :class:`~lightning_cifar.models.classifier.Classifier`.

    Raises:
        ValueError: If a value is out of range.

    Example:
        >>> SpeedNet(widths=(8, 16, 16))(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, widths: Sequence[int] = (64, 256, 256), scale: float = 1 / 9, **training: Any) -> None:
        super().__init__(**training)
        check_sizes("widths", widths)
        if len(widths) != 3 or self.image_size < 24:
            raise ValueError(
                f"widths (={list(widths)}) must be 3 numbers, and images at least 24 pixels, not {self.image_size}."
            )
        self.save_hyperparameters()
        first = nn.Conv2d(self.in_channels, 2 * self.in_channels * PATCH**2, PATCH)
        first.weight.requires_grad_(False)
        layers: list[nn.Module] = [first, nn.GELU()]
        num_in = first.out_channels
        for width in widths:
            layers += [nn.Conv2d(num_in, width, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(width)]
            layers += [nn.GELU(), nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.GELU()]
            num_in = width
        head = [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(num_in, self.num_classes, bias=False)]
        self.network = nn.Sequential(*layers, *head).to(memory_format=torch.channels_last)
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes) of images (N, C, H, W)."""
        return self.scale * super().forward(images)

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.global_step == 0:
            loader: Any = self.trainer.train_dataloader
            images, _ = next(iter(loader))
            first = self.network.get_submodule("0")
            assert isinstance(first, nn.Conv2d)
            with torch.no_grad():
                first.weight.copy_(whitening_filters(images))
