"""Parameters of several networks as the rows of a matrix, and optimizer steps with settings for each row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Groups: TypeAlias = Sequence[Mapping[str, Any]]
"""One parameter group of a torch optimizer for each row."""


class Place(NamedTuple):
    """Where a parameter lies in the rows of its group, and how it lies there."""

    name: str
    start: int
    size: torch.Size
    order: tuple[int, ...]  # of the axes, the slowest first

    @property
    def stored(self) -> tuple[int, ...]:
        return tuple(self.size[axis] for axis in self.order)

    @property
    def back(self) -> tuple[int, ...]:
        return tuple(self.order.index(axis) for axis in range(len(self.order)))

    def view(self, row: Tensor) -> Tensor:
        """This parameter in a row (P,)."""
        return row[self.start : self.start + self.size.numel()].view(self.stored).permute(self.back)


def find_places(member: nn.Module, optimizer: Optimizer) -> list[list[Place]]:
    """Of each parameter group, where its parameters go.

    Raises:
        ValueError: If a parameter has gaps in memory.
    """
    names = {id(parameter): name for name, parameter in member.named_parameters()}
    places = []
    for group in optimizer.param_groups:
        starts = [0, *accumulate(parameter.numel() for parameter in group["params"])]
        places.append(
            [
                Place(names[id(p)], start, p.shape, _axes_as_stored(p))
                for p, start in zip(group["params"], starts, strict=False)
            ]
        )
    return places


def _axes_as_stored(parameter: Tensor) -> tuple[int, ...]:
    """The order of the axes in memory, so that channels_last stays channels_last."""
    order = tuple(sorted(range(parameter.ndim), key=parameter.stride, reverse=True))
    if not parameter.permute(order).is_contiguous():
        raise ValueError(f"a parameter of shape {tuple(parameter.shape)} has gaps in memory")
    return order


@torch.no_grad()
def gather_rows(members: Sequence[nn.Module], places: Sequence[Place]) -> Tensor:
    """Rows (K, P), one a member."""
    size = sum(math.prod(place.size) for place in places)
    first = members[0].get_parameter(places[0].name)
    rows = torch.empty(len(members), size, dtype=first.dtype, device=first.device)
    for row, member in zip(rows, members, strict=True):
        for place in places:
            place.view(row).copy_(member.get_parameter(place.name))
    return rows


def sgd_step(rows: Tensor, gradient: Tensor, state: dict[str, Tensor], groups: Groups) -> None:
    """torch.optim.SGD's step with settings for each row. The gradient is used up."""
    lr, momentum, decay = (_per_row(groups, key, rows) for key in ("lr", "momentum", "weight_decay"))
    if _is_active(decay):
        gradient.add_(rows * decay)
    if "momentum_buffer" in state:
        velocity = state["momentum_buffer"].mul_(momentum).add_(gradient)
        # Nesterov's look ahead, for the rows that have it.
        ahead = _per_row([{"nesterov": float(group["nesterov"])} for group in groups], "nesterov", rows)
        if _is_active(ahead):
            gradient.mul_(ahead).add_(velocity * (momentum * ahead + 1 - ahead))
        else:
            gradient.copy_(velocity)
    rows.sub_(gradient.mul_(lr))


def adam_step(rows: Tensor, gradient: Tensor, state: dict[str, Tensor], groups: Groups) -> None:
    """The step of torch.optim.Adam and AdamW (Kingma & Ba, 1412.6980; Loshchilov & Hutter, 1711.05101) likewise.

    The gradient is used up: memory that is fresh in each step would cost half of it.
    """
    lr, decay, eps = (_per_row(groups, key, rows) for key in ("lr", "weight_decay", "eps"))
    betas = [{"first": group["betas"][0], "second": group["betas"][1]} for group in groups]
    first, second = (_per_row(betas, key, rows) for key in ("first", "second"))
    step = float(state["step"].add_(1))
    if _is_active(decay):
        if groups[0].get("decoupled_weight_decay"):
            rows.mul_(1 - lr * decay)
        else:
            gradient.add_(rows * decay)
    mean = state["exp_avg"].lerp_(gradient, 1 - first)
    square = state["exp_avg_sq"].mul_(second).add_(gradient.square_().mul_(1 - second))
    denominator = torch.sqrt(square, out=gradient).div_((1 - second**step) ** 0.5).add_(eps)
    rows.sub_(torch.div(mean, denominator, out=denominator).mul_(lr / (1 - first**step)))


def _per_row(groups: Groups, key: str, rows: Tensor) -> Any:
    """A setting of the members: a number where they agree, else a column (K, 1)."""
    values = [float(group[key]) for group in groups]
    if len(set(values)) == 1:
        return values[0]
    return torch.tensor(values, dtype=rows.dtype, device=rows.device)[:, None]


def _is_active(setting: Any) -> bool:
    return isinstance(setting, Tensor) or setting != 0
