"""Start a run from a kept state of another one, with changed settings and the same batches."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
from lightning.pytorch import Callback

from lightning_cifar import artifacts
from lightning_cifar.callbacks import ExactResume
from lightning_cifar.callbacks.exact_resume import KEPT
from lightning_cifar.callbacks.optimizer_settings import apply_changes, optimizer_settings
from lightning_cifar.checkpoints.io import VerifiedCheckpointIO
from lightning_cifar.checkpoints.reading import RUN_ID, Checkpoint
from lightning_cifar.configuration import flat_settings, read_configuration
from lightning_cifar.errors import UsageError
from lightning_cifar.files.atomic import write_atomically
from lightning_cifar.files.lock import FolderLock
from lightning_cifar.runs.arguments import Arguments
from lightning_cifar.runs.expected_warnings import expected_warnings_ignored
from lightning_cifar.runs.metrics import FORK, read_run_id
from lightning_cifar.runs.resume import CHECKPOINTS, Resumed, check_complete

_KEPT = re.compile(r"epoch-(\d{3,})\.ckpt")
_NO_CHANGE = ("keep_every_n_epochs", "test_after_fit")  # settings that do not change the training
_PLAN = "schedule_plan"  # in checkpoints: see models/trainable.py


class Fork(NamedTuple):
    """Where a fork starts: a run, the number of its completed epochs, and whether its schedule starts again."""

    run: Path
    epoch: int
    restart_schedule: bool = False


def kept_epochs(run: Path) -> list[int]:
    """Return the epochs at whose end a run kept its state."""
    names = (_KEPT.fullmatch(path.name) for path in (run / "checkpoints").glob("epoch-*.ckpt"))
    return sorted(int(found[1]) for found in names if found)


def start_fork(arguments: Arguments, fork: Fork) -> tuple[Arguments, Resumed, ForkPoint]:
    """Return the arguments of the ``fit`` that continues a state, the parent, and the state.

    The folder of the parent is trusted like a script: its ``config.yaml`` names the classes that run.

    Raises:
        UsageError: If the folder is not that of a run, the run has not ended, or did not keep that epoch, or the state
            is damaged.
    """
    run = fork.run
    for option in ("--ckpt_path", "--resume", "--seed_everything"):
        if arguments.has(option):
            raise UsageError(f"a fork continues the weights and random states of {run}: leave {option} out.")
    if not (run / "config.yaml").is_file():
        raise UsageError(f"{run} is not the folder of a run: it has no config.yaml.")
    checkpoint, run_id = _read_state(fork), read_run_id(run)
    check_complete(checkpoint, run, run_id, "choose another epoch")
    config = read_configuration(run / "config.yaml")
    more = arguments.replace("--ckpt_path", "--ckpt_path", str(checkpoint.path))
    return more, Resumed(run, checkpoint, copy.deepcopy(config), run_id), ForkPoint(fork, checkpoint, config)


def _read_state(fork: Fork) -> Checkpoint:
    run, kept = fork.run, kept_epochs(fork.run)
    if (run / ".lock").is_file():
        busy = f"the run in {run} is still running: wait until it ends, or interrupt it."
        FolderLock(run, busy, shared=True).release()
    if fork.epoch not in kept:
        known = f"it kept {', '.join(map(str, kept))}" if kept else "it kept none: train with --keep_every_n_epochs 1"
        raise UsageError(f"{run} has no state of the end of epoch {fork.epoch}: {known}.")
    checkpoint = Checkpoint.read(run / "checkpoints" / KEPT.format(fork.epoch))
    _mark(checkpoint.content, fork)
    return checkpoint


def _mark(content: dict[str, Any], fork: Fork) -> None:
    """Store in a state how its schedule continues, also for its resumed runs."""
    members = content.get("side_by_side", {})
    plans = [each[_PLAN] for each in (content, *(member["own"] for member in members.values())) if _PLAN in each]
    for plan in plans:
        plan["fork"] = {"step": content["global_step"], "restart": fork.restart_schedule}
    if fork.restart_schedule and not plans:  # the schedulers of another module start from their first step
        content["lr_schedulers"] = []
        for group in (group for state in content["optimizer_states"] for group in state["param_groups"]):
            group["lr"] = group.get("initial_lr", group["lr"])


@dataclass(frozen=True)
class ForkPoint:
    """The parent of a fork, its configuration, and its state at the fork."""

    fork: Fork
    checkpoint: Checkpoint
    config: Mapping[str, Any]

    def check_class(self, class_path: str) -> None:
        """Refuse another class of data than that of the parent."""
        before, now = (
            str(name).rsplit(".", 1)[-1] for name in (self.config.get("data", {}).get("class_path"), class_path)
        )
        if before != now:
            fix = "leave --data out, or start a new run with fit"
            raise UsageError(f"{self.checkpoint.path} was trained on {before}, not on {now}: {fix}.")

    def check_data(self, datamodule: object) -> None:
        """Refuse other images than those of the parent, whose batches a fork repeats; ``setup`` was called."""
        fix = "restore them, leave settings such as --data.num_train out, or start a new run with fit"
        _check_fingerprint(self.checkpoint, datamodule, fix)

    def describe(self, config: Mapping[str, Any]) -> str:
        """Return the origin of a fork with this configuration, and each setting that differs in a line."""
        old, new = flat_settings(self.config), flat_settings(config)
        lines = [
            f"  {name}: {old.get(name, 'null')} -> {new.get(name, 'null')}"
            for name in {**old, **new}
            if old.get(name, "null") != new.get(name, "null") and name not in _NO_CHANGE
        ]
        lines += ["  the schedule starts again over the remaining steps"] if self.fork.restart_schedule else []
        head = f"fork of {self.fork.run} at the end of epoch {self.fork.epoch}"
        return "\n".join([head, *(lines or ["  nothing differs: the fork repeats its parent"])])

    def write(self, folder: Path, own: Mapping[str, Any]) -> None:
        """Write the state to the folder of the fork, with values of its ``own``, and fork.json."""
        VerifiedCheckpointIO().save_checkpoint({**self.checkpoint.content, **own}, folder / CHECKPOINTS[0])
        text = json.dumps(record(self.fork, self.checkpoint), indent=2) + "\n"
        write_atomically(folder / FORK, text.encode())


def record(fork: Fork, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the content of fork.json, by which a report finds the family of a run."""
    held = checkpoint.content
    return {"run": str(fork.run), RUN_ID: held.get(RUN_ID), "epoch": fork.epoch, "step": held["global_step"]}


