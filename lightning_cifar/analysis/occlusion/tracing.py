"""Tracing of a network into a graph of operations, simplified for evaluation mode.

The model does not change: its forward pass is traced on a copy that shares only its tensors.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx, nn

from lightning_cifar.analysis.occlusion.winograd_convolution import Convolution

IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
POOLINGS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.LPPool2d)
IN_PLACE = {operator.iadd, operator.isub, operator.imul, operator.itruediv}


def trace(model: nn.Module, shape: Sequence[int]) -> fx.GraphModule | None:
    """Trace the model in evaluation mode and fold batch norms into convolutions; None if it cannot be traced.

    Every ``nn.Conv2d`` becomes a :class:`Convolution`. The operations may depend on the channels, the height and the
    width of the images, which are those of ``shape`` (N, C, H, W), but not on their values or their number. Tracing
    detects this in most cases but not in all, so compare results before use.
    """
    return _traced(model, _Tracer(shape), _simplify)


def trace_layers(model: nn.Module, example: Tensor) -> fx.GraphModule | None:
    """Trace the model in evaluation mode with unchanged layers; None if it cannot be traced.

    Modules without submodules that cannot be traced are single operations. Operations may depend on the number of
    channels, the height and the width of the images, which are those of the example (1, C, H, W).
    """
    found = _traced(model, _Tracer(example.shape), lambda graph, root: root)
    return found or _traced(model, _LayerTracer(example.shape), lambda graph, root: root)


def _traced(
    model: nn.Module, tracer: _Tracer, simplify: Callable[[fx.Graph, nn.Module], dict[str, object] | nn.Module]
) -> fx.GraphModule | None:
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        return None  # a hook may change the output of its layer
    try:
        root = _skeleton(model, {})
        _, *others = inspect.signature(root.forward).parameters.values()
        with torch.no_grad():
            graph = tracer.trace(root, {parameter.name: parameter.default for parameter in others})
        traced = fx.GraphModule(simplify(graph, root), graph)
    except Exception:  # the model's code ran with proxies instead of tensors, and may fail in any way
        return None
    return None if any(_overwrites(node, traced) for node in graph.nodes) else traced


class _Images(fx.Proxy):
    """The images, of which the shape is known except for their number."""

    @property
    def shape(self) -> tuple[object, ...]:
        assert isinstance(self.tracer, _Tracer)
        return (self.size(0), *self.tracer.shape[1:])


class _Tracer(fx.Tracer):
    def __init__(self, shape: Sequence[int] = ()) -> None:
        super().__init__()
        self.shape = shape

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Images(node, self) if node.op == "placeholder" and self.shape else super().proxy(node)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> object:
        """Bypass a compiled call, which does not accept proxies."""
        return super().call_module(m, m.forward, args, kwargs)


class _LayerTracer(_Tracer):
    """Treats all modules without submodules as single operations."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not m._modules or super().is_leaf_module(m, module_qualified_name)


def _skeleton(module: nn.Module, copies: dict[int, nn.Module]) -> nn.Module:
    """Copy modules in evaluation mode and share their tensors: assignments in ``forward`` do not change the model."""
    if id(module) in copies:
        return copies[id(module)]
    if "forward" in vars(module):
        raise ValueError("forward is bound to the model, so that a copy would call the model.")
    copy: nn.Module = object.__new__(type(module))
    copies[id(module)] = copy
    for name, value in vars(module).items():
        copy.__dict__[name] = value.copy() if isinstance(value, list | dict | set) else value
    copy.__dict__["_modules"] = {
        name: child if child is None else _skeleton(child, copies) for name, child in module._modules.items()
    }
    copy.__dict__["training"] = False
    return copy


def _simplify(graph: fx.Graph, root: nn.Module) -> dict[str, object]:
    """Fold batch norms and remove identities; returns the objects that the nodes of the graph refer to, by name."""
    modules = dict(root.named_modules(remove_duplicate=False))
    targets: dict[str, object] = {}
    for node in graph.nodes:
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        if node.op == "get_attr":
            value: object = root
            for name in node.target.split("."):
                value = getattr(value, name)
            targets[node.target] = value.detach() if isinstance(value, Tensor) else value
        elif node.op == "call_method" and node.target == "view":
            node.target = "reshape"  # a channels_last map has to be copied to be flattened
        elif isinstance(layer, IDENTITIES):
            _leave_out(node)
        elif type(layer) is nn.Conv2d and layer.padding_mode == "zeros":
            user = next(iter(node.users)) if len(node.users) == 1 else None
            norm = modules.get(str(user.target)) if user and user.op == "call_module" else None
            if user and type(norm) is nn.BatchNorm2d and norm.running_mean is not None:
                targets[node.name] = Convolution(layer, norm)
                _leave_out(user)
            else:
                targets[node.name] = Convolution(layer)
            node.target = node.name
        elif layer is not None:
            targets[str(node.target)] = layer
            if isinstance(layer, POOLINGS):
                # Convolutions may return another memory format, with which pooling is slowest.
                with graph.inserting_before(node):
                    ordered = graph.call_method("contiguous", node.args, {"memory_format": torch.channels_last})
                    node.args = (ordered,)
    return targets


def _leave_out(node: fx.Node) -> None:
    node.replace_all_uses_with(node.all_input_nodes[0])
    node.graph.erase_node(node)


def _overwrites(node: fx.Node, traced: fx.GraphModule) -> bool:
    """Whether a node overwrites a value that another node reads."""
    in_place = node.target in IN_PLACE or bool(node.kwargs.get("inplace")) or "out" in node.kwargs
    in_place |= node.op == "call_method" and str(node.target).endswith("_")
    in_place |= node.op == "call_module" and bool(getattr(traced.get_submodule(str(node.target)), "inplace", False))
    if not in_place or not node.all_input_nodes:
        return in_place
    written = node.all_input_nodes[0]
    return len(written.users) > 1 or written.op in ("placeholder", "get_attr")
