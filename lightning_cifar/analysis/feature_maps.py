"""Feature maps: outputs of layers for an image."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_cifar.analysis.layers import convolution_names, recorded
from lightning_cifar.analysis.modes import evaluation, undisturbed


def feature_maps(model: nn.Module, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """Compute outputs of layers for images in one forward pass in evaluation mode.

    Modes, buffers, gradients and hooks of the model and torch's random state are unchanged afterwards.

    Args:
        model: Network that is called as ``model(images)``.
        images: (N, C, H, W), as the network takes them.
        layers: Names as in ``model.named_modules()``.

    Returns:
        ``name -> maps (N, K, P, Q)`` in the order of ``layers``, float32, on the device of the images.

    Raises:
        ValueError: A layer does not exist, is not part of the forward pass or does not return maps, or the model has
            no ``forward``.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(inplace=True))
        >>> feature_maps(model, torch.zeros(2, 3, 32, 32), ["0"])["0"].shape
        torch.Size([2, 8, 28, 28])
    """
    with undisturbed(model), evaluation(model), recorded(model, layers, lambda x: x.detach().clone()) as values:
        try:
            model(images)
        except NotImplementedError as error:
            raise ValueError(f"{type(model).__name__} cannot be called as model(images): {error}") from None
    maps = {}
    for name in layers:
        if name not in values:
            raise ValueError(
                f"layer {name!r} returned no tensor in the forward pass of {type(model).__name__}: name another layer"
            )
        output = values[name][1]
        if output.ndim != 4:
            raise ValueError(
                f"layer {name!r} returns {tuple(output.shape)}, not maps (N, K, P, Q): name a layer before it"
            )
        maps[name] = output.float()
    return maps


def default_layers(model: nn.Module) -> list[str]:
    """Names of the first convolution and of the one in the middle of the model's list.

    Raises:
        ValueError: The model has no convolution.
    """
    names = convolution_names(model)
    if not names:
        raise ValueError(f"{type(model).__name__} has no convolution: name the layers whose output to show")
    return list(dict.fromkeys([names[0], names[len(names) // 2]]))


def thin_out(positions: Sequence[float], limit: int) -> list[int]:
    """Indices of at most ``limit`` positions, evenly spread, with the first and the last.

    Args:
        positions: Increasing numbers.
        limit: 2 or more.
    """
    kept = list(range(len(positions)))
    while len(kept) > limit:
        gaps = [positions[kept[i + 1]] - positions[kept[i - 1]] for i in range(1, len(kept) - 1)]
        del kept[1 + gaps.index(min(gaps))]
    return kept
