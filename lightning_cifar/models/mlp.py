"""Fully connected networks for classification and regression."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from lightning_cifar.models.classifier import Classifier
from lightning_cifar.models.regressor import Regressor
from lightning_cifar.models.trainable import check_fraction, check_sizes

Activation: TypeAlias = Literal["relu", "tanh", "gelu", "sigmoid"]
DropoutPlace: TypeAlias = Literal["before_activation", "after_activation"]

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
}


class MLP(Classifier):
    """Fully connected classifier of flattened images.

    The layers are called ``network.linear_1``, ``norm_1``, ``dropout_1``, ``activation_1``, ``linear_2``, ...,
    ``output``. Number of parameters for 1 x 28 x 28 images and 10 classes: 39,106 with ``hidden_sizes=[48, 24]`` and
    39,250 with ``batch_norm``. ``hidden_sizes=[]`` is the linear classifier (30,730 for 3 x 32 x 32) and
    ``hidden_sizes=[64]`` a two-layer network (197,322).

    Args:
        hidden_sizes: Widths of the hidden layers.
        activation: Activation after each hidden layer.
        batch_norm: Batch normalisation (Ioffe & Szegedy, 1502.03167) before each activation.
        dropout: Dropout probability of each hidden layer (Srivastava et al., 2014).
        dropout_place: Before or after the activation. With ReLU the two are equivalent.
        **training: See :class:`~lightning_cifar.models.classifier.Classifier`.

    Raises:
        ValueError: If a size is below 1 or the probability is out of range.

    Example:
        >>> from lightning_cifar import MLP
        >>> model = MLP([64])
        >>> sum(parameter.numel() for parameter in model.parameters())
        197322
    """

    def __init__(
        self,
        hidden_sizes: Sequence[int] = (48, 24),
        activation: Activation = "relu",
        batch_norm: bool = False,
        dropout: float = 0.0,
        dropout_place: DropoutPlace = "after_activation",
        **training: Any,
    ) -> None:
        super().__init__(**training)
        hidden_sizes = tuple(hidden_sizes)
        self.save_hyperparameters()
        num_in = self.in_channels * self.image_size**2
        sizes = (num_in, *hidden_sizes, self.num_classes)
        self.network = nn.Sequential()
        self.network.add_module("flatten", nn.Flatten())
        _add_layers(self.network, sizes, activation, batch_norm, dropout, dropout_place)


class MLPRegressor(Regressor):
    """Fully connected regressor with mean squared error. Its layers have the names of those of ``MLP``.

    Number of parameters: 10,401 with ``hidden_sizes=[100, 100]`` and one input and output.

    Args:
        hidden_sizes: Widths of the hidden layers.
        activation: Activation after each hidden layer.
        batch_norm: Batch normalisation before each activation.
        dropout: Dropout probability of each hidden layer.
        dropout_place: Before or after the activation.
        in_features: Number of inputs.
        out_features: Number of outputs.
        **training: See :class:`~lightning_cifar.models.trainable.Trainable`.

    Raises:
        ValueError: If a size is below 1 or the probability is out of range.

    Example:
        >>> import torch
        >>> from lightning_cifar import MLPRegressor
        >>> MLPRegressor([8], in_features=2)(torch.zeros(5, 2)).shape
        torch.Size([5, 1])
    """

    def __init__(
        self,
        hidden_sizes: Sequence[int] = (100, 100),
        activation: Activation = "relu",
        batch_norm: bool = False,
        dropout: float = 0.0,
        dropout_place: DropoutPlace = "after_activation",
        in_features: int = 1,
        out_features: int = 1,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        hidden_sizes = tuple(hidden_sizes)
        self.save_hyperparameters()
        for name, value in {"in_features": in_features, "out_features": out_features}.items():
            if value < 1:
                raise ValueError(f"{name} (={value}) must be at least 1.")
        self.example_input_array = torch.zeros(1, in_features)
        sizes = (in_features, *hidden_sizes, out_features)
        self.network = nn.Sequential()
        _add_layers(self.network, sizes, activation, batch_norm, dropout, dropout_place)


def _add_layers(
    network: nn.Sequential,
    sizes: Sequence[int],
    activation: Activation,
    batch_norm: bool,
    dropout: float,
    dropout_place: DropoutPlace,
) -> None:
    """Add the layers from ``sizes[0]`` inputs to ``sizes[-1]`` outputs."""
    check_sizes("hidden_sizes", sizes[1:-1])
    check_fraction("dropout", dropout)
    for i, (size, next_size) in enumerate(pairwise(sizes[:-1]), start=1):
        network.add_module(f"linear_{i}", nn.Linear(size, next_size))
        if batch_norm:
            network.add_module(f"norm_{i}", nn.BatchNorm1d(next_size))
        if dropout and dropout_place == "before_activation":
            network.add_module(f"dropout_{i}", nn.Dropout(dropout))
        network.add_module(f"activation_{i}", _ACTIVATIONS[activation]())
        if dropout and dropout_place == "after_activation":
            network.add_module(f"dropout_{i}", nn.Dropout(dropout))
    network.add_module("output", nn.Linear(sizes[-2], sizes[-1]))
