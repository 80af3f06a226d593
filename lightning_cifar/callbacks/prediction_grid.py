"""What the network says of a batch, and the mistakes of which it is most sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_cifar.analysis.prediction_table import are_probabilities
from lightning_cifar.analysis.predictions import Predictions, keep_worst, read_predictions
from lightning_cifar.artifacts import save_figure, save_table
from lightning_cifar.callbacks.class_names import class_names
from lightning_cifar.callbacks.duplicate_callbacks import warn_of_twins
from lightning_cifar.callbacks.probe import loader_at
from lightning_cifar.callbacks.ranks import gather, places

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Stage: TypeAlias = Literal["val", "test"]

_SPLIT = {"val": "validation", "test": "test"}


class PredictionGrid(Callback):
    """Save two sheets of images with predicted class, its probability and, where it is wrong, the true class.

    ``pictures/predictions_<stage>.png`` is the first batch of the validation or test set;
    ``pictures/mistakes_<stage>.png`` and ``mistakes_<stage>.csv`` are the most confident mistakes of the whole set. No
    more images than the sheets show are kept while the batches pass. Drawn at the end of ``fit`` (from its last
    validation), ``validate`` and ``test``.

    The evaluation step returns the logits (N, K), or probabilities, as a tensor or as ``{"logits": ...}``, and the
    batch is (images, labels). With several data loaders the first one is shown. The data module's ``class_names``,
    ``mean`` and ``std`` are used where it has them.

    Args:
        rows, columns: of the sheets; a smaller batch fills less.
        every_n_epochs: draw during training too, after the validation of each n-th epoch.

    Raises:
        ValueError: A number is below 1.
    """

    def __init__(self, rows: int = 4, columns: int = 8, every_n_epochs: int | None = None) -> None:
        if rows < 1 or columns < 1:
            raise ValueError(f"rows (={rows}) and columns (={columns}) must be at least 1")
        if every_n_epochs is not None and every_n_epochs < 1:
            raise ValueError(f"every_n_epochs (={every_n_epochs}) must be at least 1, or None for the end only")
        self.rows, self.columns = rows, columns
        self.every_n_epochs = every_n_epochs
        self._silent = False
        self._told: set[str] = set()
        self._reset()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._silent = False  # another module may give what the last one did not
        warn_of_twins(trainer, self)

    def _reset(self) -> None:
        self._batch: Predictions | None = None
        self._worst: Predictions | None = None
        self._num_classes = 0
        self._gives_probabilities = False
        self._seen = 0
        self._num_counted: Tensor | int = 0
        self._num_wrong: Tensor | int = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._reset()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._reset()

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._reset()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not trainer.sanity_checking and dataloader_idx == 0:
            self._collect("val", trainer, trainer.val_dataloaders, outputs, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if dataloader_idx == 0:
            self._collect("test", trainer, trainer.test_dataloaders, outputs, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._join_ranks(trainer)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._join_ranks(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if trainer.state.fn == TrainerFn.VALIDATING or (
            self.every_n_epochs is not None and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        ):
            self._report("val", trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report("test", trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._batch is None and not self._silent:
            self._give_up("the fit ended without a validation. Give it validation data, or run validate or test")
        self._report("val", trainer)

    def _collect(self, stage: Stage, trainer: Trainer, loaders: object, outputs: object, batch: object) -> None:
        if self._silent:
            return
        parts = _read(outputs, batch)
        if isinstance(parts, str):
            self._give_up(parts.format(step="validation_step" if stage == "val" else "test_step"))
            return
        images, logits, labels = parts
        if self._worst is not None and self._worst.images.shape[1:] != images.shape[1:]:
            shapes = [tuple(each.shape[1:]) for each in (self._worst.images, images)]
            self._give_up(f"images of {shapes[0]} and {shapes[1]} do not go on one sheet: let the data resize them")
            return
        if self._batch is None:  # one look an evaluation, since a look waits for the device
            self._gives_probabilities = are_probabilities(logits, tolerance=1e-3)
        if self._gives_probabilities:
            logits = logits.log()
        indices = places(trainer, loader_at(loaders), self._seen, len(labels)).to(labels.device)
        labels = torch.where(indices < 0, -1, labels.long())  # samples that a sampler repeats count once
        self._seen += len(labels)
        self._num_classes = logits.shape[1]
        predictions = read_predictions(images, logits, labels, indices)
        count = self.rows * self.columns
        if self._batch is None:
            counted = (predictions.true >= 0).nonzero()[:count, 0]
            self._batch = Predictions(*(part[counted] for part in predictions))
        self._num_counted = self._num_counted + (predictions.true >= 0).sum()
        self._num_wrong = self._num_wrong + predictions.wrong.sum()
        self._worst = keep_worst(self._worst, predictions, count)

    def _give_up(self, reason: str) -> None:
        self._reset()
        self._silent = True
        if reason not in self._told:
            self._told.add(reason)
            rank_zero_warn(f"PredictionGrid shows nothing: {reason}.")

    def _join_ranks(self, trainer: Trainer) -> None:
        """Each process has seen its share: from here on all know of all mistakes. All ranks take part."""
        if trainer.world_size == 1:
            return
        size = self.rows * self.columns
        own = (_on_cpu(self._batch), _on_cpu(self._worst), int(self._num_counted), int(self._num_wrong))
        shares = gather(trainer, own)
        firsts = [batch for batch, _, _, _ in shares if batch is not None]
        if firsts:
            joined = Predictions(*(torch.cat(parts) for parts in zip(*firsts, strict=True)))
            order = joined.indices.argsort()[:size]
            self._batch = Predictions(*(part[order] for part in joined))
        self._worst = None
        for _, worst, _, _ in shares:
            if worst is not None:
                self._worst = keep_worst(self._worst, worst, size)
        self._num_counted = sum(counted for _, _, counted, _ in shares)
        self._num_wrong = sum(wrong for _, _, _, wrong in shares)

    def _report(self, stage: Stage, trainer: Trainer) -> None:
        if self._batch is None or self._worst is None or not trainer.is_global_zero:
            return
        wrong = self._worst.wrong
        worst = Predictions(*(part[wrong] for part in self._worst))
        total, mistakes = int(self._num_counted), int(self._num_wrong)
        names = _class_names(trainer, self._num_classes)
        split = _SPLIT[stage]
        if not mistakes:
            headline = f"No mistake: all {total:,} {split} images are right."
        elif mistakes > len(wrong):
            headline = f"The {len(wrong)} most confident of {mistakes:,} mistakes among {total:,} {split} images"
        else:
            headline = f"All {mistakes} mistakes among {total:,} {split} images, the most confident first"
        num_wrong = int(self._batch.wrong.sum())
        batch_headline = f"Predictions for {len(self._batch.true)} {split} images, {num_wrong} of them wrong"
        save_figure(trainer, f"predictions_{stage}", self._draw(trainer, self._batch, names, batch_headline))
        save_figure(trainer, f"mistakes_{stage}", self._draw(trainer, worst, names, headline, numbered=True))
        rows = zip(
            worst.indices.tolist(),
            [names[label] for label in worst.true.tolist()],
            [names[label] for label in worst.predicted.tolist()],
            worst.probabilities.tolist(),
            strict=True,
        )
        save_table(trainer, f"mistakes_{stage}", ("index", "true", "predicted", "probability"), rows)

    def _draw(
        self,
        trainer: Trainer,
        predictions: Predictions,
        names: Sequence[str],
        title: str,
        *,
        numbered: bool = False,
    ) -> Figure:
        from lightning_cifar.plots import draw_predictions, to_displayable

        shown = Predictions(*(part.cpu() for part in predictions))
        data = getattr(trainer, "datamodule", None)
        pixels = shown.images.float() if shown.images.is_floating_point() else shown.images  # NumPy has no bfloat16
        return draw_predictions(
            to_displayable(pixels.numpy(), getattr(data, "mean", None), getattr(data, "std", None)),
            [names[label] for label in shown.predicted.tolist()],
            [names[label] for label in shown.true.tolist()],
            shown.probabilities.numpy(),
            numbers=shown.indices.tolist() if numbered else None,
            columns=self.columns,
            title=title,
        )


def _read(outputs: object, batch: object) -> tuple[Tensor, Tensor, Tensor] | str:
    """Images (N, C, H, W), logits (N, K) and labels (N,), or what is missing."""
    images, labels = batch[:2] if isinstance(batch, tuple | list) and len(batch) > 1 else (None, None)
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] not in (1, 3):
        return "a batch must be (images, labels) with images (N, C, H, W), C 1 or 3"
    if not isinstance(labels, Tensor) or labels.shape != images.shape[:1] or labels.is_floating_point():
        return "a batch must be (images, labels) with integer labels (N,)"
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else outputs
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(labels) or logits.shape[1] < 2:
        return '{step} must return the logits (N, K), or {{"logits": logits}}, of 2 or more classes'
    return images, logits, labels


def _on_cpu(predictions: Predictions | None) -> Predictions | None:
    return None if predictions is None else Predictions(*(part.cpu() for part in predictions))


def _class_names(trainer: Trainer, num_classes: int) -> Sequence[str]:
    names = class_names(getattr(trainer, "datamodule", None), count=num_classes)
    return names or [str(index) for index in range(num_classes)]
