"""A small network of dilated, grouped and pointwise convolutions for CIFAR-10."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from lightning_cifar.models.classifier import Classifier
from lightning_cifar.models.trainable import check_fraction


class _Layer(NamedTuple):
    """One convolution and the layers after it."""

    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    batch_norm: bool = True
    relu: bool = True
    dropout_before: float = 0.0
    block: int = 1


def _layers(variant: Literal["187k", "191k"], num_classes: int) -> list[_Layer]:
    wide = variant == "191k"
    return [
        _Layer(16, padding=1, block=1),
        _Layer(32, block=1),
        _Layer(32, block=1),
        _Layer(128, dilation=1 if wide else 2, block=2, dropout_before=0.2 if wide else 0.0),
        _Layer(64, dilation=2 if wide else 1, block=2),
        _Layer(32, stride=2, padding=1, block=2),
        _Layer(128, groups=8, relu=False, block=3),
        _Layer(64, kernel=1, block=3),
        _Layer(32, block=3),
        _Layer(32, block=4, dropout_before=0.2 if wide else 0.1),
        _Layer(16, kernel=3 if wide else 1, relu=False, block=4),
        _Layer(num_classes, batch_norm=False, relu=False, block=4),
    ]


class DilatedNet(Classifier):
    """Network of twelve convolutions: one is dilated, and a grouped and a pointwise one together replace a full one.

    ``variant="187k"`` has 187,418 parameters (10 classes, 3 channels) and ends in 3 x 3 average pooling;
    ``variant="191k"`` has 191,514, the dilation is one layer later, and it has no pooling.

    Args:
        variant: ``187k`` or ``191k``.
        batch_norm: Whether to use batch normalisation.
        dropout: Probability of dropping each channel, at one place in ``187k`` and two in ``191k``. None is 0.1 and
            0.2.
        **training: See :class:`~lightning_cifar.models.classifier.Classifier`.

    Raises:
        ValueError: If the images do not have 32 x 32 pixels, or the probability is out of range.

    Example:
        >>> import torch
        >>> from lightning_cifar import DilatedNet
        >>> DilatedNet().eval()(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """

    def __init__(
        self,
        variant: Literal["187k", "191k"] = "187k",
        batch_norm: bool = True,
        dropout: float | None = None,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        self.save_hyperparameters()
        in_channels, size = self.in_channels, self.image_size
        if size != 32:
            raise ValueError(f"image_size (={size}) must be 32 pixels for DilatedNet.")
        if dropout is not None:
            check_fraction("dropout", dropout)
        blocks: list[list[nn.Module]] = [[], [], [], []]
        for layer in _layers(variant, self.num_classes):
            modules = blocks[layer.block - 1]
            probability = layer.dropout_before if dropout is None else dropout
            if layer.dropout_before and probability:
                modules.append(nn.Dropout2d(probability))
            modules.append(
                nn.Conv2d(
                    in_channels,
                    layer.channels,
                    layer.kernel,
                    stride=layer.stride,
                    padding=layer.padding,
                    dilation=layer.dilation,
                    groups=layer.groups,
                )
            )
            if batch_norm and layer.batch_norm:
                modules.append(nn.BatchNorm2d(layer.channels))
            if layer.relu:
                modules.append(nn.ReLU(inplace=True))
            in_channels = layer.channels
        if variant == "187k":
            blocks[-1].append(nn.AvgPool2d(3))
        blocks[-1].append(nn.Flatten())
        network = nn.Sequential(*(nn.Sequential(*modules) for modules in blocks))
        self.network = network.to(memory_format=torch.channels_last)
