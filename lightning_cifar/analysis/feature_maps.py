"""What the layers of a network make of an image: its feature maps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_cifar.analysis.layers import convolution_names, tapped, uncompiled
from lightning_cifar.analysis.modes import evaluation, undisturbed


def feature_maps(model: nn.Module, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """Outputs of layers for images, from one forward pass in evaluation mode.

    The model is left as it was: modes, buffers, gradients, hooks, and torch's random state.

    Args:
        model: called as ``model(images)``.
        images: (N, C, H, W), as the network gets them.
        layers: names as ``model.named_modules()`` gives them.

    Returns:
        ``name -> maps (N, K, P, Q)`` in the order asked, float32, on the images' device.

    Raises:
        ValueError: There is no such layer, the forward pass does not reach it, what it gives are no maps, or the model
            has no ``forward``.
    """
    with uncompiled(model), undisturbed(model), evaluation(model), tapped(model, layers) as values:
        try:
            model(images)
        except NotImplementedError as error:
            raise ValueError(f"{type(model).__name__} cannot be called as model(images): {error}") from None
    maps = {}
    for name in layers:
        if name not in values:
            raise ValueError(
                f"layer {name!r} gave no tensor in the forward pass of {type(model).__name__}: name another"
            )
        output = values[name][1]
        if output.ndim != 4:
            shape = ", ".join(map(str, output.shape))
            raise ValueError(f"layer {name!r} gives ({shape}), which are no maps (N, K, P, Q): name a layer before it")
        maps[name] = output.float()
    return maps


def default_layers(model: nn.Module) -> list[str]:
    """The first convolution, and the one in the middle of the model's list of them.

    Raises:
        ValueError: The model has no convolution.
    """
    names = convolution_names(model)
    if not names:
        raise ValueError(f"{type(model).__name__} has no convolution: name the layers whose output to show")
    return list(dict.fromkeys([names[0], names[len(names) // 2]]))


def thin_out(positions: Sequence[float], limit: int) -> list[int]:
    """Which of a growing series to keep: at most ``limit``, the first and the last among them, evenly spread.

    Args:
        positions: rising.
        limit: 2 or more.

    Returns:
        Their indices, rising.
    """
    kept = list(range(len(positions)))
    while len(kept) > limit:
        gaps = [positions[kept[i + 1]] - positions[kept[i - 1]] for i in range(1, len(kept) - 1)]
        del kept[1 + gaps.index(min(gaps))]
    return kept
