"""Callbacks that write ``best.ckpt`` and ``last.ckpt`` of a run, in addition to the checkpoints of the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from torch import Tensor

from lightning_cifar import models

Monitor = tuple[str, Literal["min", "max"]]
# State that is needed to continue a training run. A best.ckpt with networks from different epochs cannot be continued.
_TRAINING_STATE = ("optimizer_states", "lr_schedulers", "callbacks", "loops")


class RunCheckpoint(ModelCheckpoint):
    """Writes ``best.ckpt`` or ``last.ckpt`` of a run."""

    beside_alike = False  # a ModelCheckpoint of the user has the same settings, and so the same state key

    @property
    def state_key(self) -> str:
        key = super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)
        return f"{key}{self.filename}" if self.beside_alike else key

    @property
    def _legacy_state_key(self) -> str:  # type: ignore[override]  # used if the state_key is not found
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)


class BestOfEach(Checkpoint):
    """Writes ``best.ckpt`` of networks trained side by side, with each network at its best validation.

    A network without a metric is saved at the last validation. The file does not contain the state of the training,
    because its networks come from different epochs.

    Args:
        monitors: Metric and mode by the name of the network, such as ``("val/accuracy", "max")``.
    """

    filename = "best"

    def __init__(self, path: Path, monitors: Mapping[str, Monitor | None]) -> None:
        self.path, self.monitors = path, dict(monitors)
        self.best_model_path = ""
        self.best_model_score: dict[str, float] = {}
        self._improved: set[str] | None = None  # while the file is written

    @property
    def monitor(self) -> dict[str, str]:
        """Names of the metrics by network."""
        return {name: each[0] for name, each in self.monitors.items() if each is not None}

    def state_dict(self) -> dict[str, Any]:
        return {"path": self.best_model_path, "scores": dict(self.best_model_score)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if Path(state_dict["path"]).is_file():
            self.best_model_path, self.best_model_score = state_dict["path"], dict(state_dict["scores"])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Other nodes may not have the file, and all processes save at the same time.
        best = self.best_model_path, self.best_model_score
        self.best_model_path, self.best_model_score = trainer.strategy.broadcast(best)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        improved = {name for name in self.monitors if self._improves(name, trainer.callback_metrics)}
        if improved:
            self._improved = improved
            try:
                trainer.save_checkpoint(self.path, weights_only=False)
            finally:
                self._improved = None
            self.best_model_path = str(self.path)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._improved is None:
            return
        for key in _TRAINING_STATE:
            checkpoint.pop(key, None)
        kept = tuple(f"members.{name}." for name in self.monitors.keys() - self._improved)
        if kept and self.best_model_path and trainer.is_global_zero:  # the only one that writes it
            before = torch.load(self.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
            checkpoint["state_dict"] |= {key: value for key, value in before.items() if key.startswith(kept)}

    def _improves(self, name: str, metrics: Mapping[str, Tensor]) -> bool:
        monitor = self.monitors[name]
        if monitor is None:
            return True
        metric, mode = monitor
        found = metrics.get(f"{metric}/{name}")
        if found is None:
            return name not in self.best_model_score and not self.best_model_path
        score, best = float(found), self.best_model_score.get(name)
        better = best is None or best != best or (score > best if mode == "max" else score < best)
        if better:
            self.best_model_score[name] = score
        return better


def checkpoint_writers(
    model: pl.LightningModule, folder: Path, given: Sequence[Callback], *, validates: bool
) -> list[Callback]:
    """Return the callbacks that write the best and the last checkpoint.

    Args:
        model: Its ``monitor`` is the metric; without validation or a metric, the best checkpoint is the last one.
        given: Callbacks of the user. A ModelCheckpoint with the same file name in this folder replaces the default.
    """
    save = partial(RunCheckpoint, folder, enable_version_counter=False)
    writers: list[Any]
    if validates and isinstance(model, models.SideBySide):
        monitors = {name: getattr(model.member(name), "monitor", None) for name in model.members}
        writers = [BestOfEach(folder / "best.ckpt", monitors), save("last", save_on_train_epoch_end=True)]
    else:
        metric, mode = getattr(model, "monitor", (None, "min")) if validates else (None, "min")
        if metric is None:
            writers = [save("best", save_last=True)]  # one, since two without a metric have the same state key
        else:
            # Two, since save_last=True writes last.ckpt only when the best one changes.
            writers = [save("best", monitor=metric, mode=mode), save("last", save_on_train_epoch_end=True)]
    own = [each for each in given if isinstance(each, ModelCheckpoint)]
    taken = {each.filename for each in own if each.dirpath is None or Path(each.dirpath).resolve() == folder.resolve()}
    writers = [each for each in writers if each.filename not in taken]
    for writer in writers:
        if isinstance(writer, RunCheckpoint):
            writer.beside_alike = any(each.state_key == writer.state_key for each in own)
    return writers


def best_writer(trainer: pl.Trainer) -> Checkpoint | None:
    """Return the callback that writes ``best.ckpt`` of a run, or else Lightning's choice."""
    named = (each for each in trainer.checkpoint_callbacks if getattr(each, "filename", None) == "best")
    return next(named, trainer.checkpoint_callback)
