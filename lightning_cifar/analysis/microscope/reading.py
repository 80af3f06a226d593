"""Reading of the displayed layers from a traced network: which operations are one layer, and what they read."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from lightning_cifar.analysis.microscope.layers import Layer, Network, Shape, Source
from lightning_cifar.analysis.occlusion.receptive_field import Span, call_node
from lightning_cifar.analysis.occlusion.tracing import trace_layers

ACTIVATIONS = {
    **{"ReLU": "relu", "HandReLU": "relu", "relu": "relu", "relu_": "relu", "Tanh": "tanh", "tanh": "tanh"},
    **{"Sigmoid": "sigmoid", "sigmoid": "sigmoid", "GELU": "gelu", "gelu": "gelu", "SiLU": "silu", "silu": "silu"},
}
"""Activations that the page computes, by the name of their class or function."""

_MOVES = {
    *(torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.squeeze, torch.unsqueeze, operator.getitem),
    *(F.pad, "flatten", "view", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "contiguous", "expand"),
}
_MOVING_LAYERS = (nn.Flatten, nn.Unflatten, nn.Identity, nn.ZeroPad2d, nn.ChannelShuffle, nn.PixelShuffle)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_SUMS = {operator.add: 1, operator.iadd: 1, torch.add: 1, "add": 1, "add_": 1, operator.sub: -1, torch.sub: -1}
_SCALINGS = {*_SUMS, operator.mul, operator.truediv, operator.neg, operator.imul}


def read_network(model: nn.Module, example: Tensor) -> Network:
    """Find the displayed layers of a network.

    Args:
        model: Maps images (N, C, H, W) to logits (N, K).
        example: (1, C, H, W), on the device of the model.

    Raises:
        ValueError: The network cannot be traced, or does not return logits.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
        >>> for layer in read_network(model, torch.zeros(1, 3, 8, 8)).layers:
        ...     print(layer.kind, layer.shape, layer.titles)
        image (3, 8, 8) ['image']
        conv (4, 4, 4) ['Conv2d 5 x 5', 'BatchNorm2d', 'ReLU']
        dense (2, 1, 1) ['Linear']
    """
    name = type(model).__name__
    traced = trace_layers(model, example)
    if traced is None:
        raise ValueError(
            f"{name} cannot be traced: its forward pass depends on values of the images, overwrites values that are "
            "read again, or a layer has hooks; remove this from forward"
        )
    reader = _Reader(traced)
    with torch.no_grad():
        output = reader.run(example)
    if not isinstance(output, Tensor) or output.ndim != 2:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"{name} must return logits (N, K), not {found}")
    final = next(node for node in traced.graph.nodes if node.op == "output").all_input_nodes[0]
    source, _ = reader.views[final]
    if source.moves is not None:  # the order of the logits is that of the layer
        source = reader.add(final, "add", final.name, [source], _shape(output))
    return Network(traced, reader.layers, source.layer)


class _Reader(fx.Interpreter):
    """Runs the graph for an example and collects the layers."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced, garbage_collect_values=False)
        self.varying: set[fx.Node] = set()  # nodes that depend on the images
        self.layers: list[Layer] = []
        self.views: dict[fx.Node, tuple[Source, bool]] = {}
        """Layer and moves of the value of a node, and whether no other node reads it on its way there."""

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "placeholder" or any(source in self.varying for source in n.all_input_nodes):
            self.varying.add(n)
            # Tensors without the images along the first axis are constants, such as those of new_tensor.
            if isinstance(value, Tensor) and n.op != "output" and value.ndim > 1 and len(value) == 1:
                self._read(n, value)
        return value

    def add(self, node: fx.Node, kind: str, title: str, sources: list[Source], shape: Shape, **settings: Any) -> Source:
        name = str(node.target) if node.op == "call_module" else node.name
        layer = Layer(name, kind, shape, sources, node, [title], settings)
        self.layers.append(layer)
        source = Source(len(self.layers) - 1, shape)
        self.views[node] = source, len(node.users) == 1
        return source

    def _read(self, node: fx.Node, value: Tensor) -> None:
        shape = _shape(value)
        if node.op == "placeholder":
            self.add(node, "image", "image", [], shape)
            return
        layer = self.module.get_submodule(str(node.target)) if node.op == "call_module" else None
        inputs = [source for source in node.all_input_nodes if source in self.views]
        if len(inputs) == 1 and self._moves(node, layer, inputs[0], shape):
            return
        sources = [self.views[source][0] for source in inputs]
        if len(inputs) == 1 and (step := _step(node, layer)) is not None:
            source, alone = self.views[inputs[0]]
            if not alone or source.moves is not None or source.layer == 0 or source.shape != shape:
                source = self.add(inputs[0], "add", node.name, [source], shape)
                self.layers[-1].titles = []
            self._follow(node, layer, step, source)
            return
        kind, title, settings = _operation(node, layer, sources, shape)
        self.add(node, kind, title, sources, shape, **settings)
        self._weigh(self.layers[-1], layer)

    def _moves(self, node: fx.Node, layer: nn.Module | None, origin: fx.Node, shape: Shape) -> bool:
        """Record an operation that only moves values; returns whether it is one."""
        source, alone = self.views[origin]
        filling = {*node.args[2:], *node.kwargs.values()} if node.target is F.pad else set()
        padded = bool(filling - {"constant", None, 0})
        if isinstance(layer, _DROPOUTS):
            moved = None
        elif (isinstance(layer, _MOVING_LAYERS) or node.target in _MOVES) and not padded:
            value = self.env[origin]
            count = value.numel()
            exact = torch.float32 if count < 1 << 24 else torch.float64  # which mps does not have
            numbers = torch.arange(1.0, count + 1, dtype=exact, device=value.device).view(value.shape)
            others = {each: self.env[each] for each in node.all_input_nodes if each is not origin}
            moved = call_node(node, layer, (origin,), others, numbers).flatten().long() - 1
            if source.moves is not None:
                moved = torch.where(moved < 0, moved, source.moves[moved.clamp(min=0)])
            if moved.equal(torch.arange(math.prod(source.shape), device=moved.device)):
                moved = None
        else:
            return False
        self.views[node] = Source(source.layer, shape, moved), alone and len(node.users) == 1
        return True

    def _follow(self, node: fx.Node, layer: nn.Module | None, step: dict[str, Any], source: Source) -> None:
        """Add a norm or an activation to the layer before it."""
        target = self.layers[source.layer]
        for key in ("scale", "shift"):
            if key in step:
                name = f"{key}{len(target.steps)}"
                target.weights[name] = step[key].expand(target.shape[0])
                step[key] = name
        target.steps.append(step)
        target.titles.append(step["title"])
        target.node = node
        if layer is not None:
            target.num_parameters += sum(parameter.numel() for parameter in layer.parameters())
        self.views[node] = source, len(node.users) == 1

    def _weigh(self, target: Layer, layer: nn.Module | None) -> None:
        if layer is None:
            return
        target.num_parameters = sum(parameter.numel() for parameter in layer.parameters())
        if target.kind in ("conv", "dense"):
            named = {"weight": layer.weight, "bias": layer.bias}
            target.weights |= {key: value.detach() for key, value in named.items() if isinstance(value, Tensor)}


