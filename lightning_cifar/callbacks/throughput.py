"""Images per second of training, on the progress bar and in the log."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_cifar.callbacks.base import check_minimum


class Throughput(Callback):
    """Show ``images/s`` over the last steps on the progress bar, and log ``throughput`` for each epoch.

    The time includes the training loop and the loading of data, but not validation and other work between epochs. The
    images of all ranks count. The GPU is synchronized once per epoch and before a validation, but not in a step: the
    progress bar counts launched steps, which are soon limited by the GPU's full queue.

    Args:
        window: number of steps of the moving average on the progress bar.
        refresh_seconds: minimum time between two updates of the progress bar; an update takes about as long as a
            ``log`` call.

    Raises:
        ValueError: If ``window`` is below 1.

    Example:
        >>> trainer = Trainer(callbacks=[Throughput(window=100)])
    """

    def __init__(self, window: int = 50, refresh_seconds: float = 0.5) -> None:
        check_minimum(window=window)
        self.refresh_seconds = refresh_seconds
        self._marks: deque[tuple[float, int]] = deque(maxlen=window + 1)
        self._images = 0
        self._epoch_start = (0.0, 0)
        self._excluded = 0.0
        self._paused_at: float | None = None
        self._refreshed_at = 0.0

    @property
    def images_per_s(self) -> float:
        """Images per second over the window, of all ranks; 0 before the first step."""
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
        self._resume()  # after a validation within the epoch

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
        # Not reduced over the ranks, which agree closely: the progress bar reads pending metrics on rank zero only,
        # which would wait for the other ranks without end.
        pl_module.log("throughput", rate, sync_dist=False)

    def _clock(self) -> float:
        """Return the seconds of training so far, without pauses."""
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
            # Text, since the bars format a number differently, as 12300.000 or 1.23e+4.
            trainer.progress_bar_metrics["images/s"] = f"{self.images_per_s:,.0f}"  # type: ignore[assignment]


def _rate(start: tuple[float, int], end: tuple[float, int]) -> float:
    seconds = end[0] - start[0]
    return (end[1] - start[1]) / seconds if seconds > 0 else 0.0


def _count_images(batch: object) -> int:
    """Return the length of the first tensor in a batch."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 0
    items = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else ()
    return next((count for item in items if (count := _count_images(item))), 0)
