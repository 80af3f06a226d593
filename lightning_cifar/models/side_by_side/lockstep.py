"""Random state, optimizer, schedule and trainer of each member of a group of networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


class Stream:
    """Random numbers of a member, the same as in a separate run.

    Args:
        state: State of torch's generator after the member was built.
        seed: Seed of the member; None is the seed of the run.
    """

    def __init__(self, state: Tensor, seed: int | None = None) -> None:
        self.seed = seed
        self._generators = {"cpu": torch.Generator()}
        self._generators["cpu"].set_state(state)

    def restart(self) -> None:
        """Restart from the member's seed, or from the present state of torch's generators."""
        self._generators = {}
        self._generator(torch.device("cpu"))

    def _generator(self, device: torch.device) -> torch.Generator:
        """Generator of this member on a device."""
        key = str(device)
        if key not in self._generators:
            self._generators[key] = torch.Generator(device)
            if self.seed is None:
                self._generators[key].set_state(_random_state(device))
            else:
                self._generators[key].manual_seed(self.seed)
        return self._generators[key]

    @contextmanager
    def flowing(self, device: torch.device, keep: bool = True) -> Iterator[None]:
        """Use this member's generators as torch's global ones inside the context, and restore those afterwards.

        Args:
            device: Device of the member.
            keep: Whether the draws inside the context advance the member's generators.
        """
        devices = {torch.device("cpu"), device} if device.type == "cuda" else {torch.device("cpu")}
        outside = {each: _random_state(each) for each in devices}
        for each in devices:
            _set_random_state(each, self._generator(each).get_state())
        try:
            yield
        finally:
            for each, state in outside.items():
                if keep:
                    self._generator(each).set_state(_random_state(each))
                _set_random_state(each, state)

    def state_dict(self) -> dict[str, Tensor]:
        return {key: generator.get_state() for key, generator in self._generators.items()}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        for key, state in state_dict.items():
            device = torch.device(key)
            if device.type == "cpu" or torch.cuda.is_available():
                self._generator(device).set_state(state.cpu())


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def is_freshly_seeded() -> bool:
    """Return True if torch's generator has not been used since it was seeded."""
    return torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(torch.initial_seed()).get_state())


class Configured(NamedTuple):
    """Result of a member's ``configure_optimizers``, in one form."""

    optimizer: Optimizer
    scheduler: LRScheduler | None
    interval: str
    frequency: int


def read_configured(name: str, configured: object) -> Configured:
    """Read the optimizer and the schedule from any of the forms that Lightning accepts.

    Raises:
        ValueError: If there is not exactly one optimizer, there is more than one schedule, or one of them cannot step
            together with others.
    """
    scheduler: Any = None
    if isinstance(configured, list | tuple) and len(configured) == 2 and isinstance(configured[0], list | tuple):
        configured, schedulers = configured
        schedulers = schedulers if isinstance(schedulers, list | tuple) else [schedulers]
        if len(schedulers) > 1:
            raise ValueError(f"members.{name} has {len(schedulers)} schedules: a member of SideBySide can have one.")
        scheduler = schedulers[0] if schedulers else None
    if isinstance(configured, list | tuple):
        if len(configured) != 1:
            raise ValueError(f"members.{name} has {len(configured)} optimizers: a member of SideBySide needs one.")
        configured = configured[0]
    if isinstance(configured, Mapping):
        given: dict[str, Any] = {"optimizer": None, **configured}
        configured, scheduler = given["optimizer"], given.get("lr_scheduler")
    if not isinstance(configured, Optimizer):
        raise ValueError(f"members.{name} has no optimizer: a member of SideBySide needs one.")
    if isinstance(configured, torch.optim.LBFGS):
        raise ValueError(f"members.{name}: LBFGS evaluates the loss repeatedly in a step: train it in a separate run.")
    interval, frequency = "epoch", 1
    if isinstance(scheduler, Mapping):
        settings: dict[str, Any] = {"interval": interval, "frequency": frequency, **scheduler}
        interval, frequency, scheduler = settings["interval"], settings["frequency"], settings["scheduler"]
    if isinstance(scheduler, ReduceLROnPlateau):
        raise ValueError(
            f"members.{name}: ReduceLROnPlateau cannot be combined with other schedules: train it in a separate run."
        )
    return Configured(configured, scheduler, interval, frequency)


class Lockstep(Optimizer):
    """Steps the optimizers of several members.

    Its parameter groups are those of the members, named after the member, so that schedules, learning-rate monitors
    and a resume can read and change them.
    """

    def __init__(self, optimizers: Mapping[str, Optimizer]) -> None:
        self.optimizers = dict(optimizers)
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
        for optimizer in self.optimizers.values():
            optimizer.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"members": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, optimizer in self.optimizers.items():
            saved = state_dict["members"][name]
            if [group.keys() for group in saved["param_groups"]] != [group.keys() for group in optimizer.param_groups]:
                raise ValueError(
                    f"the checkpoint contains another optimizer of members.{name} than {type(optimizer).__name__}: "
                    "keep optimizer and decay_norm_and_bias, or start without the checkpoint."
                )
            optimizer.load_state_dict(saved)
        self.param_groups = self._member_groups()  # loading creates new groups


class Schedules(LRScheduler):
    """Steps the schedules of several members."""

    def __init__(self, optimizer: Lockstep, schedulers: Mapping[str, LRScheduler]) -> None:
        # super().__init__() would set the learning rates again.
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
    """Proxy of the trainer with the optimizer and schedule of one member; everything else is the trainer's."""

    def __init__(self, trainer: pl.Trainer) -> None:
        vars(self).update(_trainer=trainer, optimizers=[], lr_scheduler_configs=[])

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_trainer"], name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(vars(self)["_trainer"], name, value)
