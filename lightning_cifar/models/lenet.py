"""LeNet-5 and variants (LeCun et al., 1998, doi:10.1109/5.726791)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import nn

from lightning_cifar.ext.convolution import BackendName
from lightning_cifar.models.classifier import Classifier
from lightning_cifar.models.hand_made import HandConv2d, HandLinear, HandPool2d, HandReLU
from lightning_cifar.models.trainable import check_fraction, check_sizes


class LeNet(Classifier):
    """Two convolutions of 5 x 5 (6 and 16 filters), each followed by pooling, and fully connected layers.

    Number of parameters: 62,006 for 3 x 32 x 32 images, 44,426 for 1 x 28 x 28 images, and 34,622 for those with
    ``hidden=[120]``.

    Args:
        activation: Activation after each convolution and hidden layer.
        pooling: Kind of 2 x 2 pooling after each convolution.
        hidden: Sizes of the hidden fully connected layers.
        dropout: Dropout probability after each hidden layer.
        layers: ``library`` for torch's layers, ``hand_made`` for those of :mod:`lightning_cifar.ext`; the weights are
            interchangeable.
        backend: Backend of hand-made convolutions; None is the fastest available.
        **training: See :class:`~lightning_cifar.models.classifier.Classifier`.

    Raises:
        ValueError: If the images are smaller than 16 pixels, or a value is out of range.

    Example:
        >>> import torch
        >>> from lightning_cifar import LeNet
        >>> LeNet(num_classes=7, lr=0.05)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 7])
    """

    def __init__(
        self,
        activation: Literal["relu", "tanh"] = "relu",
        pooling: Literal["max", "average"] = "max",
        hidden: Sequence[int] = (120, 84),
        dropout: float = 0.0,
        layers: Literal["library", "hand_made"] = "library",
        backend: BackendName | None = None,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        hidden = tuple(hidden)
        self.save_hyperparameters()
        in_channels, size = self.in_channels, self.image_size
        if size < 16:
            raise ValueError(f"image_size (={size}) must be at least 16 pixels for LeNet.")
        check_sizes("hidden", hidden)
        check_fraction("dropout", dropout)
        act: Callable[[], nn.Module] = {"relu": nn.ReLU, "tanh": nn.Tanh}[activation]
        pool: Callable[[int], nn.Module] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}[pooling]
        convolution: Callable[..., nn.Module] = nn.Conv2d
        linear: Callable[[int, int], nn.Module] = nn.Linear
        if layers == "hand_made":
            convolution, linear = partial(HandConv2d, backend=backend), HandLinear
            act, pool = HandReLU if activation == "relu" else nn.Tanh, partial(HandPool2d, pooling)
        elif backend is not None:
            raise ValueError(f"backend (={backend}) applies to hand-made layers: set layers=hand_made too.")
        steps: list[nn.Module] = []
        for num_in, num_out in ((in_channels, 6), (6, 16)):
            steps.append(convolution(num_in, num_out, 5))
            # Activations are monotonic: after max pooling the result is the same, with a quarter of the work.
            steps += [pool(2), act()] if pooling == "max" else [act(), pool(2)]
        side = ((size - 4) // 2 - 4) // 2
        widths = (16 * side * side, *hidden)
        steps.append(nn.Flatten())
        for width, next_width in pairwise(widths):
            steps += [linear(width, next_width), act()]
            if dropout:
                steps.append(nn.Dropout(dropout))
        steps.append(linear(widths[-1], self.num_classes))
        self.network = nn.Sequential(*steps).to(memory_format=torch.channels_last)
