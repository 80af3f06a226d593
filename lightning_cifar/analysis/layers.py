"""What each layer of a network gives and holds."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_cifar.analysis.modes import evaluation


class LayerRow(NamedTuple):
    """One layer: what it is, its output's shape without the batch axis, its own parameters."""

    name: str
    kind: str
    shape: tuple[int, ...]
    num_parameters: int


def list_layers(model: nn.Module, example: Tensor) -> list[LayerRow]:
    """The layers that an example (1, C, H, W) passes, in order.

    The model is left as it was: in its modes, without hooks, with its random state untouched.
    """
    rows: list[LayerRow] = []
    handles = []

    def record(name: str, layer: nn.Module, output: object) -> None:
        if isinstance(output, Tensor):
            description = str(layer) if len(str(layer)) <= 72 else type(layer).__name__
            count = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
            rows.append(LayerRow(name, description, tuple(output.shape[1:]), count))

    for name, layer in model.named_modules():
        if not list(layer.children()):
            handles.append(layer.register_forward_hook(lambda layer, _, output, name=name: record(name, layer, output)))
    try:
        with evaluation(model), torch.random.fork_rng(devices=[]):
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return rows
