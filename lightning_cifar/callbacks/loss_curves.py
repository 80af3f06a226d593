"""Curves of training and validation loss and accuracy over epochs, updated during training."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_cifar.artifacts import save_figure
from lightning_cifar.callbacks.base import WritingCallback, check_minimum
from lightning_cifar.callbacks.progress import epochs_of


class LossCurves(WritingCallback):
    """Plot loss and accuracy in ``pictures/<name>.png`` during training, at its end, and when it is interrupted.

    The x axis counts completed epochs: the means over the first training epoch and the validation after it are at 1, a
    validation in the middle of the first epoch at 0.5. The points are part of the checkpoint, so a resumed run
    continues the curves.

    Args:
        train_loss, val_loss, train_accuracy, val_accuracy: names of the logged metrics; accuracies are fractions.
            Metrics that are not logged are not drawn. The metrics of several networks, ``train/loss/<network>`` and so
            on, are all drawn.
        every_n_epochs: draw after every n-th epoch.
        max_time_share: largest share of the processor time of the training that is spent on drawing during training.
        title: title of the picture; None uses the name of the module's class.
        name: name of the picture.

    Raises:
        ValueError: If ``every_n_epochs`` is below 1.

    Example:
        >>> trainer = Trainer(callbacks=[LossCurves(train_loss="loss", val_loss="val_loss")])
    """

    def __init__(
        self,
        train_loss: str = "train/loss",
        val_loss: str = "val/loss",
        train_accuracy: str = "train/accuracy",
        val_accuracy: str = "val/accuracy",
        every_n_epochs: int = 1,
        max_time_share: float = 0.005,
        title: str | None = None,
        name: str = "loss_curves",
    ) -> None:
        check_minimum(every_n_epochs=every_n_epochs)
        self.train_loss, self.train_accuracy = train_loss, train_accuracy
        self.val_loss, self.val_accuracy = val_loss, val_accuracy
        self.every_n_epochs, self.max_time_share = every_n_epochs, max_time_share
        self.title, self.name = title, name
        self.history: dict[str, list[list[float]]] = {}
        """Points [completed epochs, value] by the name of the metric."""
        self._last_seen: dict[str, Tensor] = {}
        self._closing: float | None = None  # position of the last epoch, until the next one starts
        self._undrawn = False
        self._warned = False
        self._drawn_at = 0.0
        self._draw_seconds = 0.5  # the first drawing loads matplotlib

    @property
    def state_key(self) -> str:
        return self._generate_state_key(name=self.name)

    def state_dict(self) -> dict[str, object]:
        return {"history": {key: [list(point) for point in points] for key, points in self.history.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = {key: [list(point) for point in points] for key, points in state_dict["history"].items()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == 0:
            self.history = {}  # a new training with a callback that was used before
        self._last_seen = {}
        self._closing, self._warned = None, False
        self._drawn_at = time.process_time()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._collect_train(trainer)
        self._closing = None
        # Not earlier: a module may log in its on_train_epoch_end. Without a validation in the first epoch, the check
        # at the end is sufficient.
        if trainer.current_epoch == 1 and trainer.check_val_every_n_epoch in (None, 1):
            self._warn_if_empty(trainer, "in the first epoch")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking and trainer.state.fn == TrainerFn.FITTING:
            self._collect(trainer, epochs_of(trainer), self.val_loss, self.val_accuracy)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._closing = epochs_of(trainer)
        self._collect_train(trainer)
        elapsed = time.process_time() - self._drawn_at
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if due and self._draw_seconds <= self.max_time_share * elapsed:
            self._write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._collect_train(trainer)
        self._closing = None
        self._warn_if_empty(trainer, "during the training")
        self._write(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, dict[str, object]]
    ) -> None:
        self._collect_train(trainer)
        checkpoint["callbacks"][self.state_key] = self.state_dict()

    def _warn_if_empty(self, trainer: Trainer, when: str) -> None:
        if self.history or self._warned:
            return
        self._warned = True
        names = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
        rank_zero_warn(
            f"LossCurves found none of {self.train_loss}, {self.val_loss}, {self.train_accuracy} and "
            f"{self.val_accuracy} {when}; the module logged {names}. Pass the names to draw to LossCurves."
        )

    def _collect_train(self, trainer: Trainer) -> None:
        """Collect again after an epoch: the module's on_train_epoch_end, which may log, runs after ours."""
        if self._closing is not None:
            self._collect(trainer, self._closing, self.train_loss, self.train_accuracy)

    def _collect(self, trainer: Trainer, position: float, *keys: str) -> None:
        metrics = trainer.callback_metrics
        members = self._members(metrics)
        for key in [*keys, *(f"{key}/{member}" for key in keys for member in members)]:
            value = metrics.get(key)
            # The trainer keeps the tensor of an earlier epoch until a new value is logged.
            if value is None or value is self._last_seen.get(key):
                continue
            self._last_seen[key] = value
            points = [point for point in self.history.get(key, []) if point[0] < position]
            self.history[key] = [*points, [position, float(value)]]
            self._undrawn = True

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._undrawn or not trainer.is_global_zero:
            return
        from lightning_cifar.plots import draw_loss_curves, draw_members_curves

        started = time.process_time()
        title = type(pl_module).__name__ if self.title is None else self.title
        members = self._members(self.history)
        if members:
            figure = draw_members_curves({name: self._curves(f"/{name}") for name in members}, title)
        else:
            figure = draw_loss_curves(**self._curves(""), title=title)
        save_figure(trainer, self.name, figure, tag=f"curves/{self.name}")
        self._undrawn = False
        self._drawn_at = time.process_time()
        self._draw_seconds = self._drawn_at - started

    def _members(self, names: Iterable[str]) -> list[str]:
        """Return the networks with a separate loss. Accuracies of classes have names like those of networks."""
        prefixes = (f"{self.train_loss}/", f"{self.val_loss}/")
        found = (name.removeprefix(prefix) for name in names for prefix in prefixes if name.startswith(prefix))
        return list(dict.fromkeys(found))

    def _curves(self, suffix: str) -> dict[str, list[tuple[float, float]]]:
        def points(key: str) -> list[tuple[float, float]]:
            return [(epoch, value) for epoch, value in self.history.get(f"{key}{suffix}", [])]

        names = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
        return {name: points(getattr(self, name)) for name in names}
