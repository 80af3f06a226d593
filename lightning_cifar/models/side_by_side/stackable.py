"""Which networks can train as one stacked network, and whether that is faster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_cifar.models.side_by_side.lockstep import Stream
from lightning_cifar.models.side_by_side.stacked import CannotStackError, Stack
from lightning_cifar.models.trainable import Trainable

KINDS: tuple[type[Optimizer], ...] = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
FLAGS = ("amsgrad", "maximize", "capturable", "differentiable", "dampening")
GRADIENT_HOOKS = ("configure_gradient_clipping", "on_after_backward", "on_before_optimizer_step", "on_before_zero_grad")
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def make_stacks(
    members: Mapping[str, Trainable | pl.LightningModule],
    optimizers: Mapping[str, Optimizer],
    streams: Mapping[str, Stream],
    *,
    stack: Literal["auto"] | bool,
    device: torch.device,
    world_size: int = 1,
) -> list[Stack]:
    """Stack the members that can be, and tell what was decided.

    Args:
        members: By name, on the device.
        optimizers: Of each member, over its parameters.
        streams: Random state of each member.
        stack: True demands that every member is in a stack; ``auto`` stacks where that is known to be faster.
        device: Of the members.
        world_size: Processes that train together.

    Raises:
        ValueError: If all are demanded to be stacked and one cannot be; it says why.
    """
    if not stack or (stack == "auto" and len(members) < 2):
        return []
    groups: dict[object, list[str]] = {}
    for name, member in members.items():
        groups.setdefault(_signature(member, optimizers[name]), []).append(name)
    stacks: list[Stack] = []
    for names in groups.values():
        try:
            if len(names) < 2:
                raise CannotStackError("no other member has its architecture and kind of optimizer")
            for name in names:
                _check_member(members[name], optimizers[name], world_size)
            if stack == "auto":
                _check_worth(members[names[0]], device)
            own = [{name: each[name] for name in names} for each in (members, optimizers, streams)]
            stacks.append(Stack(*own))  # type: ignore[arg-type]  # three mappings by the same names
        except CannotStackError as reason:
            if stack is True:
                raise ValueError(
                    f"stack=true, but {' and '.join(names)} cannot be stacked: {reason}. Leave stack at auto."
                ) from None
            if len(names) > 1:
                rank_zero_info(f"SideBySide: {', '.join(names)} are not stacked: {reason}")
        else:
            rank_zero_info(f"SideBySide: {', '.join(names)} train as one stacked network")
    return stacks


def _check_member(member: pl.LightningModule, optimizer: Optimizer, world_size: int) -> None:
    """Refuse a member that no stack can hold."""
    if world_size > 1:
        raise CannotStackError("several processes train it")
    if not isinstance(member, Trainable):
        raise CannotStackError(f"{type(member).__name__} is no Trainable, whose step is known")
    if getattr(member, "_mix", None) is not None:
        raise CannotStackError("mixup and cutmix give each member inputs of its own")
    if type(optimizer) not in KINDS:
        raise CannotStackError(f"{type(optimizer).__name__} is not one of sgd, adam and adamw")
    for flag in FLAGS:
        if any(group.get(flag) for group in optimizer.param_groups):
            raise CannotStackError(f"its optimizer has {flag}")
    for hook in GRADIENT_HOOKS:
        if is_overridden(hook, member):
            raise CannotStackError(f"it has {hook}, which looks at its own gradients")
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if any(id(parameter) not in trained for parameter in member.parameters()):
        raise CannotStackError("some of its parameters are not trained")
    if not isinstance(member.example_input_array, Tensor):
        raise CannotStackError("it has no example_input_array to try it on")


def _check_worth(member: pl.LightningModule, device: torch.device) -> None:
    """Refuse where a stack was measured to be slower, see benchmarks/lockstep.py."""
    if device.type == "cpu" and any(isinstance(module, CONVOLUTIONS) for module in member.modules()):
        raise CannotStackError("convolutions of several networks at once are slower on a CPU")


def _signature(member: pl.LightningModule, optimizer: Optimizer) -> object:
    """Equal for members of one architecture, whatever the probabilities of their dropouts."""
    with _without_dropout_rates(member):
        layers = repr(member)
    shapes = tuple((name, tuple(p.shape), p.stride(), p.dtype) for name, p in member.named_parameters())
    names = {id(parameter): name for name, parameter in member.named_parameters()}
    groups = tuple(tuple(names[id(p)] for p in group["params"]) for group in optimizer.param_groups)
    return type(member), layers, shapes, groups, type(optimizer)


@contextmanager
def _without_dropout_rates(member: nn.Module) -> Iterator[None]:
    rates = [(module, module.p) for module in member.modules() if type(module) is nn.Dropout and 0 < module.p < 1]
    for module, _ in rates:
        module.p = 0.5
    try:
        yield
    finally:
        for module, rate in rates:
            module.p = rate
