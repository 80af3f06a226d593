"""Base classes and checks that several callbacks share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal, TypeAlias

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from lightning_cifar.artifacts import FrameStore
from lightning_cifar.callbacks.probe import loader_at

Stage: TypeAlias = Literal["val", "test"]
SPLITS: dict[Stage, str] = {"val": "validation", "test": "test"}


def check_minimum(minimum: int = 1, /, **values: int | None) -> None:
    """Raise a ValueError for the first value below the minimum; None is allowed."""
    for name, value in values.items():
        if value is not None and value < minimum:
            raise ValueError(f"{name} (={value}) must be at least {minimum}")


def check_seconds_per_frame(value: float) -> None:
    """Raise a ValueError for a duration that browsers do not support."""
    if not 0.02 <= value <= 60:
        raise ValueError(f"seconds_per_frame (={value}) must be 0.02 to 60: browsers do not support shorter frames")


def warn_of_duplicates(trainer: Trainer, callback: Callback) -> None:
    """Warn once if several callbacks of the same class and ``name`` overwrite each other's files.

    Callbacks with a state do not need this check: Lightning rejects two with the same ``state_key``.
    """
    name = getattr(callback, "name", None)
    equal = [
        other
        for other in trainer.callbacks  # type: ignore[attr-defined]
        if type(other) is type(callback) and getattr(other, "name", None) == name
    ]
    if len(equal) > 1 and equal[0] is callback:
        fix = "keep one" if name is None else "set a different name for each"
        rank_zero_warn(f"{type(callback).__name__}: {len(equal)} of them overwrite each other's files: {fix}.")


class WritingCallback(Callback, ABC):
    """Base class of callbacks that write their results at the end of training, also after an exception."""

    @abstractmethod
    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the results, if there are any and the callback is active."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        try:
            self._write(trainer, pl_module)
        except OSError as error:  # a warning, since it may have the same cause and must not hide the exception
            rank_zero_warn(f"{type(self).__name__}: {error}")


class StoringCallback(WritingCallback):
    """Base class of callbacks that store the state of the network on disk during training.

    Without a period, it is one epoch.
    """

    def __init__(self, every_n_epochs: int | None, every_n_steps: int | None) -> None:
        if every_n_epochs is not None and every_n_steps is not None:
            raise ValueError(
                f"every_n_epochs (={every_n_epochs}) and every_n_steps (={every_n_steps}) are mutually exclusive: "
                "give one of them"
            )
        check_minimum(every_n_epochs=every_n_epochs, every_n_steps=every_n_steps)
        self.every_n_epochs = 1 if every_n_epochs is None and every_n_steps is None else every_n_epochs
        self.every_n_steps = every_n_steps
        self._store: FrameStore | None = None  # while training, on global rank zero
        self._in_epoch = False

    @abstractmethod
    def state_dict(self) -> dict[str, object]: ...

    @abstractmethod
    def _capture_if_due(self, trainer: Trainer, pl_module: LightningModule) -> None: ...

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._store, self._in_epoch = None, False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        self._in_epoch = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if self.every_n_steps is not None:
            self._capture_if_due(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._capture_if_due(trainer, pl_module)
        self._in_epoch = False

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, dict[str, object]]
    ) -> None:
        # A checkpoint may be saved before our hook of the same step or epoch, which a resumed run does not call again.
        self._capture_if_due(trainer, pl_module)
        checkpoint["callbacks"][self.state_key] = self.state_dict()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._store = None


class SnapshotCallback(WritingCallback):
    """Base class of callbacks that keep snapshots of a training run in bounded memory and animate them."""

    def __init__(
        self, every_n_steps: int, max_snapshots: int, max_frames: int, seconds_per_frame: float, name: str
    ) -> None:
        check_minimum(every_n_steps=every_n_steps)
        check_minimum(2, max_snapshots=max_snapshots, max_frames=max_frames)
        check_seconds_per_frame(seconds_per_frame)
        self.every_n_steps, self.max_snapshots = every_n_steps, max_snapshots
        self.max_frames, self.seconds_per_frame, self.name = max_frames, seconds_per_frame, name
        self.snapshots: list[Any] = []
        self._period = every_n_steps

    @property
    def state_key(self) -> str:
        return self._generate_state_key(name=self.name)

    def _append(self, snapshot: Any) -> None:
        self.snapshots.append(snapshot)
        if len(self.snapshots) > self.max_snapshots and snapshot.step % self._period == 0:  # always keep the last one
            self.snapshots = self.snapshots[::2]
            self._period *= 2


class BatchCallback(Callback, ABC):
    """Base class of callbacks that read batches and disable themselves, with one warning, if these do not fit."""

    def __init__(self) -> None:
        self._disabled = False
        self._warned: set[str] = set()
        self._reset()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._disabled = False  # another module may return what the previous one did not
        warn_of_duplicates(trainer, self)

    @abstractmethod
    def _reset(self) -> None:
        """Discard the collected values."""

    def _disable(self, reason: str) -> None:
        self._reset()
        self._disabled = True
        if reason not in self._warned:
            self._warned.add(reason)
            rank_zero_warn(f"{type(self).__name__} is disabled: {reason}.")


class EvaluationCallback(BatchCallback):
    """Base class of callbacks that read all batches of a validation or test and report at its end.

    The report is made at the end of ``fit`` (for its last validation), ``validate`` and ``test``.

    Args:
        every_n_epochs: period of the reports during training; None disables them.
    """

    def __init__(self, every_n_epochs: int | None) -> None:
        check_minimum(every_n_epochs=every_n_epochs)
        self.every_n_epochs = every_n_epochs
        self._seen = 0
        super().__init__()

    _only_first_loader = False

    @abstractmethod
    def _collect(self, stage: Stage, trainer: Trainer, loader: object, outputs: object, batch: object) -> None:
        """Add a batch. ``_seen`` samples of the same loader came before it."""

    @abstractmethod
    def _join_ranks(self, stage: Stage, trainer: Trainer, pl_module: LightningModule) -> None:
        """Combine the results of all processes. Called on all ranks."""

    @abstractmethod
    def _report(self, stage: Stage, trainer: Trainer) -> None:
        """Write the results at the end of the command."""

    def _report_epoch(self, stage: Stage, trainer: Trainer) -> None:
        """Write the results of a validation during training."""
        self._report(stage, trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seen = 0
        self._reset()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._reset()

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._reset()

    # Further arguments of the hooks are those of _observe.
    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        self._observe("val", trainer, trainer.val_dataloaders, *args, **kwargs)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        self._observe("test", trainer, trainer.test_dataloaders, *args, **kwargs)

    def _observe(
        self,
        stage: Stage,
        trainer: Trainer,
        loaders: object,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.sanity_checking or self._disabled or (dataloader_idx and self._only_first_loader):
            return
        if batch_idx == 0:
            self._seen = 0
        self._collect(stage, trainer, loader_at(loaders, dataloader_idx), outputs, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._join_ranks("val", trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._join_ranks("test", trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._report("val", trainer)
        elif self.every_n_epochs is not None and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._report_epoch("val", trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report("test", trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._seen and not self._disabled:
            self._disable("fit ended without a validation. Add validation data, or run validate or test")
        self._report("val", trainer)
