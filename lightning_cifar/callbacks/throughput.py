"""Images per second of training, on the progress bar and in the log."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class Throughput(Callback):
    """Show ``images/s`` over the last steps on the progress bar, and log ``train/images_per_s`` for each epoch.

    The time is that of the training loop with its loading of data; validation and whatever follows an epoch are taken
    out. The images of all ranks count. A GPU is waited for once an epoch and before a validation, never in a step, so
    the number on the bar is that of the steps launched, which a full queue soon holds to those that are done.

    Args:
        window: steps over which the number on the bar is taken.
        refresh_seconds: the bar gets a new number at most this often. Reaching its metrics takes about as long as a
            ``log`` call, too much for every step.
    """

    def __init__(self, window: int = 50, refresh_seconds: float = 0.5) -> None:
        if window < 1:
            raise ValueError(f"window (={window}) must be at least 1 step")
        self.refresh_seconds = refresh_seconds
        self._marks: deque[tuple[float, int]] = deque(maxlen=window + 1)
        self._images = 0
        self._epoch_start = (0.0, 0)
        self._excluded = 0.0
        self._paused_at: float | None = None
        self._refreshed_at = 0.0

    @property
    def images_per_s(self) -> float:
        """Over the window, of all ranks; 0 before the first step."""
        return _rate(self._marks[0], self._marks[-1]) if self._marks else 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._paused_at = None
        self._refreshed_at = time.perf_counter()
        self._marks.clear()
        self._epoch_start = (self._clock(), self._images)
        self._marks.append(self._epoch_start)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._resume()
        self._epoch_start = (self._clock(), self._images)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        self._resume()  # after a validation in the middle of an epoch

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self._images += _count_images(batch) * trainer.world_size
        self._marks.append((self._clock(), self._images))
        if time.perf_counter() - self._refreshed_at >= self.refresh_seconds:
            self._refresh_bar(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._pause(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pause(pl_module)
        rate = _rate(self._epoch_start, (self._clock(), self._images))
        # Not reduced over the ranks, which agree closely: the progress bar reads pending metrics on rank zero
        # alone, and would wait there for the others for ever.
        pl_module.log("train/images_per_s", rate, sync_dist=False)

    def _clock(self) -> float:
        """Seconds of training so far; stands still during a pause."""
        return (time.perf_counter() if self._paused_at is None else self._paused_at) - self._excluded

    def _pause(self, pl_module: LightningModule) -> None:
        if self._paused_at is None:
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize(pl_module.device)
            self._paused_at = time.perf_counter()

    def _resume(self) -> None:
        if self._paused_at is not None:
            self._excluded += time.perf_counter() - self._paused_at
            self._paused_at = None

    def _refresh_bar(self, trainer: Trainer) -> None:
        self._refreshed_at = time.perf_counter()
        bar = trainer.progress_bar_callback
        if bar is not None and getattr(bar, "is_enabled", True):
            # Text, since a number is shown with decimals by one bar and as 1.23e+4 by the other.
            trainer.progress_bar_metrics["images/s"] = f"{self.images_per_s:,.0f}"  # type: ignore[assignment]


def _rate(start: tuple[float, int], end: tuple[float, int]) -> float:
    seconds = end[0] - start[0]
    return (end[1] - start[1]) / seconds if seconds > 0 else 0.0


def _count_images(batch: object) -> int:
    """Length of the first tensor in a batch."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 0
    items = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else ()
    return next((count for item in items if (count := _count_images(item))), 0)
