"""torch's Muon for the weights that it is made for, and AdamW for the rest, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Muon's step on a matrix has the size of an AdamW step with this adjustment (Liu et al., 2502.16982), so that both
# halves can share one learning rate.
ADJUST_LR = "match_rms_adamw"


class MuonAdamW(torch.optim.Optimizer):
    """Muon on weights of two and more axes, each filter a row, and AdamW on vectors.

    torch's Muon takes matrices alone; a convolution's weight (K, C, R, S) is given to it as a view (K, C * R * S).

    Args:
        params: Groups of parameters.
        lr: Learning rate of both.
        momentum: Muon's.
        nesterov: Muon's.
        weight_decay: Decoupled, of both.
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
            for inner in optimizer.param_groups:  # a schedule changes the outer groups
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
        """The group of each part, after loading made new ones."""
        return [
            next(group for group in self.param_groups if any(parameter is pairs[0][0] for parameter in group["params"]))
            for _, _, pairs in self._parts
        ]


def _rows(parameter: Tensor, values: Tensor) -> Tensor:
    """Values of a parameter's shape as rows, one a filter, in the order in which the parameter lies in memory."""
    if parameter.ndim == 4 and parameter.is_contiguous(memory_format=torch.channels_last):
        values = values.permute(0, 2, 3, 1)  # Muon does not mind the order of a row's entries
    return values.reshape(parameter.shape[0], -1) if parameter.ndim > 1 else values


def _as_matrix(parameter: Tensor) -> nn.Parameter:
    matrix = nn.Parameter(_rows(parameter, parameter.detach()))
    if matrix.data_ptr() != parameter.data_ptr():
        raise ValueError(f"A weight of shape {tuple(parameter.shape)} and stride {parameter.stride()} is no matrix.")
    return matrix
