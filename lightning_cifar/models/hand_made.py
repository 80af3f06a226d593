"""The hand-made layers of :mod:`lightning_cifar.ext` as torch modules, equivalent to torch's layers.

Parameters, initial values and state dict are those of the corresponding torch layer, so that the layers of a network
can be exchanged. The layers run on the CPU; under autocast they compute in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd

from lightning_cifar.ext import layers
from lightning_cifar.ext.convolution import (
    BackendName,
    choose,
    conv2d,
    conv2d_grad_input,
    conv2d_grad_weight,
    set_num_threads,
)

Grads: TypeAlias = tuple[Tensor | None, ...]
F = TypeVar("F", bound=Callable[..., Any])


def _forward(method: F) -> F:
    """Convert inputs to float32 under autocast: the layers do not support bfloat16."""
    return cast(F, custom_fwd(method, device_type="cpu", cast_inputs=torch.float32))


def _backward(method: F) -> F:
    return cast(F, custom_bwd(method, device_type="cpu"))


def _array(tensor: Tensor) -> layers.Array:
    """Return a NumPy array with the same memory and strides."""
    if tensor.device.type != "cpu":
        raise ValueError(f"hand-made layers run on the CPU, not on {tensor.device}: pass --trainer.accelerator cpu")
    array: layers.Array = tensor.detach().numpy()
    return array


def _tensor(array: layers.Array) -> Tensor:
    return torch.from_numpy(array)


class _Convolution(torch.autograd.Function):
    @staticmethod
    @_forward
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, settings: dict[str, Any]) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.settings = settings
        set_num_threads(torch.get_num_threads())
        return _tensor(conv2d(_array(x), _array(w), None if b is None else _array(b), **settings))

    @staticmethod
    @_backward
    def backward(ctx: Any, grad_y: Tensor) -> Grads:
        x, w = ctx.saved_tensors
        grad, settings = _array(grad_y), ctx.settings
        grad_x = grad_w = grad_b = None
        if ctx.needs_input_grad[0]:  # not needed for the first layer
            grad_x = _tensor(conv2d_grad_input(grad, _array(w), x.shape, **settings))
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            grad_w, grad_b = map(_tensor, conv2d_grad_weight(grad, _array(x), w.shape, **settings))
        return grad_x, grad_w, grad_b if ctx.needs_input_grad[2] else None, None


class HandConv2d(nn.Conv2d):
    """``nn.Conv2d`` with zero padding, computed by :func:`lightning_cifar.ext.convolution.conv2d`.

    Args:
        *args, **kwargs: Arguments of ``nn.Conv2d``.
        backend: Name of the backend; None is the fastest available.

    Raises:
        ValueError: If the padding is not a number of zeros, or the backend is unknown.
    """

    def __init__(self, *args: Any, backend: BackendName | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.padding_mode != "zeros" or isinstance(self.padding, str):
            raise ValueError(
                f"padding (={self.padding}, {self.padding_mode}) must be a number of pixels, filled with zeros"
            )
        choose(backend)
        self.backend = backend

    def forward(self, x: Tensor) -> Tensor:
        names = ("stride", "padding", "dilation", "groups", "backend")
        settings = {name: getattr(self, name) for name in names}
        y: Tensor = _Convolution.apply(x, self.weight, self.bias, settings)
        return y


class _Linear(torch.autograd.Function):
    @staticmethod
    @_forward
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        bias = np.zeros(len(w), _array(w).dtype) if b is None else _array(b)
        y, ctx.cache = layers.fc_forward(_array(x), _array(w).T, bias)
        return _tensor(y)

    @staticmethod
    @_backward
    def backward(ctx: Any, grad_y: Tensor) -> Grads:
        grad_x, grad_w, grad_b = layers.fc_backward(_array(grad_y), ctx.cache)
        needs_x, _, needs_b = ctx.needs_input_grad
        return _tensor(grad_x) if needs_x else None, _tensor(grad_w.T), _tensor(grad_b) if needs_b else None


class HandLinear(nn.Linear):
    """``nn.Linear`` for (N, D), computed by :func:`lightning_cifar.ext.layers.fc_forward`."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Linear.apply(x, self.weight, self.bias)
        return y


class _Layer(torch.autograd.Function):
    """A layer without parameters, from forward and backward functions of :mod:`lightning_cifar.ext.layers`."""

    @staticmethod
    @_forward
    def forward(ctx: Any, x: Tensor, forward: Callable[..., Any], backward: Callable[..., layers.Array]) -> Tensor:
        y, ctx.cache = forward(_array(x))
        ctx.pull = backward
        return _tensor(y)

    @staticmethod
    @_backward
    def backward(ctx: Any, grad_y: Tensor) -> Grads:
        return _tensor(ctx.pull(_array(grad_y), ctx.cache)), None, None


class HandReLU(nn.Module):
    """``nn.ReLU``, computed by :func:`lightning_cifar.ext.layers.relu_forward`."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Layer.apply(x, layers.relu_forward, layers.relu_backward)
        return y


class HandPool2d(nn.Module):
    """Max or average pooling without padding, by the functions of :mod:`lightning_cifar.ext.layers`.

    Args:
        kind: ``max`` or ``average``.
        size: Size of a window in pixels.
        stride: Stride in pixels; None is ``size``.
    """

    def __init__(self, kind: str, size: int, stride: int | None = None) -> None:
        super().__init__()
        if kind not in ("max", "average"):
            raise ValueError(f"kind (={kind!r}) must be max or average")
        self.kind, self.size, self.stride = kind, size, size if stride is None else stride

    def forward(self, x: Tensor) -> Tensor:
        forward, backward = layers.max_pool_forward, layers.max_pool_backward
        if self.kind == "average":
            forward, backward = layers.average_pool_forward, layers.average_pool_backward
        y: Tensor = _Layer.apply(x, partial(forward, size=self.size, stride=self.stride), backward)
        return y

    def extra_repr(self) -> str:
        return f"{self.kind}, {self.size}, stride={self.stride}"


class _Loss(torch.autograd.Function):
    """A number and its gradient, from a function of :mod:`lightning_cifar.ext.layers`."""

    @staticmethod
    @_forward
    def forward(ctx: Any, x: Tensor, function: Callable[[layers.Array], tuple[float, layers.Array]]) -> Tensor:
        loss, grad = function(_array(x))
        ctx.save_for_backward(_tensor(grad))
        return torch.tensor(loss, dtype=x.dtype)

    @staticmethod
    @_backward
    def backward(ctx: Any, grad_loss: Tensor) -> Grads:
        (grad,) = ctx.saved_tensors
        return grad * grad_loss, None


def hand_softmax_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of scores (N, C) and labels (N,), by :func:`lightning_cifar.ext.layers.softmax_loss`."""
    loss: Tensor = _Loss.apply(scores, lambda x: layers.softmax_loss(x, labels.numpy()))
    return loss


def hand_l2_regularization(w: Tensor, reg: float) -> Tensor:
    """Return (reg / 2) sum w^2, see :func:`lightning_cifar.ext.layers.l2_regularization`."""
    penalty: Tensor = _Loss.apply(w, lambda x: layers.l2_regularization(x, reg))
    return penalty
