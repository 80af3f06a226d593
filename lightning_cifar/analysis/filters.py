"""A convolution's filters as arrays for the eye."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_cifar.analysis.layers import convolution_names, find_layer

Array = NDArray[np.float32]

MOST_CHANNELS = 32
"""Input channels shown one by one: beyond them nobody looks, and a sheet of each would be long."""


def find_filters(model: nn.Module, name: str | None = None) -> tuple[str, nn.Module]:
    """The named layer, or the first convolution, and its name.

    Raises:
        ValueError: There is no such layer, or it has no kernels of one or two dimensions; the message names another.
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
        raise ValueError(f"{who} has weights {tuple(weight.shape)}, which are no kernels: {hint}")
    return name, layer


def choose_color(layer: nn.Module, mode: Literal["auto", "rgb", "channels"]) -> bool:
    """Whether a filter of the layer is shown as one picture in colour; ``auto`` where it has 3 input channels.

    Raises:
        ValueError: ``rgb`` is asked of a layer with another number of input channels.
    """
    channels = filters_shape(layer)[1]
    if mode == "rgb" and channels != 3:
        raise ValueError(f"mode rgb needs filters of 3 input channels, these have {channels}: choose channels or auto")
    return channels == 3 and mode != "channels"


def filters_shape(layer: nn.Module) -> tuple[int, int, int, int]:
    """Filters K, their input channels C, height R and width S in pixels; R is 1 where the kernels are rows."""
    K, C, R, S = _kernels(layer).shape
    return K, C, R, S


def read_filters(layer: nn.Module, *, color: bool, max_kernels: int) -> Array:
    """A copy of the filters (K, C, R, S) that find room: later filters, and later input channels, are left out.

    Args:
        layer: of :func:`find_filters`.
        color: a filter is one picture. Otherwise it is C of them, of which at most 32 are kept, and fewer rather than
            fewer filters.
        max_kernels: pictures.
    """
    kernels = _kernels(layer)[:max_kernels]
    if not color:
        kernels = kernels[:, : min(max(1, max_kernels // len(kernels)), MOST_CHANNELS)]
    return np.array(kernels.detach().to(device="cpu", dtype=torch.float32).numpy())


def describe_filters(layer: nn.Module, shown: Array) -> str:
    """What a picture shows: "64 filters of 3 x 11 x 11 weights", and what part if not all."""
    K, C, R, S = filters_shape(layer)
    text = f"{K} filter{'s' * (K != 1)} of {C} x {R} x {S} weights"
    if len(shown) < K:
        text += f", the first {len(shown)}"
    if shown.shape[1] < C:
        text += f", input channels 0 to {shown.shape[1] - 1}" if shown.shape[1] > 1 else ", input channel 0"
    return text


def largest_weight(filters: Array) -> float:
    """The largest magnitude of a finite weight; 0 where there is none."""
    magnitudes = np.abs(filters[np.isfinite(filters)])
    return float(magnitudes.max()) if magnitudes.size else 0.0


def scale_filters(filters: Array, limit: float | None = None) -> Array:
    """Filters (K, C, R, S) as numbers in [0, 1]; a weight that is not finite becomes NaN.

    Args:
        filters: weights.
        limit: -limit becomes 0, zero 0.5, limit 1, and what is beyond is cut. None scales each filter by itself, from
            the lowest weight of all its channels to the highest; a constant one becomes 0.5.
    """
    finite = np.isfinite(filters)
    weights = np.where(finite, filters, 0).astype(np.float64)  # the difference of two float32 may be beyond float32
    if limit is not None:
        scaled = np.clip(0.5 + 0.5 * weights / (limit or 1.0), 0, 1)
    else:
        axes = (1, 2, 3)
        low = np.min(weights, axis=axes, keepdims=True, where=finite, initial=np.inf)
        span = np.max(weights, axis=axes, keepdims=True, where=finite, initial=-np.inf) - low
        scaled = np.where(span > 0, (weights - low) / np.where(span > 0, span, 1), 0.5)
    return np.where(finite, scaled, np.nan).astype(np.float32)


def _kernels(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d) and layer.groups == 1:
        weight = weight.transpose(0, 1)  # it is kept the other way round
    return weight if weight.ndim == 4 else weight.unsqueeze(2)
