"""What each layer of a network gives and holds."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from lightning_cifar.analysis.modes import evaluation


class LayerRow(NamedTuple):
    """One layer: what it is, its output's shape without the batch axis, its own parameters."""

    name: str
    kind: str
    shape: tuple[int, ...]
    num_parameters: int


Example: TypeAlias = Tensor | tuple[object, ...] | Mapping[str, object]


def list_layers(model: nn.Module, example: Example) -> list[LayerRow]:
    """The layers that an example (1, C, H, W) passes, in order.

    The model is left as it was: in its modes, without hooks, with its random state untouched.

    Args:
        model: on any device.
        example: one input, on the same; a tuple is several arguments, a mapping those by name.
    """
    rows: list[LayerRow] = []
    handles = []

    def record(name: str, layer: nn.Module, output: object) -> None:
        if isinstance(output, tuple) and output:  # a recurrent layer gives its states too
            output = output[0]
        if isinstance(output, Tensor):
            description = str(layer) if len(str(layer)) <= 72 else type(layer).__name__
            count = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
            rows.append(LayerRow(name, description, tuple(output.shape[1:]), count))

    for name, layer in model.named_modules():
        if not list(layer.children()):
            handles.append(layer.register_forward_hook(lambda layer, _, output, name=name: record(name, layer, output)))
    try:
        with evaluation(model), torch.random.fork_rng(devices=[]):
            if isinstance(example, Mapping):
                model(**example)
            else:
                model(*(example if isinstance(example, tuple) else (example,)))
    finally:
        for handle in handles:
            handle.remove()
    return rows


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The submodule of that name, as ``model.named_modules()`` gives them: ``network.0.0``.

    In a network that ``torch.compile(network)`` replaced, the names from before the replacement are known too.

    Raises:
        ValueError: There is none; the message holds the nearest names.
    """
    metrics = Metric | MetricCollection  # modules too, which no image passes through
    layers: dict[str, nn.Module] = {
        name: layer for name, layer in model.named_modules() if not isinstance(layer, metrics)
    }
    if name and name in layers:
        return layers[name]
    before = {other.replace("_orig_mod.", ""): layer for other, layer in layers.items() if "_orig_mod." in other}
    if name in before:
        return before[name]
    known = [other for other in layers if other]
    # Where the last part alone fits, the front was forgotten: "conv1" for "network.conv1".
    near = [other for other in known if other.endswith(f".{name}")] or difflib.get_close_matches(name, known, 3, 0.5)
    hint = f"did you mean {' or '.join(near[:3])}?" if near else f"there are {', '.join(known[:12])} ..."
    raise ValueError(f"{type(model).__name__} has no layer {name!r}: {hint}")


def uncompiled(model: nn.Module) -> AbstractContextManager[object]:
    """Inside, compiled networks run as they are written: what is compiled does not look for new hooks."""
    compiled = any(
        getattr(module, "_compiled_call_impl", None) is not None or "_orig_mod" in module._modules
        for module in model.modules()
    )
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def convolution_names(model: nn.Module) -> list[str]:
    """Names of the convolutions, in the order in which the model defines them."""
    return [
        name for name, layer in model.named_modules() if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and name
    ]


@contextmanager
def tapped(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Inside, each forward pass of the model leaves ``name -> (input, output)`` of the named layers in the dict.

    The tensors are detached and copied at once, since a later layer may work in place, as ReLU does. A layer
    that is used twice leaves its last call. The hooks are gone afterwards, on exception too.

    Raises:
        ValueError: There is no such layer.
    """
    values: dict[str, tuple[Tensor, Tensor]] = {}
    inputs: dict[str, Tensor] = {}

    def before(name: str, given: tuple[object, ...]) -> None:
        if given and isinstance(given[0], Tensor):
            inputs[name] = given[0].detach().clone()

    def after(name: str, output: object) -> None:
        if isinstance(output, Tensor) and name in inputs:
            values[name] = (inputs[name], output.detach().clone())

    layers = {name: find_layer(model, name) for name in names}
    handles = []
    try:
        for name, layer in layers.items():
            handles.append(layer.register_forward_pre_hook(lambda _, given, name=name: before(name, given)))
            handles.append(layer.register_forward_hook(lambda _, __, output, name=name: after(name, output)))
        yield values
    finally:
        for handle in handles:
            handle.remove()