def _shape(value: Tensor) -> Shape:
    """(C, H, W) of values (N, C, H, W), (N, C) or others."""
    first, second, *others = *value.shape[1:], 1, 1
    return first, second, math.prod(others[:-1] if value.ndim > 3 else others[:1])


def _step(node: fx.Node, layer: nn.Module | None) -> dict[str, Any] | None:
    """A batch norm, an activation or a multiplication by numbers."""
    name = type(layer).__name__ if layer is not None else getattr(node.target, "__name__", str(node.target))
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.running_var is not None:
        assert layer.running_mean is not None
        scale = (layer.running_var + layer.eps).rsqrt() * (1.0 if layer.weight is None else layer.weight.detach())
        shift = -layer.running_mean * scale + (0.0 if layer.bias is None else layer.bias.detach())
        return {"kind": "norm", "title": name, "scale": scale, "shift": shift}
    if (
        name in ACTIVATIONS
        and getattr(layer, "approximate", "none") == node.kwargs.get("approximate", "none") == "none"
    ):
        return {"kind": ACTIVATIONS[name], "title": name}
    if node.target in _SCALINGS and len(node.all_input_nodes) == 1:
        values = [item for item in node.args if not isinstance(item, fx.Node)]
        if all(isinstance(item, int | float) for item in values) and not node.kwargs:
            function: Callable[..., Any] = node.target if callable(node.target) else torch.add
            at = [function(*((x if isinstance(item, fx.Node) else item) for item in node.args)) for x in (0.0, 1.0)]
            shift, one = (torch.tensor([float(y)]) for y in at)
            return {"kind": "norm", "title": name, "scale": one - shift, "shift": shift}
    return None


