"""The operations of a network as a graph of its own, with what evaluation allows put together.

The model itself is not touched: its forward pass is traced on a skeleton that shares its tensors and nothing else.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

from lightning_cifar.analysis.occlusion.winograd_convolution import Convolution

IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
POOLINGS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.LPPool2d)
IN_PLACE = {operator.iadd, operator.isub, operator.imul, operator.itruediv}


def trace(model: nn.Module) -> fx.GraphModule | None:
    """The model in evaluation mode, batch norms folded into the convolutions before them; None if it cannot be traced.

    Every ``nn.Conv2d`` is a :class:`Convolution`. What the model does with its images must not depend on their values
    or their number, which tracing sees in most cases and not in all: compare before use.
    """
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        return None  # a hook may change what its layer gives
    try:
        root = _skeleton(model, {})
        _, *others = inspect.signature(root.forward).parameters.values()
        graph = _Tracer().trace(root, {parameter.name: parameter.default for parameter in others})
        traced = fx.GraphModule(_simplify(graph, root), graph)
    except Exception:  # the model's own code ran with stand-ins for tensors, and may have failed in any way
        return None
    return None if any(_overwrites(node, traced) for node in graph.nodes) else traced


def affine_of(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift (K,) float64 of a batch norm in evaluation."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach().double()


class _Tracer(fx.Tracer):
    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> object:
        """Past a compiled call, which would refuse the stand-ins."""
        return super().call_module(m, m.forward, args, kwargs)


def _skeleton(module: nn.Module, copies: dict[int, nn.Module]) -> nn.Module:
    """Modules of its own in evaluation mode, the tensors shared: assignments in ``forward`` do not reach the model."""
    if id(module) in copies:
        return copies[id(module)]
    if "forward" in vars(module):
        raise ValueError("This forward is bound to the model.")
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
    """Fold and leave out what can be; what the graph's nodes now refer to, by name."""
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
            behind = next(iter(node.users)) if len(node.users) == 1 else None
            norm = modules.get(str(behind.target)) if behind and behind.op == "call_module" else None
            if behind and type(norm) is nn.BatchNorm2d and norm.running_mean is not None:
                targets[node.name] = Convolution(layer, *affine_of(norm))
                _leave_out(behind)
            else:
                targets[node.name] = Convolution(layer)
            node.target = node.name
        elif layer is not None:
            targets[str(node.target)] = layer
            if isinstance(layer, POOLINGS):
                # Convolutions may leave another order, from which a pooling would go back to the slowest.
                with graph.inserting_before(node):
                    ordered = graph.call_method("contiguous", node.args, {"memory_format": torch.channels_last})
                    node.args = (ordered,)
    return targets


def _leave_out(node: fx.Node) -> None:
    node.replace_all_uses_with(node.all_input_nodes[0])
    node.graph.erase_node(node)


def _overwrites(node: fx.Node, traced: fx.GraphModule) -> bool:
    """Whether a node writes in place what somebody else reads."""
    in_place = node.target in IN_PLACE or bool(node.kwargs.get("inplace")) or "out" in node.kwargs
    in_place |= node.op == "call_method" and str(node.target).endswith("_")
    in_place |= node.op == "call_module" and bool(getattr(traced.get_submodule(str(node.target)), "inplace", False))
    if not in_place or not node.all_input_nodes:
        return in_place
    written = node.all_input_nodes[0]
    return len(written.users) > 1 or written.op in ("placeholder", "get_attr")
