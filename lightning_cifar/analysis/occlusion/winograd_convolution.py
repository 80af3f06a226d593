"""A convolution of fixed weights, computed directly or with fewer products, whichever is estimated to be faster.

Shapes: ``N`` batch, ``C K`` channels in and out, ``H W`` input, ``R S`` kernel, ``P Q`` output, ``I J`` products of a
tile along the two axes, ``T`` tiles across.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cifar.analysis.occlusion.winograd import Axis, count_of, filter_of


class Place(NamedTuple):
    """Along one axis, which inputs are given and which outputs are asked for."""

    before: int
    """Zeros before the first input."""
    inputs: int
    outputs: int


class Convolution(nn.Module):
    """What an ``nn.Conv2d`` computes, followed by a scale and a shift of each channel.

    Args:
        layer: Padded with zeros. It is read once, neither kept nor changed.
        scale: (K,), and
        shift: (K,): those of a batch norm behind the layer.
    """

    def __init__(self, layer: nn.Conv2d, scale: Tensor | None = None, shift: Tensor | None = None) -> None:
        super().__init__()
        weight = layer.weight.detach()
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
        if scale is not None and shift is not None:
            weight = weight * scale.to(weight.dtype)[:, None, None, None]
            bias = (bias * scale + shift).to(weight.dtype)
        self.weight, self.bias = weight.contiguous(memory_format=torch.channels_last), bias
        self.kernel, self.stride, self.dilation = weight.shape[2:], layer.stride, layer.dilation
        self.groups = layer.groups
        left, right, top, bottom = layer._reversed_padding_repeated_twice  # numbers where the layer may say "same"
        self.padding = (top, bottom), (left, right)
        self._plans: dict[tuple[Place, Place], _Plan] = {}
        self._weights: dict[tuple[object, object], Tensor] = {}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Convolution:
        """For ``to``: the tensors are no parameters, since nobody should train them."""
        self.weight, self.bias = fn(self.weight), fn(self.bias)
        self._plans.clear()
        self._weights.clear()
        return self

    @property
    def may_save(self) -> bool:
        """Whether there is a way other than the direct one."""
        of_cpu = self.weight.device.type == "cpu" and self.weight.dtype in (torch.float32, torch.float64)
        return of_cpu and self.groups == 1

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K, P, Q), with the layer's padding."""
        places = self._places(*x.shape[2:])
        if self.saves(*places):
            return self.by_products(x, *places)
        (top, bottom), (left, right) = self.padding
        if top != bottom or left != right:
            x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
        return self.directly(x, (top, left))

    def _places(self, height: int, width: int) -> tuple[Place, Place]:
        """Of whole images of this size."""
        down, across = (
            Place(padding[0], length, self.output_size(length + sum(padding), axis))
            for axis, (length, padding) in enumerate(zip((height, width), self.padding, strict=True))
        )
        return down, across

    def saves_on(self, height: int, width: int) -> bool:
        """Whether whole images of this size are computed by products."""
        return self.saves(*self._places(height, width))

    def directly(self, x: Tensor, padding: tuple[int, int] = (0, 0)) -> Tensor:
        """(N, C, H, W) -> (N, K, P, Q) by torch's own."""
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def output_size(self, length: int, axis: int) -> int:
        """Number of outputs along an axis, from that of inputs with their padding."""
        return (length - self.dilation[axis] * (self.kernel[axis] - 1) - 1) // self.stride[axis] + 1

    def cost(self, down: Place, across: Place) -> float:
        """Estimated time of an image, in multiplications of the direct way."""
        direct = float(down.outputs * across.outputs * self.weight.numel())
        return min(direct, self._cost_by_products(down, across)) if self.may_save else direct

    def calls(self, down: Place, across: Place) -> int:
        """Of torch's operations."""
        return 4 + 6 * count_of(self._axes(down, across)[0])[1] if self.saves(down, across) else 1

    def saves(self, down: Place, across: Place) -> bool:
        """Whether :meth:`by_products` is the faster way."""
        return self.may_save and self.cost(down, across) == self._cost_by_products(down, across)

    def by_products(self, x: Tensor, down: Place, across: Place) -> Tensor:
        """(N, C, H, W) without its padding -> (N, K, P, Q). Fastest if memory lies as (H, W, N, C), as it then does."""
        plan = self._plan(down, across)
        x_HWNC = x.permute(2, 3, 0, 1).contiguous()
        num, num_out = len(x), len(self.bias)
        y_PQNK = x.new_empty(down.outputs, across.outputs, num * num_out)
        bias = self.bias.repeat(num)
        for tile in plan.rows:
            v = torch.mm(tile.into, x_HWNC[tile.first : tile.last].view(tile.last - tile.first, -1))
            v = torch.bmm(plan.into_columns, v.view(len(tile.into), across.inputs, -1))
            v = torch.bmm(v.view(len(plan.weight), -1, x.shape[1]), plan.weight)
            v = torch.mm(tile.out, v.view(len(tile.into), -1))
            v = v.view(len(tile.out), -1, num * num_out)
            out_columns = plan.out_columns.expand(len(v), -1, -1)
            if tile.outputs.step == 1:
                torch.baddbmm(bias, out_columns, v, out=y_PQNK[tile.outputs])
            else:
                y_PQNK[tile.outputs] = torch.baddbmm(bias, out_columns, v)
        return y_PQNK.view(down.outputs, across.outputs, num, num_out).permute(2, 3, 0, 1)

    def _axes(self, down: Place, across: Place) -> tuple[Axis, Axis]:
        rows, columns = (
            Axis(self.kernel[axis], self.stride[axis], self.dilation[axis], *place)
            for axis, place in enumerate((down, across))
        )
        return rows, columns

    def _cost_by_products(self, down: Place, across: Place) -> float:
        num_out, num_in = self.weight.shape[:2]
        rows, columns = self._axes(down, across)
        # Fitted to a core with AVX-512: to mix a number takes as long as some 50 multiplications.
        each = 1.2 * num_out * num_in + 55 * num_in + 50 * num_out
        return count_of(rows)[0] * count_of(columns)[0] * each

    def _plan(self, down: Place, across: Place) -> _Plan:
        if (down, across) not in self._plans:
            rows, columns = map(filter_of, self._axes(down, across))
            into = torch.zeros(len(columns.kernel), len(columns.tiles), across.inputs, dtype=torch.float64)
            out = torch.zeros(across.outputs, len(columns.kernel), len(columns.tiles), dtype=torch.float64)
            for t, tile in enumerate(columns.tiles):
                into[:, t, tile.first : tile.last] = tile.into
                out[list(tile.outputs), :, t] = tile.out
            dtype = self.weight.dtype
            self._plans[down, across] = _Plan(
                [
                    _Rows(
                        slice(t.outputs.start, t.outputs.stop, t.outputs.step),
                        t.first,
                        t.last,
                        t.into.to(dtype),
                        t.out.to(dtype),
                    )
                    for t in rows.tiles
                ],
                into.flatten(0, 1).to(dtype).expand(len(rows.kernel), -1, -1).contiguous(),
                out.flatten(1).to(dtype),
                self._weight(rows.kernel, columns.kernel),
            )
        return self._plans[down, across]

    def _weight(self, rows: Tensor, columns: Tensor) -> Tensor:
        """(I * J, C, K), shared between places of the same tiles."""
        key = tuple(rows.flatten().tolist()), tuple(columns.flatten().tolist())
        if key not in self._weights:
            mixed = torch.einsum("ir,kcrs,js->ijck", rows, self.weight.double(), columns)
            self._weights[key] = mixed.flatten(0, 1).to(self.weight.dtype).contiguous()
        return self._weights[key]


class _Rows(NamedTuple):
    """A tile of rows."""

    outputs: slice
    first: int
    last: int
    into: Tensor
    """(I, last - first)."""
    out: Tensor
    """(outputs, I)."""


class _Plan(NamedTuple):
    rows: list[_Rows]
    into_columns: Tensor
    """(I, J * T, W), each the same: torch's batched product is fastest on memory without gaps."""
    out_columns: Tensor
    """(Q, J * T)."""
    weight: Tensor
    """(I * J, C, K)."""
