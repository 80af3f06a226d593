"""Filters of a convolution as arrays for a picture."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_cifar.analysis.layers import convolution_names, find_layer

Array = NDArray[np.float32]

MOST_CHANNELS = 32
"""Largest number of input channels that are shown separately, so that the picture does not get too long."""


class Filters(NamedTuple):
    """Filters of a convolution: K filters of C input channels and R x S pixels; R is 1 for 1-D kernels."""

    name: str
    layer: nn.Module
    color: bool
    """Whether a filter is shown as one picture in colour, otherwise as C pictures."""

    @property
    def kernels(self) -> Tensor:
        """Current weights (K, C, R, S)."""
        weight = self.layer.weight
        assert isinstance(weight, Tensor)
        if isinstance(self.layer, nn.ConvTranspose1d | nn.ConvTranspose2d) and self.layer.groups == 1:
            weight = weight.transpose(0, 1)  # stored with inputs first
        return weight if weight.ndim == 4 else weight.unsqueeze(2)

    def read(self, max_kernels: int) -> Array:
        """Copy the first filters (K, C, R, S) and input channels, as many as fit into ``max_kernels`` pictures.

        At most 32 channels are shown separately; channels are left out before filters.
        """
        kernels = self.kernels[:max_kernels]
        if not self.color:
            kernels = kernels[:, : min(max(1, max_kernels // len(kernels)), MOST_CHANNELS)]
        return np.array(kernels.detach().to(device="cpu", dtype=torch.float32).numpy())

    def describe(self, shown: Array) -> str:
        """Describe what a picture shows, such as "64 filters of 3 x 11 x 11 weights", and which part if not all."""
        K, C, R, S = self.kernels.shape
        text = f"{K} filter{'s' * (K != 1)} of {C} x {R} x {S} weights"
        if len(shown) < K:
            text += f", the first {len(shown)}"
        if shown.shape[1] < C:
            text += f", input channels 0 to {shown.shape[1] - 1}" if shown.shape[1] > 1 else ", input channel 0"
        return text


def find_filters(
    model: nn.Module, name: str | None = None, mode: Literal["auto", "rgb", "channels"] = "auto"
) -> Filters:
    """Return the filters of the layer with a name, by default the first convolution; ``auto`` is ``rgb`` if possible.

    Raises:
        ValueError: The layer does not exist or has no kernels of one or two dimensions (the message names another), or
            the mode is ``rgb`` and it does not have 3 input channels.
    """
    convolutions = convolution_names(model)
    if name is None:
        if not convolutions:
            raise ValueError(f"{type(model).__name__} has no convolution: there are no filters to draw")
        name = convolutions[0]
    layer = find_layer(model, name)
    weight = getattr(layer, "weight", None)
    hint = f"choose a convolution, such as {convolutions[0]}" if convolutions else "choose a convolution"
    who = f"layer {name} ({type(layer).__name__})"
    if not isinstance(weight, Tensor):
        raise ValueError(f"{who} has no weights: {hint}")
    if is_lazy(weight):
        raise ValueError(f"{who} has no weights yet: run one batch through the model before the training")
    if weight.ndim == 5:
        raise ValueError(f"{who} has kernels of three dimensions: {hint} of one or two")
    if weight.ndim not in (3, 4):
        raise ValueError(f"{who} has weights {tuple(weight.shape)}, which are not kernels: {hint}")
    channels = Filters(name, layer, color=False).kernels.shape[1]
    if mode == "rgb" and channels != 3:
        raise ValueError(f"mode rgb needs filters of 3 input channels, not {channels}: choose channels or auto")
    return Filters(name, layer, channels == 3 and mode != "channels")


def largest_weight(filters: Array) -> float:
    """Largest magnitude of a finite weight; 0 without one."""
    magnitudes = np.abs(filters[np.isfinite(filters)])
    return float(magnitudes.max()) if magnitudes.size else 0.0


def scale_filters(filters: Array, limit: float | None = None) -> Array:
    """Scale filters (K, C, R, S) to numbers in [0, 1]; a weight that is not finite becomes NaN.

    Args:
        filters: Weights.
        limit: -limit becomes 0, zero 0.5, limit 1, and larger weights are clipped. None scales each filter separately,
            from the lowest weight of all its channels to the highest; a constant filter becomes 0.5.
    """
    finite = np.isfinite(filters)
    weights = np.where(finite, filters, 0).astype(np.float64)  # a difference of two float32 may exceed float32
    if limit is not None:
        scaled = np.clip(0.5 + 0.5 * weights / (limit or 1.0), 0, 1)
    else:
        axes = (1, 2, 3)
        low = np.min(weights, axis=axes, keepdims=True, where=finite, initial=np.inf)
        span = np.max(weights, axis=axes, keepdims=True, where=finite, initial=-np.inf) - low
        scaled = np.where(span > 0, (weights - low) / np.where(span > 0, span, 1), 0.5)
    return np.where(finite, scaled, np.nan).astype(np.float32)
