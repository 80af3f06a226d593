"""Features of images: the values in front of the last layer, or behind a named one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_cifar.analysis.layers import recorded
from lightning_cifar.analysis.modes import evaluation


def last_layer(model: nn.Module) -> str:
    """Return the name of the last linear layer or convolution, in the order in which the model defines them.

    Raises:
        ValueError: The model has neither.
    """
    kinds = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    found: list[str] = [name for name, layer in model.named_modules() if isinstance(layer, kinds) and name]
    if not found:
        raise ValueError(f"{type(model).__name__} has no linear layer or convolution: name a layer")
    return found[-1]


def features_and_outputs(model: nn.Module, images: Tensor, layer: str | None = None) -> tuple[Tensor, Tensor]:
    """Compute the features (N, D) and the outputs (N, ...) of images in evaluation mode, without gradients.

    Args:
        model: Network on the device of the images; it is unchanged afterwards.
        images: (N, ...), inputs of the network.
        layer: Layer whose output is returned; None returns the input of :func:`last_layer`.

    Raises:
        ValueError: The layer does not exist, or it was not called with a tensor of N rows.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> [tuple(part.shape) for part in features_and_outputs(model, torch.zeros(5, 3, 2, 2))]
        [(5, 4), (5, 2)]
    """
    name = last_layer(model) if layer is None else layer
    side = 0 if layer is None else 1
    with evaluation(model), torch.random.fork_rng(devices=[]), recorded(model, [name], torch.clone) as found:
        outputs = model(images)
    if name not in found or found[name][side].shape[:1] != images.shape[:1]:
        raise ValueError(f"layer {name!r} is not called once with all images: name another layer")
    if not isinstance(outputs, Tensor):
        raise ValueError(f"{type(model).__name__} must return a tensor, not {type(outputs).__name__}")
    return found[name][side].flatten(1), outputs
