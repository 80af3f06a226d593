"""What a member keeps for itself while several train as one: random state, optimizer, schedule, view of the trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


class Stream:
    """The random numbers that a member draws: those that it would draw alone.

    Args:
        state: Of torch's generator, after the member was built.
        seed: The member's own, for its draws on a GPU; None for those of the run.
    """

    def __init__(self, state: Tensor, seed: int | None = None) -> None:
        self.seed = seed
        self._generators = {"cpu": torch.Generator()}
        self._generators["cpu"].set_state(state)

    def restart(self) -> None:
        """Begin anew at the member's own seed, or as torch's generators are now."""
        own = torch.Generator()
        self._generators = {"cpu": own}
        if self.seed is None:
            own.set_state(torch.get_rng_state())
        else:
            own.manual_seed(self.seed)

    def generator(self, device: torch.device) -> torch.Generator:
        """Of this member, on a device."""
        key = str(device)
        if key not in self._generators:
            self._generators[key] = torch.Generator(device)
            if self.seed is None:
                self._generators[key].set_state(torch.cuda.get_rng_state(device))
            else:
                self._generators[key].manual_seed(self.seed)
        return self._generators[key]

    @contextmanager
    def flowing(self, device: torch.device, keep: bool = True) -> Iterator[None]:
        """What is drawn inside comes from here; torch's own state is as before afterwards.

        Args:
            device: Where the member is.
            keep: False forgets afterwards what was drawn.
        """
        own = self._generators["cpu"]
        on_gpu = self.generator(device) if device.type == "cuda" else None
        outside = torch.get_rng_state()
        outside_gpu = torch.cuda.get_rng_state(device) if on_gpu is not None else None
        torch.set_rng_state(own.get_state())
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu.get_state(), device)
        try:
            yield
        finally:
            if keep:
                own.set_state(torch.get_rng_state())
            torch.set_rng_state(outside)
            if on_gpu is not None and outside_gpu is not None:
                if keep:
                    on_gpu.set_state(torch.cuda.get_rng_state(device))
                torch.cuda.set_rng_state(outside_gpu, device)

    def state_dict(self) -> dict[str, Tensor]:
        return {key: generator.get_state() for key, generator in self._generators.items()}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        for key, state in state_dict.items():
            device = torch.device(key)
            if device.type == "cpu" or torch.cuda.is_available():
                self.generator(device).set_state(state.cpu())


def is_freshly_seeded() -> bool:
    """Whether nothing was drawn from torch's generator since it got its seed."""
    return torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(torch.initial_seed()).get_state())


class Configured(NamedTuple):
    """What a member's ``configure_optimizers`` gave, in one form."""

    optimizer: Optimizer
    scheduler: LRScheduler | None
    interval: str
    frequency: int


def read_configured(name: str, configured: object) -> Configured:
    """The optimizer and the schedule in any of the forms that Lightning knows.

    Raises:
        ValueError: If there is not exactly one optimizer and at most one schedule, or they are of a kind that cannot
            step together with others.
    """
    scheduler: Any = None
    if isinstance(configured, list | tuple) and len(configured) == 2 and isinstance(configured[0], list | tuple):
        configured, schedulers = configured
        schedulers = schedulers if isinstance(schedulers, list | tuple) else [schedulers]
        if len(schedulers) > 1:
            raise ValueError(f"members.{name} has {len(schedulers)} schedules: side by side it may have one.")
        scheduler = schedulers[0] if schedulers else None
    if isinstance(configured, list | tuple):
        if len(configured) != 1:
            raise ValueError(f"members.{name} has {len(configured)} optimizers: side by side it needs one.")
        configured = configured[0]
    if isinstance(configured, Mapping):
        given: dict[str, Any] = {"optimizer": None, **configured}
        configured, scheduler = given["optimizer"], given.get("lr_scheduler")
    if not isinstance(configured, Optimizer):
        raise ValueError(f"members.{name} has no optimizer: side by side it needs one.")
    if isinstance(configured, torch.optim.LBFGS):
        raise ValueError(f"members.{name}: LBFGS evaluates its loss by itself, which cannot be shared: train it alone.")
    interval, frequency = "epoch", 1
    if isinstance(scheduler, Mapping):
        settings: dict[str, Any] = {"interval": interval, "frequency": frequency, **scheduler}
        interval, frequency, scheduler = settings["interval"], settings["frequency"], settings["scheduler"]
    if isinstance(scheduler, ReduceLROnPlateau):
        raise ValueError(f"members.{name}: a schedule that watches a metric cannot be shared: train it alone.")
    return Configured(configured, scheduler, interval, frequency)


