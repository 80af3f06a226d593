"""Animation of the filters of a convolution during training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from lightning_cifar.analysis.filters import Filters, find_filters, largest_weight, scale_filters
from lightning_cifar.artifacts import FrameStore, frame_store, run_folder, save_animation, writes
from lightning_cifar.callbacks.base import StoringCallback, check_minimum, check_seconds_per_frame
from lightning_cifar.callbacks.progress import completed_epochs
from lightning_cifar.callbacks.weight_frames import Frame, FramesState, no_frames, read_frame, warn_of_damage

ACCURACIES = ("val/accuracy", "val/acc", "val_accuracy", "val_acc")
"""Usual names of a validation accuracy."""


class WeightGIF(StoringCallback):
    """Animate the filters of a convolution as ``pictures/<name>.gif`` and ``.webp`` (lossless).

    The first frame shows the initial weights. An animation has at most 240 frames, evenly selected, with the first and
    the last one. It is written when the training ends, also by an interruption or an error.

    The weights of each frame are stored in ``pictures/.frames/<name>/``, so memory does not grow with the run. A
    resumed run, also in a new folder, copies the frames from before the checkpoint, which it searches in the folder
    stored in the checkpoint and in the two folders above it. If they are missing, a warning is shown, and the animation
    starts at the checkpoint.

    Args:
        layer: name of a convolution in ``model.named_modules()``; None uses the first one.
        every_n_epochs: a frame at the end of every n-th epoch; 1 if no period is given.
        every_n_steps: a frame after every n-th optimizer step instead.
        columns: filters per row.
        mode: ``rgb`` shows a filter with 3 input channels as one color picture, ``channels`` shows each input channel
            separately, ``auto`` is ``rgb`` if possible.
        scaling: ``per_filter`` scales each filter from its lowest to its highest weight in this frame, which shows its
            shape. ``shared`` uses one range centered on zero for all filters and frames, which shows its growth.
        seconds_per_frame: duration of a frame, at least 0.02.
        metric: name of a logged value for the title; None uses the validation accuracy.
        max_kernels: maximum number of pictures per frame, at most 256; of a layer with more, the first ones are shown.
        name: name of the files; default: ``weights``, plus the layer's name if ``layer`` is given.

    Raises:
        ValueError: If a number is out of range, both periods are given, or, when fit starts, the layer has no filters.

    Example:
        >>> trainer = Trainer(callbacks=[WeightGIF(every_n_steps=100, scaling="shared")])
    """

    def __init__(
        self,
        layer: str | None = None,
        every_n_epochs: int | None = None,
        every_n_steps: int | None = None,
        columns: int = 8,
        mode: Literal["auto", "rgb", "channels"] = "auto",
        scaling: Literal["per_filter", "shared"] = "per_filter",
        seconds_per_frame: float = 0.2,
        metric: str | None = None,
        max_kernels: int = 128,
        name: str | None = None,
    ) -> None:
        super().__init__(every_n_epochs, every_n_steps)
        check_minimum(columns=columns)
        if not 1 <= max_kernels <= 256:
            raise ValueError(f"max_kernels (={max_kernels}) must be 1 to 256")
        check_seconds_per_frame(seconds_per_frame)
        self.layer, self.metric = layer, metric
        self.columns, self.max_kernels = columns, max_kernels
        self.mode, self.scaling = mode, scaling
        self.seconds_per_frame = seconds_per_frame
        self.name = name or ("weights" if layer is None else f"weights_{layer}")
        self._filters: Filters | None = None
        self._shape: tuple[int, ...] = ()
        self._state = no_frames()
        self._rendered = 0

    @property
    def state_key(self) -> str:
        return self._generate_state_key(name=self.name)

    def state_dict(self) -> dict[str, object]:
        return dict(self._state)

    def load_state_dict(self, state_dict: FramesState) -> None:  # type: ignore[override]
        self._state = FramesState(**state_dict)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._filters = find_filters(pl_module, self.layer, self.mode)
        self._shape = self._filters.read(self.max_kernels).shape

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._rendered = 0
        if trainer.global_step == 0:
            self._state = no_frames()  # a new training with a callback that was used before
        if not writes(trainer):
            return
        self._store = frame_store(run_folder(trainer), self.name)
        self._copy_frames(trainer, self._store)
        if not self._state["count"]:
            self._capture(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, dict[str, object]]
    ) -> None:
        self._note_metric(trainer)
        super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().teardown(trainer, pl_module, stage)
        self._filters = None

    def _capture_if_due(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store a frame if it is due. After the validation it is stored again, with the new metric."""
        if not self._in_epoch:
            return
        if self._is_last(trainer):
            due = True
        elif self.every_n_steps is not None:
            # A module with several optimizers takes several steps per batch.
            due = trainer.global_step // self.every_n_steps > self._state["step"] // self.every_n_steps
        else:
            assert self.every_n_epochs is not None
            complete = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
            due = complete and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if due:
            self._capture(trainer)

    def _capture(self, trainer: Trainer) -> None:
        if self._store is None or self._filters is None:
            return
        self._note_metric(trainer)
        state = self._state
        epoch = completed_epochs(trainer, within=self._in_epoch)
        index = state["count"] - 1 if self._is_last(trainer) else state["count"]
        self._store.write(
            index,
            run=state["run"],
            weights=self._filters.read(self.max_kernels),
            epoch=epoch,
            step=trainer.global_step,
            metric=np.nan if state["metric"] is None else state["metric"],
        )
        state["count"], state["epoch"], state["step"] = index + 1, epoch, trainer.global_step
        state["folder"] = str(run_folder(trainer).resolve())

    def _is_last(self, trainer: Trainer) -> bool:
        """Return whether the last frame was stored at the current step."""
        now = completed_epochs(trainer, within=self._in_epoch), trainer.global_step
        return self._state["count"] > 0 and now == (self._state["epoch"], self._state["step"])

    def _note_metric(self, trainer: Trainer) -> None:
        values = trainer.callback_metrics
        names = ACCURACIES if self.metric is None else (self.metric,)
        self._state["metric"] = next((float(values[name]) for name in names if name in values), self._state["metric"])

    def _copy_frames(self, trainer: Trainer, store: FrameStore) -> None:
        """Copy the frames from before the checkpoint to this run's folder, and delete other frames there."""
        count = self._state["count"]
        if count:
            folders = [run_folder(trainer).resolve(), Path(self._state["folder"])]
            if trainer.ckpt_path is not None:  # in case the run was moved
                folders += Path(trainer.ckpt_path).resolve().parents[:2]
            stores = (frame_store(folder, self.name) for folder in folders)
            source = next((other for other in stores if self._holds(other)), None)
            if source is None:
                rank_zero_warn(
                    f"WeightGIF: the {count} frames from before the checkpoint are missing in {self._state['folder']}: "
                    "the animation starts here."
                )
                self._state = no_frames()
            else:
                if source.folder != frame_store(folders[0], self.name).folder:
                    store.copy_from(source, count)
                damaged = [index for index in range(count) if read_frame(store, index, self._shape) is None]
                warn_of_damage(store, damaged)
        store.keep(self._state["count"])

    def _holds(self, store: FrameStore) -> bool:
        last = read_frame(store, self._state["count"] - 1, self._shape)
        return last is not None and (last.run, last.step) == (self._state["run"], self._state["step"])

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._store is None or self._filters is None or self._rendered == self._state["count"]:
            return
        from lightning_cifar.plots import encode_animation

        self._rendered = self._state["count"]
        last, limit, found = None, 0.0, []
        for index, frame in self._frames(self._store, range(self._state["count"])):
            last, limit = frame, max(limit, largest_weight(frame.weights))
            found.append(index)
        warn_of_damage(self._store, sorted({*range(self._state["count"])} - {*found}))
        if last is not None:
            about = f"{type(pl_module).__name__}, {self._filters.name}: {self._filters.describe(last.weights)}"
            shared = limit if self.scaling == "shared" else None
            draw = partial(self._draw, self._store, self._filters.color, about, shared)
            files = encode_animation(found, draw, self.seconds_per_frame)
            save_animation(trainer, self.name, files, tag=f"filters/{self.name}")

    def _frames(self, store: FrameStore, indices: Iterable[int]) -> Iterator[tuple[int, Frame]]:
        for index in indices:
            frame = read_frame(store, index, self._shape)
            if frame is not None:
                yield index, frame

    def _draw(
        self, store: FrameStore, color: bool, about: str, limit: float | None, indices: Sequence[int]
    ) -> Iterator[NDArray[np.uint8]]:
        from lightning_cifar.plots import draw_filter_frame

        for _, frame in self._frames(store, indices):
            not_finite = int((~np.isfinite(frame.weights)).sum())
            yield draw_filter_frame(
                scale_filters(frame.weights, limit),
                color=color,
                title=self._title(frame),
                subtitle=f"{not_finite} weights are not finite (magenta)" if not_finite else about,
                limit=limit,
                columns=self.columns,
            )

    def _title(self, frame: Frame) -> str:
        epoch = f"{frame.epoch:.1f}" if self.every_n_epochs is None else f"{frame.epoch:g}"
        title = f"epoch {epoch}, step {frame.step}"
        if not np.isnan(frame.metric):
            share = self.metric is None and 0 <= frame.metric <= 1
            value = f"{100 * frame.metric:.1f} %" if share else f"{frame.metric:.4g}"
            return f"{title}, {self.metric or 'validation accuracy'} {value}"
        return title if frame.step else f"{title}, initial weights"
