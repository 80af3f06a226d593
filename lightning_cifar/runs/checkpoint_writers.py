"""The callbacks that write ``best.ckpt`` and ``last.ckpt`` of a run, whatever checkpoints the user's own write."""

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
# What continues a training; best.ckpt of several networks comes from several epochs and cannot.
_TRAINING_STATE = ("optimizer_states", "lr_schedulers", "callbacks", "loops")


class RunCheckpoint(ModelCheckpoint):
    """``best.ckpt`` or ``last.ckpt`` of a run."""

    beside_alike = False  # a ModelCheckpoint of the user has the same settings, by which Lightning tells states apart

    @property
    def state_key(self) -> str:
        key = super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)
        return f"{key}{self.filename}" if self.beside_alike else key

    @property
    def _legacy_state_key(self) -> str:  # type: ignore[override]  # the key to look for where there is no state_key
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)


class BestOfEach(Checkpoint):
    """``best.ckpt`` of networks trained side by side: each as it was when its own metric was best in validation.

    A network without a metric is kept as it is at the last validation. The file holds no state of the training: its
    networks come from different epochs.

    Args:
        path: Of the checkpoint.
        monitors: The metric and its better end by the name of a network, such as ``("val/accuracy", "max")``.
    """

    filename = "best"

    def __init__(self, path: Path, monitors: Mapping[str, Monitor | None]) -> None:
        self.path, self.monitors = path, dict(monitors)
        self.best_model_path = ""
        self.best_model_score: dict[str, float] = {}
        self._improved: set[str] | None = None  # while the file is written

    @property
    def monitor(self) -> dict[str, str]:
        """Names of the metrics, by network."""
        return {name: each[0] for name, each in self.monitors.items() if each is not None}

    def state_dict(self) -> dict[str, Any]:
        return {"path": self.best_model_path, "scores": dict(self.best_model_score)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if Path(state_dict["path"]).is_file():
            self.best_model_path, self.best_model_score = state_dict["path"], dict(state_dict["scores"])

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
        if kept and self.best_model_path:
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
    """The writers of the best and of the last checkpoint.

    Args:
        model: It says by what it is judged; without validation, or without a metric, the last checkpoint counts.
        folder: Of the checkpoints.
        given: The user's callbacks. A ModelCheckpoint of the same file name there takes the place of ours.
        validates: Whether there is a validation.
    """
    save = partial(RunCheckpoint, folder, enable_version_counter=False)
    writers: list[Any]
    if validates and isinstance(model, models.SideBySide):
        monitors = {name: getattr(model.member(name), "monitor", None) for name in model.members}
        writers = [BestOfEach(folder / "best.ckpt", monitors), save("last", save_on_train_epoch_end=True)]
    else:
        metric, mode = getattr(model, "monitor", (None, "min")) if validates else (None, "min")
        if metric is None:
            writers = [save("best", save_last=True)]  # one: Lightning cannot tell two without a metric apart
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
    """The callback that writes ``best.ckpt`` of a run, or else Lightning's choice."""
    named = (each for each in trainer.checkpoint_callbacks if getattr(each, "filename", None) == "best")
    return next(named, trainer.checkpoint_callback)
