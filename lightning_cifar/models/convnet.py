"""Plain convolutional networks: a sequence of convolutions, then fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from torch import nn

from lightning_cifar.models.classifier import Classifier
from lightning_cifar.models.trainable import check_fraction, check_sizes

Activation: TypeAlias = Literal["relu", "tanh"]
Pooling: TypeAlias = Literal["none", "max", "average"]
T = TypeVar("T", int, float, bool, str)


class ConvNet(Classifier):
    """Convolutions with optional batch normalisation, pooling and dropout, then fully connected layers.

    A single value applies to every convolution; a list has one entry for each. Layers are called
    ``network.conv_1``, ``norm_1``, ``activation_1``, ``pool_1``, ``dropout_1``, ``conv_2``, ..., ``flatten``,
    ``norm_flat``, ``linear_1``, ..., ``output``. Number of parameters: 4,281 with ``channels=[3, 6], kernels=[5, 3],
    pooling=average, hidden=[25]`` on 1 x 28 x 28 images.

    Args:
        channels: Number of filters of each convolution.
        kernels: Kernel size in pixels.
        strides: Stride in pixels.
        paddings: Zero padding on each side, in pixels.
        batch_norm: Batch normalisation (Ioffe & Szegedy, 1502.03167) between convolution and activation.
        activation: Activation after each convolution and hidden layer.
        pooling: Kind of 2 x 2 pooling after the activation.
        dropout: Dropout probability after the pooling.
        flat_norm: Batch normalisation of the flattened output of the convolutions.
        hidden: Sizes of the hidden fully connected layers.
        **training: See :class:`~lightning_cifar.models.classifier.Classifier`.

    Raises:
        ValueError: If a value is out of range, a list has another length than ``channels``, or the image is too small.

    Example:
        >>> from lightning_cifar import ConvNet
        >>> model = ConvNet([3, 6], kernels=[5, 3], pooling="average", hidden=[25], in_channels=1, image_size=28)
        >>> sum(parameter.numel() for parameter in model.parameters())
        4281
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64),
        kernels: int | Sequence[int] = 3,
        strides: int | Sequence[int] = 1,
        paddings: int | Sequence[int] = 0,
        batch_norm: bool | Sequence[bool] = False,
        activation: Activation = "relu",
        pooling: Pooling | Sequence[Pooling] = "max",
        dropout: float | Sequence[float] = 0.0,
        flat_norm: bool = False,
        hidden: Sequence[int] = (64,),
        **training: Any,
    ) -> None:
        super().__init__(**training)
        self.save_hyperparameters()
        if not channels:
            raise ValueError("channels (=[]) must contain at least one convolution.")
        num = len(channels)
        layers = zip(
            channels,
            _for_each("kernels", kernels, num),
            _for_each("strides", strides, num),
            _for_each("paddings", paddings, num),
            _for_each("batch_norm", batch_norm, num),
            _for_each("pooling", pooling, num),
            _for_each("dropout", dropout, num),
            strict=True,
        )
        act = nn.ReLU if activation == "relu" else nn.Tanh
        network = nn.Sequential()
        num_in, side = self.in_channels, self.image_size
        for i, (num_out, kernel, stride, padding, norm, pool, probability) in enumerate(layers, start=1):
            for name, value in {"channels": num_out, "kernels": kernel, "strides": stride}.items():
                if value < 1:
                    raise ValueError(f"{name} (={value}) must be at least 1.")
            if padding < 0:
                raise ValueError(f"paddings (={padding}) must be at least 0.")
            check_fraction("dropout", probability)
            network.add_module(f"conv_{i}", nn.Conv2d(num_in, num_out, kernel, stride=stride, padding=padding))
            if norm:
                network.add_module(f"norm_{i}", nn.BatchNorm2d(num_out))
            # Activations are monotonic: after max pooling the result is the same, with a quarter of the work.
            if pool == "max":
                network.add_module(f"pool_{i}", nn.MaxPool2d(2))
            network.add_module(f"activation_{i}", act())
            if pool == "average":
                network.add_module(f"pool_{i}", nn.AvgPool2d(2))
            if probability:
                network.add_module(f"dropout_{i}", nn.Dropout(probability))
            side = ((side + 2 * padding - kernel) // stride + 1) // (1 if pool == "none" else 2)
            if side < 1:
                raise ValueError(f"image_size (={self.image_size}) is too small for convolution {i} and its pooling.")
            num_in = num_out
        check_sizes("hidden", hidden)
        network.add_module("flatten", nn.Flatten())
        sizes = (num_in * side * side, *hidden)
        if flat_norm:
            network.add_module("norm_flat", nn.BatchNorm1d(sizes[0]))
        for i, (size, next_size) in enumerate(pairwise(sizes), start=1):
            network.add_module(f"linear_{i}", nn.Linear(size, next_size))
            network.add_module(f"activation_flat_{i}", act())
        network.add_module("output", nn.Linear(sizes[-1], self.num_classes))
        self.network = network.to(memory_format=torch.channels_last)


def _for_each(name: str, value: T | Sequence[T], num: int) -> Sequence[T]:
    """Return one entry for each convolution."""
    if isinstance(value, int | float | bool | str):
        return [value] * num
    if len(value) != num:
        raise ValueError(f"{name} (={list(value)}) must be one value, or {num} entries, one for each of channels.")
    return value
