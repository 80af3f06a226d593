"""Layers of a network: their names, outputs and parameters."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from lightning_cifar.analysis.modes import evaluation

Value = TypeVar("Value")


class LayerRow(NamedTuple):
    """One layer: name, kind, shape of its output without the batch axis, and number of its direct parameters."""

    name: str
    kind: str
    shape: tuple[int, ...]
    num_parameters: int


Example: TypeAlias = Tensor | tuple[object, ...] | Mapping[str, object]


def list_layers(model: nn.Module, example: Example) -> list[LayerRow]:
    """List the layers that an example (1, C, H, W) passes, in order.

    Modes, hooks and the random state of the model are unchanged afterwards.

    Args:
        model: Network on any device.
        example: One input on the same device. A tuple holds several arguments, a mapping arguments by name.

    Example:
        >>> for row in list_layers(nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU()), torch.zeros(1, 3, 32, 32)):
        ...     print(row.name, row.shape, row.num_parameters)
        0 (8, 28, 28) 608
        1 (8, 28, 28) 0
    """
    rows: list[LayerRow] = []

    def record(name: str, layer: nn.Module, output: object) -> None:
        if isinstance(output, tuple) and output:  # a recurrent layer returns its states too
            output = output[0]
        if isinstance(output, Tensor):
            description = str(layer) if len(str(layer)) <= 72 else type(layer).__name__
            count = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
            rows.append(LayerRow(name, description, tuple(output.shape[1:]), count))

    with ExitStack() as stack:
        stack.enter_context(uncompiled(model))
        for name, layer in model.named_modules():
            if not list(layer.children()):
                hook = layer.register_forward_hook(lambda layer, _, output, name=name: record(name, layer, output))
                stack.callback(hook.remove)
        with evaluation(model), torch.random.fork_rng(devices=[]):
            if isinstance(example, Mapping):
                model(**example)
            else:
                model(*(example if isinstance(example, tuple) else (example,)))
    return rows


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """Return the submodule with a name as in ``model.named_modules()``, such as ``network.0.0``.

    In a network that was replaced by ``torch.compile(network)``, the names from before are valid too.

    Raises:
        ValueError: The layer does not exist; the message contains the nearest names.
    """
    metrics = Metric | MetricCollection  # modules too, but images do not pass through them
    layers: dict[str, nn.Module] = {
        name: layer for name, layer in model.named_modules() if not isinstance(layer, metrics)
    }
    if name and name in layers:
        return layers[name]
    before = {other.replace("_orig_mod.", ""): layer for other, layer in layers.items() if "_orig_mod." in other}
    if name in before:
        return before[name]
    known = [other for other in layers if other]
    # The front of the name may be missing: "conv1" for "network.conv1".
    near = [other for other in known if other.endswith(f".{name}")] or difflib.get_close_matches(name, known, 3, 0.5)
    hint = f"did you mean {' or '.join(near[:3])}?" if near else f"there are {', '.join(known[:12])} ..."
    raise ValueError(f"{type(model).__name__} has no layer {name!r}: {hint}")


def uncompiled(model: nn.Module) -> AbstractContextManager[object]:
    """Run compiled networks without compilation, since compiled code ignores new hooks."""
    return torch.compiler.set_stance("force_eager") if is_compiled(model) else nullcontext()


def compile_networks(model: nn.Module, **options: Any) -> None:
    """Compile the networks of a LightningModule with ``torch.compile`` and its options, in place.

    The names of the weights stay. The LightningModule itself is not compiled, since its steps call the Trainer. Each
    size of a batch has its own code: after the smaller last batch of an epoch, code for variable sizes, which is
    slower, would otherwise replace that for full batches.
    """
    options = {"dynamic": False, **options}
    for child in model.children():
        if isinstance(child, nn.ModuleDict | nn.ModuleList) or hasattr(child, "training_step"):
            compile_networks(child, **options)
        elif next(child.parameters(), None) is not None:
            child._compiled_call_impl = torch.compile(_call_of(child), **options)


def _call_of(module: nn.Module) -> Callable[..., Any]:
    """The call of a module, as a function of this file.

    torch 2.11 does not compile functions of ``torch.nn`` themselves: ``nn.Sequential(...).compile()`` has no effect.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        return module._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]

    return call


def is_compiled(model: nn.Module) -> bool:
    """Return whether a part of a network was compiled with ``torch.compile``."""
    return any(
        getattr(module, "_compiled_call_impl", None) is not None or "_orig_mod" in module._modules
        for module in model.modules()
    )


def convolution_names(model: nn.Module) -> list[str]:
    """Names of the convolutions, in the order in which the model defines them."""
    return [
        name for name, layer in model.named_modules() if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and name
    ]


@contextmanager
def recorded(
    model: nn.Module, names: Sequence[str], read: Callable[[Tensor], Value]
) -> Iterator[dict[str, tuple[Value, Value]]]:
    """Record ``name -> (read(input), read(output))`` of the named layers in each forward pass in the context.

    ``read`` is called at once, since a later layer may work in place, as ReLU does. For a layer that is called
    twice, the last call is kept. The hooks are removed afterwards, also after an exception.

    Raises:
        ValueError: A layer does not exist.
    """
    found: dict[str, tuple[Value, Value]] = {}
    inputs: dict[str, Value] = {}

    def before(name: str, args: tuple[object, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            inputs[name] = read(args[0])

    def after(name: str, output: object) -> None:
        if isinstance(output, Tensor) and name in inputs:
            found[name] = inputs[name], read(output)

    layers = {name: find_layer(model, name) for name in names}
    with ExitStack() as stack:
        stack.enter_context(uncompiled(model))
        for name, layer in layers.items():
            hook = layer.register_forward_pre_hook(lambda _, args, name=name: before(name, args))
            stack.callback(hook.remove)
            hook = layer.register_forward_hook(lambda _, __, output, name=name: after(name, output))
            stack.callback(hook.remove)
        yield found
