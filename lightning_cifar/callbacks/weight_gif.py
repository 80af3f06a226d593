"""The filters of a convolution as they are learnt, as an animation."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch import nn

from lightning_cifar.analysis.filters import (
    choose_color,
    describe_filters,
    find_filters,
    largest_weight,
    read_filters,
    scale_filters,
)
from lightning_cifar.artifacts import FrameStore, frame_store, run_folder, save_animation
from lightning_cifar.files.reading import UnreadableFileError

ACCURACIES = ("val/accuracy", "val/acc", "val_accuracy", "val_acc")
"""Names under which a validation accuracy is looked for."""


class _State(TypedDict):
    run: str
    """Marks the frames of a training, whichever folders it goes through."""
    count: int
    folder: str
    """Where the frames are; count, step and epoch are those of the last one."""
    epoch: float
    step: int
    metric: float | None
    """The latest, which a resumed run shows until it has its own."""


class _Frame(NamedTuple):
    run: str
    weights: NDArray[np.float32]
    epoch: float
    step: int
    metric: float  # NaN if none


class WeightGIF(Callback):
    """Save ``pictures/<name>.gif`` and ``.webp`` (lossless): a convolution's filters from their initial weights on.

    An animation has at most 240 frames: of more, an even selection is shown, with the first and the last one.

    The first frame is from before the first step. The animation is put together when the training ends, also by an
    interruption or an error. Until then the weights of each frame lie in ``pictures/.frames/<name>/``, so that memory
    does not grow with the run. They stay there: a run that is resumed from a checkpoint begins with a copy of those
    from before the checkpoint, also in a folder of its own, and after a kill too. They are looked for where the
    checkpoint says, and in the two folders above the checkpoint; if they are gone, that is said, and the animation
    begins at the resumption.

    Args:
        layer: name of a convolution, as in ``model.named_modules()``; the first one if not given.
        every_n_epochs: a frame at the end of each n-th epoch; 1 if no period is given.
        every_n_steps: instead, a frame after each n-th optimizer step.
        columns: filters in a row.
        mode: ``rgb`` shows a filter of 3 input channels as one picture; ``channels`` each input channel by itself.
            ``auto`` is ``rgb`` where it can be.
        scaling: ``per_filter``: each filter from its lowest to its highest weight in this frame, which shows
            its shape. ``shared``: one range for all filters and frames, centred on zero, which shows its growth.
        seconds_per_frame: in seconds, at least 0.02.
        metric: name of a logged value for the title; the validation accuracy under its usual names if not given.
        max_kernels: pictures on a frame; of a layer with more the first ones are shown, and the frame says so.
        name: of the files; ``weights``, with the layer's name where one is given.

    Raises:
        ValueError: A number is out of range, both periods are given, or, when fit starts, the layer has no filters.
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
        if every_n_epochs is not None and every_n_steps is not None:
            raise ValueError(
                f"every_n_epochs (={every_n_epochs}) and every_n_steps (={every_n_steps}) exclude each other: "
                "give one of them"
            )
        if every_n_epochs is None and every_n_steps is None:
            every_n_epochs = 1
        numbers = {"every_n_epochs": every_n_epochs, "every_n_steps": every_n_steps}
        for argument, number in (numbers | {"columns": columns}).items():
            if number is not None and number < 1:
                raise ValueError(f"{argument} (={number}) must be at least 1")
        if not 1 <= max_kernels <= 256:
            raise ValueError(f"max_kernels (={max_kernels}) must be 1 to 256")
        if not 0.02 <= seconds_per_frame <= 60:
            raise ValueError(f"seconds_per_frame (={seconds_per_frame}) must be 0.02 to 60: browsers show no less")
        self.layer, self.metric = layer, metric
        self.every_n_epochs, self.every_n_steps = every_n_epochs, every_n_steps
        self.columns, self.max_kernels = columns, max_kernels
        self.mode, self.scaling = mode, scaling
        self.seconds_per_frame = seconds_per_frame
        self.name = name or ("weights" if layer is None else f"weights_{layer}")
        self._layer: nn.Module | None = None
        self._layer_name = ""
        self._color = False
        self._shape: tuple[int, ...] = ()
        self._store: FrameStore | None = None  # while training, on global rank zero
        self._state = _no_frames()
        self._in_epoch = False
        self._rendered = 0

    @property
    def state_key(self) -> str:
        return self._generate_state_key(name=self.name)

    def state_dict(self) -> dict[str, object]:
        return dict(self._state)

    def load_state_dict(self, state_dict: _State) -> None:  # type: ignore[override]
        self._state = _State(**state_dict)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._layer_name, self._layer = find_filters(pl_module, self.layer)
        self._color = choose_color(self._layer, self.mode)
        self._shape = read_filters(self._layer, color=self._color, max_kernels=self.max_kernels).shape

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._store, self._in_epoch, self._rendered = None, False, 0
        if trainer.global_step == 0:
            self._state = _no_frames()  # a new training with a callback that has served before
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]  # set untyped
            return
        self._store = frame_store(run_folder(trainer), self.name)
        self._take_over(trainer, self._store)
        if not self._state["count"]:
            self._capture(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        self._in_epoch = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if self.every_n_steps is not None:
            self._capture_if_due(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._capture_if_due(trainer)
        self._in_epoch = False

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, dict[str, object]]
    ) -> None:
        # Of the hooks of a step or an epoch's end, saving may come before ours, and a resumed run does not call them.
        self._capture_if_due(trainer)
        self._note_metric(trainer)
        checkpoint["callbacks"][self.state_key] = self.state_dict()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._render(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        try:
            self._render(trainer, pl_module)
        except OSError as error:  # a full disk may be why we are here; the first exception is the one to show
            rank_zero_warn(f"WeightGIF: {error}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._store = self._layer = None

    def _capture_if_due(self, trainer: Trainer) -> None:
        """A frame if its time has come. It comes again after the validation, and gets the metric of that."""
        if not self._in_epoch:
            return
        if self._is_last(trainer):
            due = True
        elif self.every_n_steps is not None:
            # A module with several optimizers makes several steps at once.
            due = trainer.global_step // self.every_n_steps > self._state["step"] // self.every_n_steps
        else:
            assert self.every_n_epochs is not None
            complete = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
            due = complete and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if due:
            self._capture(trainer)

    def _capture(self, trainer: Trainer) -> None:
        if self._store is None or self._layer is None:
            return
        self._note_metric(trainer)
        state = self._state
        epoch = _epochs_completed(trainer, within=self._in_epoch)
        index = state["count"] - 1 if self._is_last(trainer) else state["count"]
        self._store.write(
            index,
            run=state["run"],
            weights=read_filters(self._layer, color=self._color, max_kernels=self.max_kernels),
            epoch=epoch,
            step=trainer.global_step,
            metric=np.nan if state["metric"] is None else state["metric"],
        )
        state["count"], state["epoch"], state["step"] = index + 1, epoch, trainer.global_step
        state["folder"] = str(run_folder(trainer).resolve())

    def _is_last(self, trainer: Trainer) -> bool:
        """Whether the last frame is of this very moment."""
        now = _epochs_completed(trainer, within=self._in_epoch), trainer.global_step
        return self._state["count"] > 0 and now == (self._state["epoch"], self._state["step"])

    def _note_metric(self, trainer: Trainer) -> None:
        values = trainer.callback_metrics
        names = ACCURACIES if self.metric is None else (self.metric,)
        self._state["metric"] = next((float(values[name]) for name in names if name in values), self._state["metric"])

    def _take_over(self, trainer: Trainer, store: FrameStore) -> None:
        """Bring the frames from before the checkpoint into this run's folder; what else is there belongs to others."""
        count = self._state["count"]
        if count:
            folders = [run_folder(trainer).resolve(), Path(self._state["folder"])]
            if trainer.ckpt_path is not None:  # the run may have been moved
                folders += Path(trainer.ckpt_path).resolve().parents[:2]
            stores = (frame_store(folder, self.name) for folder in folders)
            source = next((other for other in stores if self._holds(other)), None)
            if source is None:
                rank_zero_warn(
                    f"WeightGIF: the {count} frames from before the checkpoint are gone, {self._state['folder']} does "
                    "not hold them: the animation begins here."
                )
                self._state = _no_frames()
            else:
                if source.folder != frame_store(folders[0], self.name).folder:
                    store.copy_from(source, count)
                self._warn_of_damage(store)
        store.keep(self._state["count"])

    def _warn_of_damage(self, store: FrameStore) -> None:
        """Report it when a run is continued, and not after hours of training."""
        damaged = [index for index in range(self._state["count"]) if self._frame(store, index) is None]
        if damaged:
            names = ", ".join(f"{index:06d}.npz" for index in damaged[:3]) + (" ..." if len(damaged) > 3 else "")
            rank_zero_warn(
                f"WeightGIF: {len(damaged)} frames in {store.folder} are gone or damaged ({names}): left out."
            )

    def _holds(self, store: FrameStore) -> bool:
        last = self._frame(store, self._state["count"] - 1)
        return last is not None and (last.run, last.step) == (self._state["run"], self._state["step"])

    def _render(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._store is None or self._layer is None or self._rendered == self._state["count"]:
            return
        from lightning_cifar.plots import encode_animation

        self._rendered = self._state["count"]
        last, limit, found = None, 0.0, []
        for index, frame in self._frames(self._store, range(self._state["count"])):
            last, limit = frame, max(limit, largest_weight(frame.weights))
            found.append(index)
        if len(found) < self._state["count"]:
            missing = self._state["count"] - len(found)
            rank_zero_warn(f"WeightGIF: {missing} frames in {self._store.folder} are gone or damaged, and left out.")
        if last is not None:
            about = f"{type(pl_module).__name__}, {self._layer_name}: {describe_filters(self._layer, last.weights)}"
            draw = partial(self._draw, self._store, about, limit if self.scaling == "shared" else None)
            save_animation(trainer, self.name, encode_animation(found, draw, self.seconds_per_frame))

    def _frames(self, store: FrameStore, indices: Iterable[int]) -> Iterator[tuple[int, _Frame]]:
        for index in indices:
            frame = self._frame(store, index)
            if frame is not None:
                yield index, frame

    def _frame(self, store: FrameStore, index: int) -> _Frame | None:
        """A frame of this layer; None if its file is gone, damaged, or of another layer."""
        try:
            held = store.read(index)
            if held is None or held["weights"].shape != self._shape:
                return None
            numbers = float(held["epoch"]), int(held["step"]), float(held["metric"])
            return _Frame(str(held["run"]), held["weights"].astype(np.float32), *numbers)
        except (UnreadableFileError, KeyError, TypeError, ValueError):
            return None

    def _draw(
        self, store: FrameStore, about: str, limit: float | None, indices: Sequence[int]
    ) -> Iterator[NDArray[np.uint8]]:
        from lightning_cifar.plots import draw_filter_frame

        for _, frame in self._frames(store, indices):
            strange = int((~np.isfinite(frame.weights)).sum())
            yield draw_filter_frame(
                scale_filters(frame.weights, limit),
                color=self._color,
                title=self._title(frame),
                subtitle=f"{strange} weights are not finite (magenta)" if strange else about,
                limit=limit,
                columns=self.columns,
            )

    def _title(self, frame: _Frame) -> str:
        epoch = f"{frame.epoch:.1f}" if self.every_n_epochs is None else f"{frame.epoch:g}"
        title = f"epoch {epoch}, step {frame.step}"
        if not np.isnan(frame.metric):
            share = self.metric is None and 0 <= frame.metric <= 1
            value = f"{100 * frame.metric:.1f} %" if share else f"{frame.metric:.4g}"
            return f"{title}, {self.metric or 'validation accuracy'} {value}"
        return title if frame.step else f"{title}, initial weights"


def _no_frames() -> _State:
    return _State(run=secrets.token_hex(8), count=0, folder="", epoch=0.0, step=0, metric=None)


def _epochs_completed(trainer: Trainer, *, within: bool) -> float:
    """With the part of the current one. Where that has not begun (not ``within``) the last one's may still stand."""
    batches, progress = trainer.num_training_batches, trainer.fit_loop.epoch_loop.batch_progress
    part = 1.0 if progress.is_last_batch else 0.0
    if 0 < batches < float("inf"):
        part = min(1.0, progress.current.ready / batches)
    return trainer.current_epoch + (part if within or part < 1 else 0.0)
