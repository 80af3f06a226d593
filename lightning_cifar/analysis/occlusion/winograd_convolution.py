"""Convolution with fixed weights, computed directly or with fewer products, whichever is estimated to be faster.

Shapes: ``N`` batch, ``C K`` channels in and out, ``H W`` input, ``R S`` kernel, ``P Q`` output, ``I J`` products of a
tile along the two axes, ``T`` tiles across.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_cifar.analysis.occlusion.winograd import ConvolutionAxis, Tile, count_of, filter_of


class AxisExtent(NamedTuple):
    """Numbers of inputs and outputs of a convolution along one axis."""

    before: int
    """Zeros before the first input."""
    inputs: int
    outputs: int


class Convolution(nn.Module):
    """An ``nn.Conv2d`` followed by a batch norm in evaluation mode.

    Args:
        layer: Convolution that pads with zeros. Its weights are copied.
        norm: Batch norm after the layer, with running statistics; None for none.
    """

    def __init__(self, layer: nn.Conv2d, norm: nn.BatchNorm2d | None = None) -> None:
        super().__init__()
        weight = layer.weight.detach()
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
        if norm is not None and norm.running_mean is not None and norm.running_var is not None:
            scale = torch.rsqrt(norm.running_var.double() + norm.eps)
            if norm.weight is not None:
                scale = scale * norm.weight.detach().double()
            shift = -norm.running_mean.double() * scale
            if norm.bias is not None:
                shift = shift + norm.bias.detach().double()
            weight = weight * scale.to(weight.dtype)[:, None, None, None]
            bias = (bias * scale + shift).to(weight.dtype)
        self.weight, self.bias = weight.contiguous(memory_format=torch.channels_last), bias
        self.kernel, self.stride, self.dilation = weight.shape[2:], layer.stride, layer.dilation
        self.groups = layer.groups
        left, right, top, bottom = layer._reversed_padding_repeated_twice  # numbers where the layer may say "same"
        self.padding = (top, bottom), (left, right)
        self._plans: dict[tuple[AxisExtent, AxisExtent], _Plan] = {}
        self._weights: dict[tuple[object, object], Tensor] = {}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Convolution:
        """Support ``to``: the tensors are not parameters."""
        self.weight, self.bias = fn(self.weight), fn(self.bias)
        self._plans.clear()
        self._weights.clear()
        return self

    @property
    def may_save(self) -> bool:
        """Whether the layer can be computed with fewer products."""
        is_float = self.weight.dtype in (torch.float32, torch.float64)
        return self.weight.device.type == "cpu" and is_float and self.groups == 1

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer with its padding: (N, C, H, W) -> (N, K, P, Q)."""
        extents = self.extents(*x.shape[2:])
        if self.saves(*extents):
            return self.by_products(x, *extents)
        (top, bottom), (left, right) = self.padding
        if top != bottom or left != right:
            x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
        return self.directly(x, (top, left))

    def extents(self, height: int, width: int) -> tuple[AxisExtent, AxisExtent]:
        """Extents of whole maps of this size."""
        down, across = (
            AxisExtent(before, length, (length + before + after - dilation * (kernel - 1) - 1) // stride + 1)
            for length, (before, after), kernel, stride, dilation in zip(
                (height, width), self.padding, self.kernel, self.stride, self.dilation, strict=True
            )
        )
        return down, across

    def directly(self, x: Tensor, padding: tuple[int, int] = (0, 0)) -> Tensor:
        """Compute the layer with torch's convolution: (N, C, H, W) -> (N, K, P, Q)."""
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def cost(self, down: AxisExtent, across: AxisExtent) -> float:
        """Estimated time for one image, in multiplications of the direct computation."""
        direct = float(down.outputs * across.outputs * self.weight.numel())
        return min(direct, self._cost_by_products(down, across)) if self.may_save else direct

    def calls(self, down: AxisExtent, across: AxisExtent) -> int:
        """Number of calls of torch operations."""
        return 4 + 6 * count_of(self._axes(down, across)[0])[1] if self.saves(down, across) else 1

    def saves(self, down: AxisExtent, across: AxisExtent) -> bool:
        """Whether :meth:`by_products` is faster."""
        return self.may_save and self.cost(down, across) == self._cost_by_products(down, across)

    def by_products(self, x: Tensor, down: AxisExtent, across: AxisExtent) -> Tensor:
        """Compute the layer without padding: (N, C, H, W) -> (N, K, P, Q), fastest in memory order (H, W, N, C)."""
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
            outputs = slice(tile.outputs.start, tile.outputs.stop, tile.outputs.step)
            if tile.outputs.step == 1:
                torch.baddbmm(bias, out_columns, v, out=y_PQNK[outputs])
            else:
                y_PQNK[outputs] = torch.baddbmm(bias, out_columns, v)
        return y_PQNK.view(down.outputs, across.outputs, num, num_out).permute(2, 3, 0, 1)

    def _axes(self, down: AxisExtent, across: AxisExtent) -> tuple[ConvolutionAxis, ConvolutionAxis]:
        rows, columns = (
            ConvolutionAxis(self.kernel[axis], self.stride[axis], self.dilation[axis], *extent)
            for axis, extent in enumerate((down, across))
        )
        return rows, columns

    def _cost_by_products(self, down: AxisExtent, across: AxisExtent) -> float:
        num_out, num_in = self.weight.shape[:2]
        rows, columns = self._axes(down, across)
        # Fitted to a core with AVX-512: transforming a number takes as long as about 50 multiplications.
        each = 1.2 * num_out * num_in + 55 * num_in + 50 * num_out
        return count_of(rows)[0] * count_of(columns)[0] * each

    def _plan(self, down: AxisExtent, across: AxisExtent) -> _Plan:
        if (down, across) not in self._plans:
            rows, columns = map(filter_of, self._axes(down, across))
            into = torch.zeros(len(columns.kernel), len(columns.tiles), across.inputs, dtype=torch.float64)
            out = torch.zeros(across.outputs, len(columns.kernel), len(columns.tiles), dtype=torch.float64)
            for t, tile in enumerate(columns.tiles):
                into[:, t, tile.first : tile.last] = tile.into
                out[list(tile.outputs), :, t] = tile.out
            dtype = self.weight.dtype
            self._plans[down, across] = _Plan(
                [tile._replace(into=tile.into.to(dtype), out=tile.out.to(dtype)) for tile in rows.tiles],
                into.flatten(0, 1).to(dtype).expand(len(rows.kernel), -1, -1).contiguous(),
                out.flatten(1).to(dtype),
                self._weight(rows.kernel, columns.kernel),
            )
        return self._plans[down, across]

    def _weight(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Transformed weights (I * J, C, K), shared between extents with the same tiles."""
        key = tuple(rows.flatten().tolist()), tuple(columns.flatten().tolist())
        if key not in self._weights:
            mixed = torch.einsum("ir,kcrs,js->ijck", rows, self.weight.double(), columns)
            self._weights[key] = mixed.flatten(0, 1).to(self.weight.dtype).contiguous()
        return self._weights[key]


class _Plan(NamedTuple):
    rows: list[Tile]
    into_columns: Tensor
    """(I, J * T, W), I equal copies: torch's batched product is fastest on contiguous memory."""
    out_columns: Tensor
    """(Q, J * T)."""
    weight: Tensor
    """(I * J, C, K)."""
