"""An optimizer that uses Muon for weights, and AdamW for vectors such as biases."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

# With this adjustment (Liu et al., 2502.16982) the steps of Muon have the size of those of AdamW, so that both can use
# one learning rate.
ADJUST_LR = "match_rms_adamw"


class MuonAdamW(torch.optim.Optimizer):
    """Muon for weights with two or more axes, and AdamW for vectors.

    torch's Muon accepts only matrices: it gets the weight (K, C, R, S) of a convolution as a view (K, C * R * S).

    Args:
        params: Groups of parameters.
        lr: Learning rate of both optimizers.
        momentum: Momentum of Muon.
        nesterov: Whether Muon uses Nesterov momentum.
        weight_decay: Decoupled weight decay of both optimizers.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self._parts: list[tuple[dict[str, Any], torch.optim.Optimizer, list[tuple[Tensor, nn.Parameter]]]] = []
        for group in self.param_groups:
            kwargs = {"lr": group["lr"], "weight_decay": group["weight_decay"]}
            matrices = [(parameter, _as_matrix(parameter)) for parameter in group["params"] if parameter.ndim > 1]
            vectors = [
                (parameter, nn.Parameter(parameter.detach())) for parameter in group["params"] if parameter.ndim < 2
            ]
            if matrices:
                views = [view for _, view in matrices]
                muon = torch.optim.Muon(views, momentum=momentum, nesterov=nesterov, adjust_lr_fn=ADJUST_LR, **kwargs)
                self._parts.append((group, muon, matrices))
            if vectors:
                self._parts.append((group, torch.optim.AdamW([view for _, view in vectors], **kwargs), vectors))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, optimizer, pairs in self._parts:
            for inner in optimizer.param_groups:  # a schedule changes the groups of this optimizer
                inner["lr"], inner["weight_decay"] = group["lr"], group["weight_decay"]
            for parameter, view in pairs:
                view.grad = None if parameter.grad is None else _rows(parameter, parameter.grad).view_as(view)
            optimizer.step()
            for _, view in pairs:
                view.grad = None
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "parts": [optimizer.state_dict() for _, optimizer, _ in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        parts = state_dict["parts"]
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "parts"})
        self._parts = [
            (group, optimizer, pairs)
            for group, (_, optimizer, pairs) in zip(self._groups_of_parts(), self._parts, strict=True)
        ]
        for (_, optimizer, _), part in zip(self._parts, parts, strict=True):
            optimizer.load_state_dict(part)

    def _groups_of_parts(self) -> list[dict[str, Any]]:
        """Return the group of each part after loading, which creates new groups."""
        return [
            next(group for group in self.param_groups if any(parameter is pairs[0][0] for parameter in group["params"]))
            for _, _, pairs in self._parts
        ]


def _rows(parameter: Tensor, values: Tensor) -> Tensor:
    """Return values of a parameter's shape as one row for each filter, in the memory order of the parameter."""
    if parameter.ndim == 4 and parameter.is_contiguous(memory_format=torch.channels_last):
        values = values.permute(0, 2, 3, 1)  # the order within a row does not matter to Muon
    return values.reshape(parameter.shape[0], -1) if parameter.ndim > 1 else values


def _as_matrix(parameter: Tensor) -> nn.Parameter:
    matrix = nn.Parameter(_rows(parameter, parameter.detach()))
    if matrix.data_ptr() != parameter.data_ptr():
        raise ValueError(
            f"muon needs contiguous weights: one of shape {tuple(parameter.shape)} has strides {parameter.stride()}."
        )
    return matrix
