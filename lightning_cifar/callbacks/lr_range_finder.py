"""The learning-rate range test (Smith, arXiv:1506.01186) on a copy of the network, before or during training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from rich.progress import Progress
from torch import Tensor

from lightning_cifar import artifacts
from lightning_cifar.analysis.lr_range import Suggestion, Sweep, doubt, has_diverged, smooth, suggest, sweep_lrs, verify
from lightning_cifar.callbacks.base import check_minimum
from lightning_cifar.callbacks.lr_sweep import sweep

LR_NAMES = ("lr", "learning_rate")


class LRRangeFinder(Callback):
    """Sweep the learning rate before ``fit``, and at the epochs ``milestones``, and suggest a value with an interval.

    Each sweep trains a copy of the module with its optimizer for ``num_steps`` steps, from ``min_lr`` to ``max_lr``
    (Smith, arXiv:1506.01186). It does not change the training, bit for bit. The callback writes ``lr_range.csv``,
    ``lr_range.json``, ``lr_range.html`` and pictures into the run's folder.

    Args:
        min_lr: First learning rate.
        max_lr: Last learning rate.
        num_steps: Optimizer steps per sweep.
        num_sweeps: Number of sweeps from the same weights with different orders of the data. Their spread gives the
            interval.
        spacing: Spacing of the learning rates.
        stop_factor: End a sweep when the smoothed loss exceeds this multiple of its minimum; None disables this.
        apply: Set the suggestion as ``lr`` (or ``learning_rate``) of the module or its hyperparameters, and create
            optimizer and schedule again.
        milestones: Epochs, counted from 1, at whose start to sweep again, without applying the result.
        zoom: Range of learning rates of a second picture.
        verify: Test rates near the suggestion with three to six trainings of 100 steps, and correct it
            (``analysis.lr_range.verify``).

    Raises:
        ValueError: If a value is out of range.

    Example:
        >>> trainer = Trainer(callbacks=[LRRangeFinder(num_steps=100, apply=True)])
    """

    def __init__(
        self,
        min_lr: float = 1e-4,
        max_lr: float = 10.0,
        num_steps: int = 200,
        num_sweeps: int = 3,
        spacing: Literal["geometric", "linear"] = "geometric",
        stop_factor: float | None = 4.0,
        apply: bool = False,
        milestones: Sequence[int] = (),
        zoom: Sequence[float] | None = None,
        verify: bool = False,
    ) -> None:
        self.lrs = [float(lr) for lr in sweep_lrs(min_lr, max_lr, num_steps, spacing)]
        check_minimum(num_sweeps=num_sweeps)
        if stop_factor is not None and not stop_factor > 1:
            raise ValueError(f"stop_factor (={stop_factor}) must be above 1, or null.")
        if any(epoch < 1 for epoch in milestones):
            raise ValueError(f"milestones (={list(milestones)}) must be epochs, counted from 1.")
        if zoom is not None and not (len(zoom) == 2 and min_lr <= zoom[0] < zoom[1] <= max_lr):
            limits = f"between {min_lr:g} and {max_lr:g}"
            raise ValueError(f"zoom (={list(zoom)}) must be two increasing learning rates {limits}.")
        self.num_sweeps, self.stop_factor, self.apply, self.verify = num_sweeps, stop_factor, apply, verify
        self.milestones, self.zoom = tuple(milestones), None if zoom is None else (float(zoom[0]), float(zoom[1]))
        self.sweeps: list[Sweep] = []
        self.suggestion: Suggestion | None = None
        self.doubt = ""  # why the suggestion may be unreliable
        self.own_lr: float | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if getattr(trainer, "fast_dev_run", False):
            return
        if trainer.ckpt_path is not None:
            rank_zero_info(
                f"no learning-rate sweep: the training resumes from {trainer.ckpt_path} with its learning rate. "
                "To sweep, start without a checkpoint, or set milestones."
            )
            return
        name, self.own_lr = _own_lr(pl_module)
        if self.apply and name is None:
            raise ValueError(
                f"{type(pl_module).__name__} has neither an attribute nor a hyperparameter lr or learning_rate: add "
                "one, or set apply to false."
            )
        suggestion = self.find(trainer, pl_module)
        if self.apply and name is not None:
            self._apply(trainer, pl_module, name, suggestion.value)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch + 1 in self.milestones:
            self.find(trainer, pl_module, f"_epoch_{trainer.current_epoch + 1}")

    def find(self, trainer: Trainer, pl_module: LightningModule, suffix: str = "") -> Suggestion:
        """Sweep, suggest a learning rate, print it and write the results."""
        self.sweeps = list(self._sweep(trainer, pl_module))
        self.suggestion, self.doubt = suggest(self.sweeps), doubt(self.sweeps)
        low, value, high = self.suggestion.low, self.suggestion.value, self.suggestion.high
        num_diverged = sum(not np.isfinite(sweep.losses).all() for sweep in self.sweeps)
        if num_diverged:
            rank_zero_warn(f"the loss was not finite in {num_diverged} of {self.num_sweeps} sweeps, which ended early.")
        where = suffix.replace("_", " ")
        rank_zero_info(f"found lr{where}: {value:.3g} ({low:.2g} to {high:.2g}, {self.num_sweeps} sweeps)")
        if self.doubt:
            rank_zero_info(f"found lr{where}: {self.doubt}")
        if self.verify:
            self.suggestion = verify(self.suggestion, lambda lrs: self._train(trainer, pl_module, lrs))
            rank_zero_info(f"found lr{where}: {verdict(self.suggestion)}")
        if trainer.is_global_zero:
            self._write(trainer, f"lr_range{suffix}")
        return self.suggestion

    def _apply(self, trainer: Trainer, pl_module: LightningModule, name: str, value: float) -> None:
        before = _peak_lrs(trainer)
        if name in pl_module.hparams:
            pl_module.hparams[name] = value
        if hasattr(pl_module, name) and not isinstance(getattr(type(pl_module), name, None), property):
            setattr(pl_module, name, value)
        trainer.strategy.setup_optimizers(trainer)  # again, with the schedule for the new peak
        if _peak_lrs(trainer) == before and value != self.own_lr:
            method = f"{type(pl_module).__name__}.configure_optimizers"
            rank_zero_warn(f"LRRangeFinder: lr = {value:.3g} is not applied: {method} does not use {name}.")
        else:
            rank_zero_info(f"lr = {value:.3g} is applied")

    def state_dict(self) -> dict[str, Any]:
        return {"suggestion": None if self.suggestion is None else self.suggestion._asdict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        found = state_dict["suggestion"]
        self.suggestion = None if found is None else Suggestion(**found)

    def _sweep(self, trainer: Trainer, pl_module: LightningModule) -> Iterable[Sweep]:
        hidden = trainer.progress_bar_callback is None or not trainer.is_global_zero
        with Progress(disable=hidden, transient=True) as progress:
            task = progress.add_task("learning-rate sweep", total=self.num_sweeps * len(self.lrs))
            for seed in range(self.num_sweeps):
                losses = sweep(
                    trainer,
                    pl_module,
                    self.lrs,
                    seed=seed,
                    stop=lambda losses: self.stop_factor is not None and has_diverged(losses, self.stop_factor),
                    on_step=lambda: progress.advance(task),
                )
                progress.update(task, completed=(seed + 1) * len(self.lrs))
                raw = np.asarray(losses)
                yield Sweep(np.asarray(self.lrs[: len(raw)]), raw, smooth(raw), len(raw) < len(self.lrs), seed)

    def _train(self, trainer: Trainer, pl_module: LightningModule, lrs: list[float]) -> list[float]:
        return sweep(trainer, pl_module, lrs, seed=self.num_sweeps, stop=lambda losses: False)

    def _write(self, trainer: Trainer, name: str) -> None:
        from lightning_cifar.plots import draw_lr_range, lr_range_html

        assert self.suggestion is not None
        rows = (
            [sweep.seed, step, f"{lr:.10g}", f"{loss:.10g}", f"{smoothed:.10g}"]
            for sweep in self.sweeps
            for step, (lr, loss, smoothed) in enumerate(zip(sweep.lrs, sweep.losses, sweep.smoothed, strict=True))
        )
        artifacts.save_table(trainer, name, ["seed", "step", "lr", "loss", "smoothed"], rows)
        artifacts.save_json(trainer, name, {**self.suggestion._asdict(), "own_lr": self.own_lr})
        curves = [(sweep.lrs, sweep.losses, sweep.smoothed) for sweep in self.sweeps]
        marks: dict[str, Any] = {
            "seeds": [sweep.seed for sweep in self.sweeps],
            "suggestion": self.suggestion.value,
            "interval": (self.suggestion.low, self.suggestion.high) if self.num_sweeps > 1 else None,
            "marks": self.suggestion.rules,
            "own_lr": self.own_lr,
            "doubt": self.doubt,
        }
        artifacts.save_figure(trainer, name, draw_lr_range(curves, **marks))
        if self.zoom is not None:
            low, high = self.zoom
            if any(np.isfinite(smoothed[(lrs >= low) & (lrs <= high)]).any() for lrs, _, smoothed in curves):
                artifacts.save_figure(trainer, f"{name}_zoom", draw_lr_range(curves, **marks, zoom=self.zoom))
            else:
                rank_zero_warn(f"no sweep reached the zoom range {low:g} to {high:g}: its picture is not drawn.")
        artifacts.save_page(trainer, name, lr_range_html(curves, **marks))


def verdict(suggestion: Suggestion) -> str:
    """Describe the result of a verification in one line."""
    tested = ", ".join(f"{lr:.2g}: {loss:.3g}" for lr, loss in suggestion.tested)
    found = suggestion.rules["upturn_eighth"]
    result = "verified" if suggestion.value == found else f"corrected from {found:.2g} to {suggestion.value:.2g}"
    return f"{result} (losses of short trainings: {tested})"


def _own_lr(pl_module: LightningModule) -> tuple[str | None, float | None]:
    """Return the name and value of the module's learning rate, an attribute or a hyperparameter."""
    for name in LR_NAMES:
        for value in (getattr(pl_module, name, None), pl_module.hparams.get(name)):
            if isinstance(value, int | float | Tensor):  # may also be a method of this name
                return name, float(value)
    return None, None


def _peak_lrs(trainer: Trainer) -> list[float]:
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    return [float(group.get("initial_lr", group["lr"])) for group in groups]