def _check_fingerprint(checkpoint: Checkpoint, datamodule: object, fix: str) -> None:
    fingerprint, held = getattr(datamodule, "fingerprint", None), checkpoint.content["exact_resume"].get("data")
    if held is not None and fingerprint is not None and fingerprint() != held:
        raise UsageError(f"the images differ from those of {checkpoint.path} (other fingerprint): {fix}.")


def fork(
    trainer: pl.Trainer,
    model: pl.LightningModule,
    run: str | Path,
    epoch: int,
    *,
    restart_schedule: bool = False,
    **fit: Any,
) -> None:
    """Train from the state of a run at the end of an epoch, with the settings of this Trainer and this module.

    All other things continue exactly: weights, state of the optimizer, random states, order of the batches. If no
    setting differs, the result has the bits of the run. Settings of the optimizer that differ from those with which the
    run was started, such as ``lr``, are applied.

    Args:
        trainer: Trainer with another folder than the run; :class:`ExactResume` is added if it is missing.
        model: Module with the network and the optimizer of the run.
        run: Folder of the run, which was trained with ``ExactResume(keep_every_n_epochs=...)``.
        epoch: Number of completed epochs.
        restart_schedule: Whether the learning-rate schedule starts again: over the remaining steps for the models of
            this package, from their first step for other schedulers. By default, its progress continues.
        **fit: Data for ``trainer.fit``: ``datamodule``, or ``train_dataloaders`` and ``val_dataloaders``.

    Raises:
        UsageError: If the run did not keep this epoch, is running, the state is damaged or does not fit the module, or
            the Trainer writes to the folder of the run.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lightning_cifar import LeNet, SyntheticDataModule, fork
        >>> fork(Trainer(logger=False), LeNet(lr=0.01), "runs/none", 10, datamodule=SyntheticDataModule())
        Traceback (most recent call last):
        lightning_cifar.errors.UsageError: runs/none has no state of the end of epoch 10: it kept none: train with ...
    """
    run = Path(run)
    point = Fork(run, epoch, restart_schedule)
    checkpoint = _read_state(point)
    check_complete(checkpoint, run, checkpoint.content.get(RUN_ID), "choose another epoch")
    if artifacts.run_folder(trainer).resolve() == run.resolve():
        raise UsageError(f"the Trainer writes to {run}, the folder of the run: set another default_root_dir.")
    checkpoint.load_into(model, f"{type(model).__name__}, pass the same network")
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set untyped
    if not any(isinstance(each, ExactResume) for each in callbacks):
        callbacks.insert(0, ExactResume())
    callbacks.append(_Start(point, checkpoint))
    trainer.strategy.checkpoint_io = VerifiedCheckpointIO(checkpoint)
    with expected_warnings_ignored():  # such as that of another folder for checkpoints
        trainer.fit(model, **fit, ckpt_path=checkpoint.path, weights_only=True)


class _Start(Callback):
    """Checks the data and the optimizers of a fork before its first step, and applies their settings that differ."""

    def __init__(self, fork: Fork, checkpoint: Checkpoint) -> None:
        self.fork, self.checkpoint = fork, checkpoint

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.ckpt_path is None:
            return  # a later fit of the same Trainer
        fix = "pass the same data, or start a new run"
        _check_fingerprint(self.checkpoint, trainer.datamodule, fix)  # type: ignore[attr-defined]
        self.before, self.now = self.checkpoint.content["exact_resume"]["optimizers"], optimizer_settings(trainer)
        kinds = [[each[0] for each in settings] for settings in (self.before, self.now)]
        if kinds[0] != kinds[1]:
            raise UsageError(
                f"{self.checkpoint.path} was trained with {kinds[0]}, not {kinds[1]}: use the same optimizer."
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.ckpt_path is None:
            return
        apply_changes(trainer, self.before, self.now)
        artifacts.save_json(trainer, "fork", record(self.fork, self.checkpoint))