class Joint(Protocol):
    """Steps some members' optimizers at once, and leaves their state in them."""

    names: tuple[str, ...]

    def step(self) -> None: ...

    def zero_grad(self) -> None: ...

    def adopt_state(self) -> None: ...

    def publish_state(self) -> None: ...


class Lockstep(Optimizer):
    """Steps the optimizers of several members, each over its own parameters.

    The parameter groups are the members' own, each with the name of its member, so that a schedule, a monitor of
    learning rates or a resume sees and changes them.

    Args:
        optimizers: By member.
        joints: Take the place of some of the optimizers, which go on holding settings and state.
    """

    def __init__(self, optimizers: Mapping[str, Optimizer], joints: Sequence[Joint] = ()) -> None:
        self.optimizers, self.joints = dict(optimizers), tuple(joints)
        joined = {name for joint in joints for name in joint.names}
        self._single = [optimizer for name, optimizer in self.optimizers.items() if name not in joined]
        for name in joined:  # torch's mark of an optimizer that steps, for which schedules look
            self.optimizers[name]._opt_called = True  # type: ignore[attr-defined]
        for name, optimizer in self.optimizers.items():
            several = len(optimizer.param_groups) > 1
            for i, group in enumerate(optimizer.param_groups, start=1):
                group["name"] = f"{name}-{i}" if several else name
        super().__init__(self._member_groups(), {})

    def _member_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers.values() for group in optimizer.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self._single:
            optimizer.step()
        for joint in self.joints:
            joint.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self._single:
            optimizer.zero_grad(set_to_none)
        for joint in self.joints:
            joint.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        for joint in self.joints:
            joint.publish_state()
        return {"members": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, optimizer in self.optimizers.items():
            saved = state_dict["members"][name]
            if [group.keys() for group in saved["param_groups"]] != [group.keys() for group in optimizer.param_groups]:
                raise ValueError(
                    f"the checkpoint holds another optimizer of members.{name} than {type(optimizer).__name__}: "
                    "leave optimizer and decay_norm_and_bias as they were, or start without the checkpoint."
                )
            optimizer.load_state_dict(saved)
        for joint in self.joints:
            joint.adopt_state()
        self.param_groups = self._member_groups()  # loading made new ones


class Schedules(LRScheduler):
    """Steps the schedules of several members.

    Args:
        optimizer: The one that steps their optimizers.
        schedulers: By member; not all need have one.
    """

    def __init__(self, optimizer: Lockstep, schedulers: Mapping[str, LRScheduler]) -> None:
        # Without super().__init__(), which sets learning rates: the schedules have done that.
        self.optimizer, self.schedulers = optimizer, dict(schedulers)

    def step(self, epoch: int | None = None) -> None:
        for scheduler in self.schedulers.values():
            scheduler.step()

    def get_last_lr(self) -> list[float | Tensor]:
        return [lr for scheduler in self.schedulers.values() for lr in scheduler.get_last_lr()]

    def state_dict(self) -> dict[str, Any]:
        return {name: scheduler.state_dict() for name, scheduler in self.schedulers.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, scheduler in self.schedulers.items():
            scheduler.load_state_dict(state_dict[name])


class OwnTrainer:
    """The trainer as a member sees it: with the member's own optimizer and schedule, otherwise itself."""

    def __init__(self, trainer: pl.Trainer) -> None:
        vars(self).update(_trainer=trainer, optimizers=[], lr_scheduler_configs=[])

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_trainer"], name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(vars(self)["_trainer"], name, value)
