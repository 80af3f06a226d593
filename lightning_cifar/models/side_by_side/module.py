"""LightningModule that trains several networks in lockstep on the same batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.types import LRSchedulerConfig, OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_cifar.models.side_by_side.lockstep import (
    Lockstep,
    OwnTrainer,
    Schedules,
    Stream,
    is_freshly_seeded,
    read_configured,
)
from lightning_cifar.models.side_by_side.member_configs import build_members, check_members

Shared: TypeAlias = bool | int | float | str | list[Any] | None
STATE_KEY = "side_by_side"  # in checkpoints: random states and additional content of the members
HOOKS = (
    *("configure_model", "teardown", "on_after_backward"),
    *("on_fit_start", "on_fit_end"),
    *("on_train_start", "on_train_epoch_start", "on_train_batch_start", "on_train_epoch_end", "on_train_end"),
    *("on_validation_start", "on_validation_epoch_start", "on_validation_batch_start"),
    *("on_validation_epoch_end", "on_validation_end"),
    *("on_test_start", "on_test_epoch_start", "on_test_batch_start", "on_test_epoch_end", "on_test_end"),
    *("on_predict_start", "on_predict_batch_start", "on_predict_end"),
)
"""Hooks that are called for every member, and whose result is ignored."""


def _of_every_member(hook: str) -> Callable[..., None]:
    """Return a hook that calls the same hook of every member that overrides it."""

    def call(self: SideBySide, *args: object, **kwargs: object) -> None:
        for name in self._members_with(hook):
            with self._turn(name) as member:
                getattr(member, hook)(*args, **kwargs)

    call.__name__ = call.__qualname__ = hook
    return call


class SideBySide(pl.LightningModule):
    """Trains several named networks in lockstep: all members get the same batches.

    Each member has a separate optimizer, schedule and random state. Its weights are bit for bit those of a separate run
    (``seed_everything(s)``, build it, fit it on the same data), if the data module does not use torch's global
    generator; those of this package do not. The name of a member is appended to its metrics: ``train/loss/plain``,
    ``val/accuracy/batch_norm``. Its layers are called ``members.plain.network.2``. Members share the loading of batches
    and the overhead of the trainer: two small networks cost less than two runs.

    Args:
        members: Plain values by name: ``class_path``, a class of this package or a dotted path; ``init_args``, its
            arguments; and optionally ``seed``, which defaults to that of the run.
        shared: Arguments of all members, such as ``lr``. The ``init_args`` of a member override them.
        stack: Has no effect. Accepted because checkpoints and configurations of earlier versions contain it.
        num_classes: Number of classes of the data, passed to every member with this argument.
        in_channels: Channels of an image, passed on likewise.
        image_size: Height and width of an image in pixels, passed on likewise.

    Raises:
        ValueError: If there are no members, a name is not an identifier, a class or an argument is unknown, or members
            need different inputs.

    Example:
        >>> import torch
        >>> from lightning_cifar import SideBySide
        >>> pair = SideBySide({"plain": {"class_path": "MLP"}, "tanh": {"class_path": "MLP"}}, {"hidden_sizes": [8]})
        >>> {name: tuple(logits.shape) for name, logits in pair(torch.zeros(2, 3, 32, 32)).items()}
        {'plain': (2, 10), 'tanh': (2, 10)}
    """

    def __init__(
        self,
        members: dict[str, dict[str, Any]],
        shared: dict[str, Shared] | None = None,
        stack: Literal["auto"] | bool = "auto",
        num_classes: int | None = None,
        in_channels: int | None = None,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        settings = check_members(members, shared)
        self.save_hyperparameters()
        given = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
        modules, states = build_members(settings, given)
        self.members = nn.ModuleDict(modules)
        if stack is True:
            rank_zero_warn("stack (=True) has no effect: all members train in lockstep. Leave it out.")
        self._streams = {name: Stream(state, settings[name].get("seed")) for name, state in states.items()}
        self._overriding: dict[str, list[str]] = {}
        self.example_input_array = next(iter(modules.values())).example_input_array

    def member(self, name: str) -> pl.LightningModule:
        """Return a member by its name."""
        found = self.members[name]
        assert isinstance(found, pl.LightningModule)
        return found

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return the outputs of every member by name."""
        return {name: member(inputs) for name, member in self.members.items()}

    def setup(self, stage: str) -> None:
        if is_freshly_seeded():  # after the members were built: by the user, or by Lightning in distributed runs
            for stream in self._streams.values():
                stream.restart()
        for name in self.members:
            self.member(name).trainer = OwnTrainer(self.trainer)  # type: ignore[assignment]  # a proxy
        _of_every_member("setup")(self, stage)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        if self.trainer.lightning_module is not self:
            raise ValueError(
                "SideBySide has a learning rate for each member: find the learning rate of a member in a separate run."
            )
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            raise ValueError("precision=16-mixed cannot scale the loss of each member: choose bf16-mixed or 32-true.")
        optimizers: dict[str, Optimizer] = {}
        schedulers: dict[str, LRScheduler] = {}
        paces: set[tuple[str, int]] = set()
        for name in self.members:
            with self._turn(name) as member:
                configured = read_configured(name, member.configure_optimizers())
            optimizers[name] = configured.optimizer
            own: Any = member.trainer
            vars(own)["optimizers"] = [configured.optimizer]
            if configured.scheduler is not None:
                schedulers[name] = configured.scheduler
                paces.add((configured.interval, configured.frequency))
                config = LRSchedulerConfig(
                    schedulers[name], interval=configured.interval, frequency=configured.frequency
                )
                vars(own)["lr_scheduler_configs"] = [config]
        lockstep = Lockstep(optimizers)
        if not schedulers:
            return lockstep
        if len(paces) > 1:
            raise ValueError(
                f"members' schedules step at different times ({sorted(paces)}): use one interval and frequency."
            )
        interval, frequency = paces.pop()
        schedules = Schedules(lockstep, schedulers)
        return {
            "optimizer": lockstep,
            "lr_scheduler": {"scheduler": schedules, "interval": interval, "frequency": frequency, "name": "lr"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients of each member separately."""
        for name in self.members:
            own = self._optimizer_of(name)
            self.member(name).configure_gradient_clipping(own, gradient_clip_val, gradient_clip_algorithm)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any] | None:
        """Return the sum of the members' losses as ``loss``, and the output of each member as ``members``."""
        outputs = self._step("training_step", batch, batch_idx)
        losses, detached = [], {}
        for name, output in outputs.items():
            loss = output["loss"] if isinstance(output, Mapping) else output
            if loss is not None:
                losses.append(loss)
                extra = output if isinstance(output, Mapping) else {}
                detached[name] = {**extra, "loss": loss.detach()}
        return {"loss": torch.stack(losses).sum(), "members": detached} if losses else None

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        return {"members": self._step("validation_step", batch, batch_idx)}

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        return {"members": self._step("test_step", batch, batch_idx)}

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Return the predictions of every member by name."""
        return self._step("predict_step", batch, batch_idx)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._pass_outputs("on_train_batch_end", outputs, batch, batch_idx)

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._pass_outputs("on_validation_batch_end", outputs, batch, batch_idx, dataloader_idx)

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._pass_outputs("on_test_batch_end", outputs, batch, batch_idx, dataloader_idx)

    def on_before_zero_grad(self, optimizer: Optimizer) -> None:
        for name in self._members_with("on_before_zero_grad"):
            with self._turn(name) as member:
                member.on_before_zero_grad(self._optimizer_of(name))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        for name in self._members_with("on_before_optimizer_step"):
            with self._turn(name) as member:
                member.on_before_optimizer_step(self._optimizer_of(name))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["class_path"] = f"{type(self).__module__}.{type(self).__qualname__}"
        checkpoint[STATE_KEY] = {}
        for name, stream in self._streams.items():
            own: dict[str, Any] = {}
            self.member(name).on_save_checkpoint(own)
            checkpoint[STATE_KEY][name] = {"random": stream.state_dict(), "own": own}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for name, state in checkpoint.get(STATE_KEY, {}).items():
            if name in self._streams:
                self._streams[name].load_state_dict(state["random"])
                self.member(name).on_load_checkpoint(state["own"])

    def _step(self, step: str, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Return the output of every member in a step."""
        outputs = {}
        for name in self.members:
            with self._turn(name) as member:
                try:
                    outputs[name] = getattr(member, step)(batch, batch_idx)
                except RuntimeError as error:
                    _explain_shape(name, member, batch, error)
                    raise
        return outputs

    @contextmanager
    def _turn(self, name: str) -> Iterator[pl.LightningModule]:
        """Use the random state of a member, and append its name to the metrics that it logs."""
        member, suffix = self.member(name), name

        def log(name: str, *args: Any, **kwargs: Any) -> None:
            self.log(f"{name}/{suffix}" if "/" in name else f"{name}_{suffix}", *args, **kwargs)

        # Lightning restores the random state after its sanity check.
        keep = self._trainer is None or not self._trainer.sanity_checking
        object.__setattr__(member, "log", log)
        try:
            with self._streams[name].flowing(self.device, keep):
                yield member
        finally:
            object.__delattr__(member, "log")

    def _members_with(self, hook: str) -> list[str]:
        """Return the names of the members that override a hook."""
        if hook not in self._overriding:
            self._overriding[hook] = [name for name in self.members if is_overridden(hook, self.member(name))]
        return self._overriding[hook]

    def _pass_outputs(self, hook: str, outputs: Any, *args: object) -> None:
        for name in self._members_with(hook):
            with self._turn(name) as member:
                getattr(member, hook)((outputs or {}).get("members", {}).get(name), *args)

    def _optimizer_of(self, name: str) -> Optimizer:
        optimizer: Optimizer = self.member(name).trainer.optimizers[0]
        return optimizer


for _hook in HOOKS:
    setattr(SideBySide, _hook, _of_every_member(_hook))


def _explain_shape(name: str, member: pl.LightningModule, batch: Any, error: RuntimeError) -> None:
    """Raise a clearer error if the shape of the inputs is not the one that the member expects."""
    example, inputs = member.example_input_array, batch[0] if isinstance(batch, list | tuple) else batch
    if isinstance(example, Tensor) and isinstance(inputs, Tensor) and example.shape[1:] != inputs.shape[1:]:
        raise ValueError(
            f"members.{name} ({type(member).__name__}) expects inputs of shape {tuple(example.shape[1:])}, but the "
            f"data have {tuple(inputs.shape[1:])}: choose other data, or another class."
        ) from error
