"""Several networks trained in lockstep on the same batches, each as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, TypeAlias

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.types import LRSchedulerConfig, OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_cifar.models.side_by_side.lockstep import (
    Configured,
    Lockstep,
    OwnTrainer,
    Schedules,
    Stream,
    is_freshly_seeded,
    read_configured,
)
from lightning_cifar.models.side_by_side.member_configs import build_members, check_members
from lightning_cifar.models.side_by_side.stackable import make_stacks
from lightning_cifar.models.side_by_side.stacked import Stack, answering

Shared: TypeAlias = bool | int | float | str | list[Any] | None
STATE_KEY = "side_by_side"  # in checkpoints: what a member has beside weights and optimizer


def _of_every_member(hook: str) -> Callable[..., None]:
    """A hook that calls the same hook of every member that has one."""

    def call(self: SideBySide, *args: object) -> None:
        for name in self._listeners(hook):
            with self._turn(name) as member:
                getattr(member, hook)(*args)

    call.__name__ = call.__qualname__ = hook
    return call


class SideBySide(pl.LightningModule):
    """Trains named members in lockstep: every batch goes to all of them, each has its optimizer, schedule and dropouts.

    A member ends bit for bit as the same run of it alone (``seed_everything(s)``, build it, fit it on the same data),
    on condition that the data draw nothing from torch's global generator, as ours do not. What a member logs gets its
    name: ``train/loss/plain``, ``val/accuracy/batch_norm``. It is found as ``members.plain``, its layers as
    ``members.plain.network.2``. Loading batches and the trainer's own work are shared: two small networks cost less
    than two runs.

    Members that differ in seed, optimizer settings, regime or dropout probability alone can be trained as one stacked
    network, which is faster for many small ones. Its results are the same within rounding (which Adam makes visible in
    a bias before batch normalisation: its gradient is nothing else), and its checkpoints interchangeable. On a GPU a
    stacked member drops other values than alone.

    Args:
        members: By name: ``class_path``, a class of this package or a dotted path; ``init_args``, its arguments; and
            ``seed``, where it is not to be that of the run. Plain values, as in a configuration file.
        shared: Arguments of all members, such as ``lr``; what a member's own ``init_args`` say goes before them.
        stack: Train members of one architecture as one network: where it is known to be faster, always or never.
        num_classes: Given to every member that takes it, as are the next two: what the data say of themselves.
        in_channels: Channels of an image.
        image_size: Height and width of an image, in pixels.

    Raises:
        ValueError: If there are no members, a name is no identifier, a class or an argument is unknown, or members need
            different inputs.
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
        self.stack = stack
        self._streams = {name: Stream(state, settings[name].get("seed")) for name, state in states.items()}
        self._stacks: list[Stack] = []
        self._heard: dict[str, list[str]] = {}
        self.example_input_array = next(iter(modules.values())).example_input_array

    def member(self, name: str) -> pl.LightningModule:
        """A member by its name."""
        found = self.members[name]
        assert isinstance(found, pl.LightningModule)
        return found

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """What every member makes of the inputs."""
        return {name: member(inputs) for name, member in self.members.items()}

    def setup(self, stage: str) -> None:
        self._unstack()  # a run that was interrupted left them
        if is_freshly_seeded():  # since the members were built: by the user, or by Lightning in distributed runs
            for stream in self._streams.values():
                stream.restart()
        for name in self.members:
            self.member(name).trainer = OwnTrainer(self.trainer)  # type: ignore[assignment]  # all but its optimizers
        _of_every_member("setup")(self, stage)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        if self.trainer.lightning_module is not self:
            raise ValueError("SideBySide has a learning rate for each member: sweep the learning rate of one alone.")
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            raise ValueError("precision=16-mixed scales the loss of all members as one: choose bf16-mixed or 32-true.")
        configured: dict[str, Configured] = {}
        for name in self.members:
            with self._turn(name) as member:
                configured[name] = read_configured(name, member.configure_optimizers())
        optimizers = {name: each.optimizer for name, each in configured.items()}
        self._stacks = make_stacks(
            {name: self.member(name) for name in self.members},
            optimizers,
            self._streams,
            stack=self.stack,
            device=self.device,
            world_size=self.trainer.world_size,
        )
        lockstep = Lockstep(optimizers, self._stacks)
        scheduled = {name: each for name, each in configured.items() if each.scheduler is not None}
        for name, each in configured.items():
            own: Any = self.member(name).trainer
            vars(own)["optimizers"] = [each.optimizer]
            if each.scheduler is not None:
                config = LRSchedulerConfig(each.scheduler, interval=each.interval, frequency=each.frequency)
                vars(own)["lr_scheduler_configs"] = [config]
        if not scheduled:
            return lockstep
        paces = {(each.interval, each.frequency) for each in scheduled.values()}
        if len(paces) > 1:
            raise ValueError(f"members' schedules step at different times ({sorted(paces)}): let them agree.")
        interval, frequency = paces.pop()
        schedules = Schedules(lockstep, {n: each.scheduler for n, each in scheduled.items() if each.scheduler})
        return {
            "optimizer": lockstep,
            "lr_scheduler": {"scheduler": schedules, "interval": interval, "frequency": frequency},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Each member by its own norm."""
        stacked = {name for stack in self._stacks for name in stack.names}
        for stack in self._stacks:
            stack.clip(gradient_clip_val, gradient_clip_algorithm)
        for name in self.members:
            if name not in stacked:
                member = self.member(name)
                member.configure_gradient_clipping(self._optimizer_of(name), gradient_clip_val, gradient_clip_algorithm)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any] | None:
        """The sum of the members' losses, whose gradient is each one's own; ``members`` has what each one gave."""
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
        """What every member predicts."""
        return self._step("predict_step", batch, batch_idx)

    configure_model = _of_every_member("configure_model")
    on_fit_start = _of_every_member("on_fit_start")
    on_fit_end = _of_every_member("on_fit_end")
    on_train_start = _of_every_member("on_train_start")
    on_train_end = _of_every_member("on_train_end")
    on_train_epoch_start = _of_every_member("on_train_epoch_start")
    on_train_epoch_end = _of_every_member("on_train_epoch_end")
    on_after_backward = _of_every_member("on_after_backward")
    on_validation_start = _of_every_member("on_validation_start")
    on_validation_end = _of_every_member("on_validation_end")
    on_validation_epoch_start = _of_every_member("on_validation_epoch_start")
    on_validation_epoch_end = _of_every_member("on_validation_epoch_end")
    on_test_start = _of_every_member("on_test_start")
    on_test_end = _of_every_member("on_test_end")
    on_test_epoch_start = _of_every_member("on_test_epoch_start")
    on_test_epoch_end = _of_every_member("on_test_epoch_end")
    on_predict_start = _of_every_member("on_predict_start")
    on_predict_end = _of_every_member("on_predict_end")
    on_train_batch_start = _of_every_member("on_train_batch_start")  # none can skip the epoch of all
    on_validation_batch_start = _of_every_member("on_validation_batch_start")
    on_test_batch_start = _of_every_member("on_test_batch_start")
    on_predict_batch_start = _of_every_member("on_predict_batch_start")

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._tell_outputs("on_train_batch_end", outputs, batch, batch_idx)

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._tell_outputs("on_validation_batch_end", outputs, batch, batch_idx, dataloader_idx)

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._tell_outputs("on_test_batch_end", outputs, batch, batch_idx, dataloader_idx)

    def on_before_zero_grad(self, optimizer: Optimizer) -> None:
        for name in self._listeners("on_before_zero_grad"):
            with self._turn(name) as member:
                member.on_before_zero_grad(self._optimizer_of(name))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        for name in self._listeners("on_before_optimizer_step"):
            with self._turn(name) as member:
                member.on_before_optimizer_step(self._optimizer_of(name))

    def teardown(self, stage: str) -> None:
        _of_every_member("teardown")(self, stage)
        self._unstack()

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
        """What every member gives in a step."""
        outputs = {}
        answers = {} if step == "predict_step" else self._stacked_answers(batch)
        for name in self.members:
            stacked = name in answers
            member = self.member(name)
            given = answering(name, member, batch[0], answers[name]) if stacked else nullcontext()
            with self._turn(name, draws=not stacked), given:
                try:
                    outputs[name] = getattr(member, step)(batch, batch_idx)
                except RuntimeError as error:
                    _explain_shape(name, member, batch, error)
                    raise
        return outputs

    def _stacked_answers(self, batch: Any) -> dict[str, Tensor]:
        """What each member of a stack makes of the batch's inputs."""
        return {
            name: answer for stack in self._stacks for name, answer in zip(stack.names, stack(batch[0]), strict=True)
        }

    def _unstack(self) -> None:
        for stack in self._stacks:
            stack.release()
        self._stacks = []

    @contextmanager
    def _turn(self, name: str, draws: bool = True) -> Iterator[pl.LightningModule]:
        """A member acts as if alone: with its random state, and what it logs gets its name."""
        member = self.member(name)

        def log_own(metric: str, *args: Any, **kwargs: Any) -> None:
            self.log(f"{metric}/{name}" if "/" in metric else f"{metric}_{name}", *args, **kwargs)

        def log(name: str, *args: Any, **kwargs: Any) -> None:
            log_own(name, *args, **kwargs)

        # Lightning runs its sanity check beside the random state, and so would the member alone.
        keep = self._trainer is None or not self._trainer.sanity_checking
        object.__setattr__(member, "log", log)
        try:
            with self._streams[name].flowing(self.device, keep) if draws else nullcontext():
                yield member
        finally:
            object.__delattr__(member, "log")

    def _listeners(self, hook: str) -> list[str]:
        """Members that have something to do in a hook."""
        if hook not in self._heard:
            self._heard[hook] = [name for name in self.members if is_overridden(hook, self.member(name))]
        return self._heard[hook]

    def _tell_outputs(self, hook: str, outputs: Any, *args: object) -> None:
        for name in self._listeners(hook):
            with self._turn(name) as member:
                getattr(member, hook)((outputs or {}).get("members", {}).get(name), *args)

    def _optimizer_of(self, name: str) -> Optimizer:
        optimizer: Optimizer = self.member(name).trainer.optimizers[0]
        return optimizer


def _explain_shape(name: str, member: pl.LightningModule, batch: Any, error: RuntimeError) -> None:
    """Raise a clearer error where the member was made for other inputs than it got."""
    example, inputs = member.example_input_array, batch[0] if isinstance(batch, list | tuple) else batch
    if isinstance(example, Tensor) and isinstance(inputs, Tensor) and example.shape[1:] != inputs.shape[1:]:
        raise ValueError(
            f"members.{name} ({type(member).__name__}) takes inputs of shape {tuple(example.shape[1:])}, and the data "
            f"give {tuple(inputs.shape[1:])}: choose other data, or another class."
        ) from error
