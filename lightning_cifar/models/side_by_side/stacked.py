"""Networks of one architecture trained as one: their parameters stacked, mapped over by ``torch.func.vmap``.

The members' own parameters, buffers and optimizer states become views into the stacked ones. Whoever looks at a member
(a validation, a callback, a checkpoint) sees it as it is at that moment, and needs not know of the stack.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.optim import Optimizer

from lightning_cifar.analysis.modes import undisturbed
from lightning_cifar.models.side_by_side.flat_parameters import adam_step, find_places, gather_rows, sgd_step
from lightning_cifar.models.side_by_side.lockstep import Stream


class CannotStackError(Exception):
    """Why some networks cannot be trained as one."""


@contextmanager
def answering(name: str, member: pl.LightningModule, inputs: Tensor, answer: Tensor) -> Iterator[None]:
    """Inside, the member's forward pass over the inputs is the answer that the stack has found.

    Raises:
        RuntimeError: If the member asks for something else, or not once.
    """
    calls = 0

    def forward(given: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if given is not inputs:
            raise RuntimeError(f"members.{name} changes its inputs before the forward pass: pass stack=false.")
        return answer

    object.__setattr__(member, "forward", forward)
    try:
        yield
    finally:
        object.__delattr__(member, "forward")
    if calls != 1:
        raise RuntimeError(f"members.{name} made {calls} forward passes in a step, not one: pass stack=false.")


class _Drawn(NamedTuple):
    """A mask that a dropout layer needs for a batch."""

    path: str
    size: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype


class MaskedDropout(nn.Module):
    """Dropout whose mask, scaled, is given to it."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(()), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        return values * self.mask if self.training else values


