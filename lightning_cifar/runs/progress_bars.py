"""Progress bars of Lightning that count epochs from 1, as the log lines do."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, ProgressBar, RichProgressBar, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import convert_inf

from lightning_cifar.runs.progress_lines import number_of_epoch


class RichBar(RichProgressBar):
    """Progress bar of rich."""

    def _get_train_description(self, current_epoch: int) -> str:
        # The same width as "Validation": lines of different widths flicker.
        return f"Epoch {number_of_epoch(self.trainer)}".ljust(len(self.validation_description))


class TQDMBar(TQDMProgressBar):
    """Progress bar of tqdm, if rich is not installed."""

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        # Replaces the method of the base class, which would show its own number first.
        if self._leave:
            self.train_progress_bar = self.init_train_tqdm()
        self.train_progress_bar.reset()
        self.train_progress_bar.total = convert_inf(self.total_train_batches)
        self.train_progress_bar.initial = 0
        self.train_progress_bar.set_description(f"Epoch {number_of_epoch(trainer)}")


def default_bar(config: Mapping[str, Any]) -> list[Callback]:
    """Return the progress bar of a run, unless its ``trainer`` section has one or turns it off."""
    given = config["callbacks"] or []
    own = any(isinstance(each, ProgressBar) for each in ([given] if isinstance(given, Callback) else given))
    if own or config["enable_progress_bar"] is False or config.get("barebones"):
        return []
    return [RichBar() if find_spec("rich") else TQDMBar()]
