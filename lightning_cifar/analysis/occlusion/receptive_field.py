"""Receptive fields: the part of each map that depends on a part of the image.

Along each axis a change is a *span* of pixels, ``(begin, end)``. A sliding operation (convolution, pooling) widens it
by its kernel; a pointwise operation does not change it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from lightning_cifar.analysis.occlusion.winograd_convolution import Convolution

Span = tuple[int, int]
Sizes = dict[fx.Node, tuple[int, ...]]

POINTWISE_LAYERS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus),
    *(nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softsign),
)
POINTWISE = {
    *(F.relu, F.relu_, F.relu6, F.leaky_relu, F.elu, F.selu, F.gelu, F.silu, F.mish, F.hardswish, F.hardtanh),
    *(torch.relu, torch.relu_, torch.sigmoid, torch.tanh, F.sigmoid, F.tanh),
    *("relu", "relu_", "sigmoid", "tanh", "contiguous"),
    *(torch.add, torch.sub, torch.mul, torch.div, operator.add, operator.sub, operator.mul, operator.truediv),
    *(operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.neg),
}


def hull(spans: Iterable[Span]) -> Span:
    """The smallest span that contains all spans."""
    begins, ends = zip(*spans, strict=True)
    return min(begins), max(ends)


class Slide(NamedTuple):
    """Kernel, stride, padding and dilation of an operation along one axis."""

    kernel: int
    stride: int
    padding: tuple[int, int]
    dilation: int

    def changed(self, span: Span, length: int) -> Span:
        """The outputs (of ``length``) that depend on an input of the span; a single one if none does."""
        first = -(-(span[0] - self.dilation * (self.kernel - 1) + self.padding[0]) // self.stride)
        last = (span[1] - 1 + self.padding[0]) // self.stride
        begin = min(max(first, 0), length - 1)
        return begin, max(min(last, length - 1), begin) + 1

    def needed(self, span: Span) -> Span:
        """The inputs on which the outputs of the span depend; padding has indices below 0 or beyond the end."""
        begin = span[0] * self.stride - self.padding[0]
        return begin, begin + (span[1] - span[0] - 1) * self.stride + self.dilation * (self.kernel - 1) + 1


class Step(NamedTuple):
    """An operation whose output at a position depends only on its inputs around this position."""

    node: fx.Node
    sources: tuple[fx.Node, ...]
    apply: Callable[..., Tensor]
    """Computes the output from the inputs; a sliding operation takes one input that includes the padding."""
    axes: tuple[Slide, Slide] | None = None
    """Kernels down and across; None if the operation does not slide."""
    border: float = 0.0
    """Value of the padding."""
    convolution: Convolution | None = None


def map_sizes(traced: fx.GraphModule, example: Tensor) -> Sizes:
    """Shape of each tensor in the graph, for an example (1, C, H, W)."""
    sizes: Sizes = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            value = super().run_node(n)
            if isinstance(value, Tensor):
                sizes[n] = tuple(value.shape)
            return value

    Recorder(traced).run(example)
    return sizes


def local_steps(traced: fx.GraphModule, sizes: Sizes) -> list[Step]:
    """The operations that depend on the image only through local operations, in the order of the graph."""
    known = {image_of(traced)}
    steps = []
    for node in traced.graph.nodes:
        sources = tuple(source for source in node.all_input_nodes if source in known)
        others = [source for source in node.all_input_nodes if source not in known]
        constants = {source: getattr(traced, str(source.target)) for source in others if source.op == "get_attr"}
        if not sources or len(constants) < len(others) or len(sizes.get(node, ())) != 4:
            continue
        layer = traced.get_submodule(str(node.target)) if node.op == "call_module" else None
        step = None
        if layer is not None and node.args == sources and not node.kwargs:
            step = _slide(node, layer)
        if step is None and _is_pointwise(node, layer):
            flat = all(isinstance(value, Tensor) and math.prod(value.shape[-2:]) == 1 for value in constants.values())
            if flat and all(sizes[source][2:] == sizes[node][2:] for source in sources):
                step = Step(node, sources, partial(call_node, node, layer, sources, constants))
        if step is not None:
            steps.append(step)
            known.add(node)
    return steps


def image_of(traced: fx.GraphModule) -> fx.Node:
    """The node of the images."""
    image: fx.Node = next(node for node in traced.graph.nodes if node.op == "placeholder")
    return image


def _slide(node: fx.Node, layer: nn.Module) -> Step | None:
    source = node.all_input_nodes[:1]
    if isinstance(layer, Convolution):
        down, across = zip(layer.kernel, layer.stride, layer.padding, layer.dilation, strict=True)
        return Step(node, tuple(source), layer.directly, (Slide(*down), Slide(*across)), convolution=layer)
    if not isinstance(layer, nn.MaxPool2d | nn.AvgPool2d) or layer.ceil_mode:
        return None
    kernel, stride, padding = _pair(layer.kernel_size), _pair(layer.stride), _pair(layer.padding)
    dilation = _pair(getattr(layer, "dilation", 1))
    apply: Callable[..., Tensor]
    if isinstance(layer, nn.MaxPool2d):
        if layer.return_indices:
            return None
        apply, border = partial(F.max_pool2d, kernel_size=kernel, stride=stride, dilation=dilation), -math.inf
    else:
        if any(padding) and not (layer.count_include_pad or layer.divisor_override):
            return None
        apply = partial(F.avg_pool2d, kernel_size=kernel, stride=stride, divisor_override=layer.divisor_override)
        border = 0.0
    down, across = zip(kernel, stride, [(side, side) for side in padding], dilation, strict=True)
    return Step(node, tuple(source), apply, (Slide(*down), Slide(*across)), border)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _is_pointwise(node: fx.Node, layer: nn.Module | None) -> bool:
    if layer is not None:
        # Without running statistics a batch norm depends on all pixels.
        return isinstance(layer, POINTWISE_LAYERS) or (type(layer) is nn.BatchNorm2d and layer.running_mean is not None)
    joined = node.target is torch.cat and 1 in (*node.args[1:], node.kwargs.get("dim"))
    return joined or (node.target in POINTWISE and "out" not in node.kwargs)


def call_node(
    node: fx.Node,
    layer: nn.Module | None,
    sources: tuple[fx.Node, ...],
    constants: dict[fx.Node, Tensor],
    *values: Tensor,
) -> Tensor:
    """Apply the operation of a node to other values."""
    known = constants | dict(zip(sources, values, strict=True))
    args = fx.node.map_arg(node.args, known.__getitem__)
    kwargs = fx.node.map_arg(node.kwargs, known.__getitem__)
    result: Tensor
    if layer is not None:
        result = layer(*args, **kwargs)
    elif isinstance(node.target, str):
        result = getattr(args[0], node.target)(*args[1:], **kwargs)
    else:
        result = node.target(*args, **kwargs)
    return result