class Stack:
    """Some members of one architecture as one network with one optimizer.

    A parameter group of all K members is one leaf (K, P): an optimizer step is a few operations on it, with a learning
    rate, a decay and a momentum for each row.

    Args:
        members: Two or more, by name.
        optimizers: Over their parameters; they hold the settings and, as views, the state.
        streams: Their random states, from which the masks of dropouts come as they would alone.

    Raises:
        CannotStackError: If the stacked network does not give what the members give.
    """

    def __init__(
        self,
        members: Mapping[str, pl.LightningModule],
        optimizers: Mapping[str, Optimizer],
        streams: Mapping[str, Stream],
    ) -> None:
        self.names = tuple(members)
        self._members, self._optimizers = list(members.values()), list(optimizers.values())
        self._streams = list(streams.values())
        self._skeleton = _skeleton(self._members[0])
        self._twins = [(twin, self._members[0].get_submodule(path)) for path, twin in self._skeleton.named_modules()]
        self._dropouts = {
            path: twin for path, twin in self._skeleton.named_modules() if isinstance(twin, MaskedDropout)
        }
        self._drawn: dict[object, list[_Drawn]] = {}
        self._places = find_places(self._members[0], self._optimizers[0])
        self._rows = [gather_rows(self._members, places).requires_grad_() for places in self._places]
        self._buffers = {
            name: torch.stack([member.get_buffer(name) for member in self._members])
            for name, _ in self._members[0].named_buffers()
        }
        self._state: list[dict[str, Tensor]] = []
        self._check()
        self._share()
        self.adopt_state()

    def __call__(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """What each member makes of the inputs."""
        for twin, original in self._twins:
            twin.training = original.training
        state = dict(self._parameters()) | self._buffers | self._masks(inputs)
        outputs: Tensor = vmap(self._call, in_dims=(0, None), randomness="error")(state, inputs)
        return outputs.unbind(0)

    def _call(self, state: dict[str, Tensor], inputs: Tensor) -> Any:
        return functional_call(self._skeleton, state, (inputs,))

    def _parameters(self) -> Iterator[tuple[str, Tensor]]:
        for places, rows in zip(self._places, self._rows, strict=True):
            # One split: its gradient is one concatenation.
            pieces = torch.split(rows, [place.size.numel() for place in places], dim=1)
            for place, piece in zip(places, pieces, strict=True):
                axes = (0, *(axis + 1 for axis in place.back))
                yield place.name, piece.view(-1, *place.stored).permute(axes)

    def _masks(self, inputs: Tensor) -> dict[str, Tensor]:
        """Of each active dropout layer, the members' masks (K, ...), drawn by each member as it would alone."""
        if not any(twin.training for twin in self._dropouts.values()):
            return {}
        drawn = self._needed_masks(inputs)
        masks: dict[str, list[Tensor]] = {each.path: [] for each in drawn}
        for member, stream in zip(self._members, self._streams, strict=True):
            generator = stream.generator(inputs.device)
            for each in drawn:
                keep = 1 - float(member.get_submodule(each.path).p)  # type: ignore[arg-type]  # a dropout
                noise = torch.empty_strided(each.size, each.stride, dtype=each.dtype, device=inputs.device)
                masks[each.path].append(noise.bernoulli_(keep, generator=generator).div_(keep))
        return {f"{path}.mask": torch.stack(noises) for path, noises in masks.items()}

    def _needed_masks(self, inputs: Tensor) -> list[_Drawn]:
        """In the order of the forward pass."""
        active = tuple(path for path, twin in self._dropouts.items() if twin.training)
        key = (inputs.shape, inputs.dtype, torch.is_autocast_enabled(inputs.device.type), active)
        if key not in self._drawn:
            seen: list[tuple[str, Tensor]] = []
            hooks = [
                twin.register_forward_pre_hook(lambda _, args, path=path: seen.append((path, args[0])))
                for path, twin in self._dropouts.items()
                if twin.training
            ]
            try:
                first = self._members[0]
                state = {name: value.detach() for name, value in first.named_parameters()}
                state |= {name: value.clone() for name, value in first.named_buffers()}
                with torch.no_grad(), torch.random.fork_rng(devices=[]):
                    self._call(state, inputs)
            finally:
                for hook in hooks:
                    hook.remove()
            noises = ((path, torch.empty_like(values)) for path, values in seen)
            self._drawn[key] = [_Drawn(path, noise.shape, noise.stride(), noise.dtype) for path, noise in noises]
            if len({each.path for each in self._drawn[key]}) < len(self._drawn[key]):
                raise CannotStackError("a dropout layer is used more than once")
        return self._drawn[key]

    def zero_grad(self) -> None:
        for rows in self._rows:
            rows.grad = None

    def clip(self, value: float | None, algorithm: str | None) -> None:
        """Clip each member's gradients, by its own norm or by value, as torch.nn.utils do."""
        gradients = [rows.grad for rows in self._rows if rows.grad is not None]
        if not value or value <= 0 or not gradients:
            return
        if algorithm == "value":
            for gradient in gradients:
                gradient.clamp_(-value, value)
            return
        norms = torch.stack([torch.linalg.vector_norm(gradient, dim=1) for gradient in gradients])
        factor = (value / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factor[:, None])

    @torch.no_grad()
    def step(self) -> None:
        """One step of every member's optimizer."""
        for i, (rows, state) in enumerate(zip(self._rows, self._state, strict=True)):
            if rows.grad is None:
                continue
            groups = [optimizer.param_groups[i] for optimizer in self._optimizers]
            if isinstance(self._optimizers[0], torch.optim.SGD):
                sgd_step(rows, rows.grad, state, groups)
            else:
                adam_step(rows, rows.grad, state, groups)

    def adopt_state(self) -> None:
        """Take over the state in the members' optimizers, if any, and put views of the stacked state in its place."""
        names: tuple[str, ...] = ("exp_avg", "exp_avg_sq")
        if isinstance(self._optimizers[0], torch.optim.SGD):
            names = ("momentum_buffer",) if any(o.param_groups[0]["momentum"] for o in self._optimizers) else ()
        self._state = []
        for places, rows in zip(self._places, self._rows, strict=True):
            state = {name: torch.zeros_like(rows) for name in names}
            if "exp_avg" in names:
                state["step"] = torch.zeros(())  # on the CPU, as torch has it; the members keep the same steps
            for k, (member, optimizer) in enumerate(zip(self._members, self._optimizers, strict=True)):
                for place in places:
                    own = optimizer.state[member.get_parameter(place.name)]
                    views = {name: place.view(state[name][k]) for name in names}
                    for name, view in views.items():
                        if own.get(name) is not None:
                            view.copy_(own[name])
                    if "step" in state:
                        state["step"].copy_(own.get("step", state["step"]))
                    own.update(views)
            self._state.append(state)

    def publish_state(self) -> None:
        """Bring what is no view in the members' optimizers up to date, for a checkpoint."""
        for places, state in zip(self._places, self._state, strict=True):
            for member, optimizer in zip(self._members, self._optimizers, strict=True):
                for place in places:
                    if "step" in state:
                        # One for each parameter: torch adds to it in place.
                        optimizer.state[member.get_parameter(place.name)]["step"] = state["step"].clone()

    def release(self) -> None:
        """Give the members memory of their own again."""
        for member in self._members:
            for tensor in (*member.parameters(), *member.buffers()):
                tensor.data = tensor.data.clone()

    def _share(self) -> None:
        """Make the members' parameters and buffers views of the stacked ones."""
        for k, member in enumerate(self._members):
            for places, rows in zip(self._places, self._rows, strict=True):
                for place in places:
                    member.get_parameter(place.name).data = place.view(rows.detach()[k])
            for name, stacked in self._buffers.items():
                member.get_buffer(name).data = stacked[k]

    def _check(self) -> None:
        """The stacked network gives what the members give, in evaluation mode, and trains."""
        example = self._members[0].example_input_array
        assert isinstance(example, Tensor)
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(4, *example.shape[1:], generator=generator).to(self._rows[0])
        flags = [(module, module.training) for member in self._members for module in member.modules()]
        for stream in self._streams:
            stream.generator(inputs.device)  # so that its state is in what is kept
        states = [stream.state_dict() for stream in self._streams]
        buffers = {name: value.clone() for name, value in self._buffers.items()}
        try:
            for training in (True, False):
                for module, _ in flags:
                    module.training = training
                with torch.no_grad():
                    answers = self(inputs)
                for name, value in buffers.items():
                    self._buffers[name].copy_(value)
        except CannotStackError:
            raise
        except Exception as error:  # whatever vmap and the network raise
            raise CannotStackError(f"torch cannot map over it ({' '.join(str(error).split())[:120]})") from error
        finally:
            for module, training in flags:
                module.training = training
            for stream, state in zip(self._streams, states, strict=True):
                stream.load_state_dict(state)
        for member, answer in zip(self._members, answers, strict=True):
            with undisturbed(member):
                for module in member.modules():
                    module.training = False
                expected = member(inputs)
            if not torch.allclose(answer, expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max()) + 1e-6):
                raise CannotStackError("stacked, it computes something else")


def _skeleton(member: pl.LightningModule) -> pl.LightningModule:
    """A copy in which dropout layers take their masks from outside."""
    skeleton = copy.deepcopy(member)
    for path, module in list(skeleton.named_modules()):
        if type(module) is nn.Dropout and 0 < module.p < 1:
            skeleton.set_submodule(path, MaskedDropout())
    return skeleton
