"""Snapshots of all trained weights during training, from which ``lightning-cifar surface`` draws the path."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_cifar.analysis.loss_surface import trained_parameters
from lightning_cifar.analysis.sharpness import flatten
from lightning_cifar.artifacts import FrameStore, run_folder, writes
from lightning_cifar.callbacks.base import StoringCallback, check_minimum
from lightning_cifar.callbacks.progress import completed_epochs
from lightning_cifar.files.reading import UnreadableFileError

FOLDER = "trajectory"
"""Folder of the snapshots in that of the run; a file is named by the number of optimizer steps."""


class Trajectory(NamedTuple):
    """Weights of a run at T times."""

    steps: list[int]
    epochs: list[float]
    weights: Tensor
    """float32 (T, P)"""


class _State(TypedDict):
    run: str
    """Identifies the snapshots of a training run, in all folders."""
    folder: str
    """Folder of the run that wrote them."""
    period: int
    """Number of periods between two snapshots, after thinning."""


class WeightTrajectory(StoringCallback):
    """Store the trained weights regularly as ``trajectory/<step>.npz``, always the first and the last ones.

    ``lightning-cifar surface RUN`` draws the loss on the plane of these weights, with their path.

    A snapshot has 4 bytes for each trained parameter. Above ``max_snapshots``, every second one is removed and the
    period doubles. A resumed run continues its snapshots, and a fork copies those of its parent from before the fork.

    Args:
        every_n_epochs: A snapshot at the end of every n-th epoch; 1 if no period is given.
        every_n_steps: A snapshot after every n-th optimizer step instead.
        max_snapshots: Maximum number of snapshots on disk, in addition to the last one.

    Raises:
        ValueError: If a number is out of range, or both periods are given.

    Example:
        >>> trainer = Trainer(callbacks=[WeightTrajectory(every_n_steps=100)])
    """

    def __init__(
        self, every_n_epochs: int | None = None, every_n_steps: int | None = None, max_snapshots: int = 60
    ) -> None:
        super().__init__(every_n_epochs, every_n_steps)
        check_minimum(3, max_snapshots=max_snapshots)
        self.max_snapshots = max_snapshots
        self._state = _new_state()
        self._ticks: dict[int, int] = {}
        """Number of completed periods by step, of the snapshots on disk."""

    def state_dict(self) -> dict[str, object]:
        return dict(self._state)

    def load_state_dict(self, state_dict: _State) -> None:  # type: ignore[override]
        self._state = _State(**state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._ticks = {}
        if trainer.global_step == 0:
            self._state = _new_state()  # a new training with a callback that was used before
        if not writes(trainer):
            return
        self._store = FrameStore(run_folder(trainer) / FOLDER)
        self._continue(trainer, self._store)
        self._state["folder"] = str(run_folder(trainer).resolve())
        self._write(trainer, pl_module)

    def _tick(self, trainer: Trainer) -> int:
        """Return the number of completed periods."""
        if self.every_n_steps is not None:
            return trainer.global_step // self.every_n_steps
        return int(completed_epochs(trainer, within=self._in_epoch)) // (self.every_n_epochs or 1)

    def _capture_if_due(self, trainer: Trainer, pl_module: LightningModule) -> None:
        tick = self._tick(trainer)
        if tick % self._state["period"] == 0 and tick > max(self._ticks.values(), default=-1):
            self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the weights unless those of this step are stored, and remove those that are not due any more."""
        step = trainer.global_step
        if self._store is None or step in self._ticks:
            return
        parameters = trained_parameters(pl_module)
        self._store.write(
            step,
            run=self._state["run"],
            weights=flatten([parameter.detach().float() for parameter in parameters.values()]).cpu(),
            layout=layout_of(pl_module),
            epoch=completed_epochs(trainer, within=self._in_epoch),
            tick=self._tick(trainer),
        )
        self._ticks[step] = self._tick(trainer)
        self._thin(self._store)

    def _thin(self, store: FrameStore) -> None:
        """Keep the snapshots that are due, so that a resumed run keeps the same ones, and the first and the last."""
        while True:
            due: dict[int, int] = {}
            for step, tick in sorted(self._ticks.items()):
                if tick % self._state["period"] == 0 and tick not in due.values():
                    due[step] = tick
            if len(due) <= self.max_snapshots:
                break
            self._state["period"] *= 2
        for step in self._ticks.keys() - due.keys() - {min(self._ticks), max(self._ticks)}:
            store.remove(step)
            del self._ticks[step]

    def _continue(self, trainer: Trainer, store: FrameStore) -> None:
        """Copy the snapshots from before the checkpoint to this run's folder, and delete others there."""
        folders = [run_folder(trainer).resolve(), Path(self._state["folder"])]
        if trainer.ckpt_path is not None:  # in case the run was moved
            folders += Path(trainer.ckpt_path).resolve().parents[:2]
        for folder in folders if trainer.global_step else ():
            source = FrameStore(folder / FOLDER)
            frames = {step: _read(source, step) for step in source.indices() if step <= trainer.global_step}
            own = {step: frame for step, frame in frames.items() if frame and str(frame["run"]) == self._state["run"]}
            if own:
                self._ticks = {step: int(frame["tick"]) for step, frame in own.items()}
                if source.folder != store.folder.resolve():
                    for step, frame in own.items():
                        store.write(step, **frame)
                break
        else:
            if trainer.global_step:
                where = self._state["folder"] or "this checkpoint"
                rank_zero_warn(f"WeightTrajectory: {where} has no snapshots of the run: they start here.")
        for step in {*store.indices()} - self._ticks.keys():
            store.remove(step)
        if self._ticks:
            self._thin(store)


def read_trajectory(run: Path, layout: str) -> Trajectory:
    """Read the snapshots of a run. Those whose weights are not finite are left out.

    Args:
        run: Folder of the run.
        layout: Names and shapes of the parameters, see :func:`layout_of`.

    Raises:
        ValueError: If there are fewer than 3, or they are of another network.
    """
    store = FrameStore(run / FOLDER)
    frames = {step: frame for step in store.indices() if (frame := _read(store, step))}
    if any(str(frame["layout"]) != layout for frame in frames.values()):
        raise ValueError(f"{store.folder} has the weights of another network than the checkpoint of the run")
    frames = {step: frame for step, frame in frames.items() if np.isfinite(frame["weights"]).all()}
    if len(frames) < 3:
        fix = "train with --config configs/callbacks/weight_trajectory.yaml, or use --directions random"
        raise ValueError(f"{run} has {len(frames)} snapshots of its weights, and a plane needs 3: {fix}")
    weights = torch.from_numpy(np.stack([frame["weights"] for frame in frames.values()]))
    return Trajectory(list(frames), [float(frame["epoch"]) for frame in frames.values()], weights)


def layout_of(model: torch.nn.Module) -> str:
    """Return the names and shapes of the trained parameters as text.

    >>> layout_of(torch.nn.Linear(3, 2))
    'weight (2, 3), bias (2,)'
    """
    return ", ".join(f"{name} {tuple(each.shape)}" for name, each in trained_parameters(model).items())


def _read(store: FrameStore, step: int) -> dict[str, np.ndarray] | None:
    """Read a snapshot; None if its file is damaged or not one of this callback."""
    try:
        frame = store.read(step)
    except UnreadableFileError as error:
        rank_zero_warn(f"WeightTrajectory: {error} It is left out.")
        return None
    return frame if frame and {"run", "weights", "layout", "epoch", "tick"} <= frame.keys() else None


def _new_state() -> _State:
    return _State(run=secrets.token_hex(8), folder="", period=1)