def _operation(
    node: fx.Node, layer: nn.Module | None, sources: list[Source], shape: Shape
) -> tuple[str, str, dict[str, Any]]:
    """Kind, title and settings of an operation."""
    title = type(layer).__name__ if layer is not None else getattr(node.target, "__name__", str(node.target))
    alike = all(source.shape == shape for source in sources)
    if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros":
        left, right, top, bottom = layer._reversed_padding_repeated_twice
        paddings = (top, bottom), (left, right)
        axes = zip(layer.kernel_size, layer.stride, paddings, layer.dilation, strict=True)
        settings = {**dict(zip(("down", "across"), axes, strict=True)), "groups": layer.groups}
        return "conv", f"{title} {layer.kernel_size[0]} x {layer.kernel_size[1]}", settings
    if isinstance(layer, nn.Linear) and sources[0].shape[1:] == (1, 1):
        return "dense", title, {}
    if node.target in _SUMS and len(sources) == len(node.args) == 2 and alike and not node.kwargs:
        return "add", title, {"signs": [1, _SUMS[node.target]]}
    if node.target is torch.cat and 1 in (*node.args[1:], node.kwargs.get("dim")):
        return "concat", title, {}
    pooling = _pooling(node, layer) if len(sources) == 1 else None
    if pooling is not None and (found := _windows(pooling, sources[0].shape, shape)) is not None:
        return found[0], title, found[1]
    if node.target is F.interpolate and node.kwargs.get("mode") == "bilinear":
        wider = node.kwargs.get("antialias") or node.kwargs.get("align_corners")
        return "other", title, {} if wider else _resized(sources[0].shape, shape)
    return "other", title, {}


def _resized(source: Shape, shape: Shape) -> dict[str, list[Span]]:
    """The rows and columns that each one of a bilinearly resized map depends on."""
    spans: dict[str, list[Span]] = {}
    for axis, length, size in zip(("down", "across"), source[1:], shape[1:], strict=True):
        places = [(i + 0.5) * length / size - 0.5 for i in range(size)]
        rounding = 1e-3  # of torch, where a place lies on a pixel
        spans[axis] = [(max(math.floor(at - rounding), 0), min(math.floor(at + rounding) + 2, length)) for at in places]
    return spans


def _pooling(node: fx.Node, layer: nn.Module | None) -> nn.Module | None:
    """The pooling layer that an operation is equal to."""
    if layer is not None:
        hand_made = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}.get(str(getattr(layer, "kind", "")))
        size, stride = getattr(layer, "size", None), getattr(layer, "stride", None)
        return hand_made(size, stride) if hand_made and isinstance(size, int) else layer
    args, kwargs = node.args[1:], dict(node.kwargs)
    functions = {F.max_pool2d: nn.MaxPool2d, F.avg_pool2d: nn.AvgPool2d, F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d}
    if node.target in functions:
        kind = functions[node.target]
        return kind(*args, **kwargs) if len(args) <= 3 else None
    if node.target in (torch.mean, "mean"):
        axes = args[0] if args else kwargs.get("dim")
        if isinstance(axes, list | tuple) and sorted(axis % 4 for axis in axes) == [2, 3]:
            return nn.AdaptiveAvgPool2d(1)
    return None


def _windows(layer: nn.Module, source: Shape, shape: Shape) -> tuple[str, dict[str, Any]] | None:
    """Kind, and the rows and columns of each window of a pooling layer."""
    if not isinstance(layer, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d | nn.MaxPool2d | nn.AvgPool2d):
        return None
    spans: list[list[Span]] = []
    for axis, (size, length) in enumerate(zip(shape[1:], source[1:], strict=True)):
        if isinstance(layer, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
            spans.append([(i * length // size, -(-(i + 1) * length // size)) for i in range(size)])
            continue
        numbers = (layer.kernel_size, layer.stride, layer.padding, getattr(layer, "dilation", 1))
        kernel, stride, padding, dilation = (each if isinstance(each, int) else each[axis] for each in numbers)
        if dilation != 1:
            return None
        begins = [i * stride - padding for i in range(size)]
        spans.append([(max(begin, 0), min(begin + kernel, length)) for begin in begins])
    settings: dict[str, Any] = {"down": spans[0], "across": spans[1]}
    if isinstance(layer, nn.AvgPool2d):
        whole = layer.kernel_size if isinstance(layer.kernel_size, tuple) else (layer.kernel_size,) * 2
        if layer.ceil_mode and layer.count_include_pad:
            return None
        if layer.divisor_override or layer.count_include_pad:
            settings["divisor"] = layer.divisor_override or math.prod(whole)
    return ("max" if isinstance(layer, nn.MaxPool2d | nn.AdaptiveMaxPool2d) else "mean"), settings
