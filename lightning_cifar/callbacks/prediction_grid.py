"""Sheets of predicted images, and of the most confident mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_cifar.analysis.prediction_table import are_probabilities
from lightning_cifar.analysis.predictions import Predictions, keep_worst, read_predictions
from lightning_cifar.artifacts import save_figure, save_table
from lightning_cifar.callbacks.base import SPLITS, EvaluationCallback, Stage, check_minimum
from lightning_cifar.callbacks.datamodule import class_names, displayable
from lightning_cifar.callbacks.probe import first_two, integer_labels
from lightning_cifar.callbacks.ranks import gather, places

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class PredictionGrid(EvaluationCallback):
    """Save two sheets of images with predicted class, its probability and, if it is wrong, the true class.

    ``pictures/predictions_<stage>.png`` shows the first batch of the validation or test set.
    ``pictures/mistakes_<stage>.png`` and ``mistakes_<stage>.csv`` contain the most confident mistakes on the whole set.
    Only the images on the sheets are kept in memory. The sheets are drawn at the end of ``fit`` (from its last
    validation), ``validate`` and ``test``.

    The evaluation step returns logits (N, K) or probabilities, as a tensor or as ``{"logits": ...}``. A batch is
    (images, labels). Only the first of several data loaders is shown. The data module's ``class_names``, ``mean`` and
    ``std`` are used if it has them.

    Args:
        rows, columns: numbers of rows and columns of the sheets.
        every_n_epochs: also draw during training, after the validation of every n-th epoch.

    Raises:
        ValueError: If a number is below 1.

    Example:
        >>> trainer = Trainer(callbacks=[PredictionGrid(rows=3, columns=6)])
    """

    def __init__(self, rows: int = 4, columns: int = 8, every_n_epochs: int | None = None) -> None:
        check_minimum(rows=rows, columns=columns)
        self.rows, self.columns = rows, columns
        super().__init__(every_n_epochs)

    def _reset(self) -> None:
        self._batch: Predictions | None = None
        self._worst: Predictions | None = None
        self._num_classes = 0
        self._gives_probabilities = False
        self._num_counted: Tensor | int = 0
        self._num_wrong: Tensor | int = 0

    _only_first_loader = True

    def _collect(self, stage: Stage, trainer: Trainer, loader: object, outputs: object, batch: object) -> None:
        parts = _read(outputs, batch)
        if isinstance(parts, str):
            self._disable(parts.format(step="validation_step" if stage == "val" else "test_step"))
            return
        images, logits, labels = parts
        if self._worst is not None and self._worst.images.shape[1:] != images.shape[1:]:
            shapes = [tuple(each.shape[1:]) for each in (self._worst.images, images)]
            self._disable(f"images of {shapes[0]} and {shapes[1]} do not fit on one sheet: resize them")
            return
        if self._batch is None:  # only once per evaluation, since the check waits for the device
            self._gives_probabilities = are_probabilities(logits, tolerance=1e-3)
        if self._gives_probabilities:
            logits = logits.log()
        indices = places(trainer, loader, self._seen, len(labels)).to(labels.device)
        labels = torch.where(indices < 0, -1, labels.long())  # count samples that a sampler repeats only once
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

    def _join_ranks(self, stage: Stage, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size == 1:
            return
        size = self.rows * self.columns
        local = (_on_cpu(self._batch), _on_cpu(self._worst), int(self._num_counted), int(self._num_wrong))
        shares = gather(trainer, local)
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
        names = class_names(getattr(trainer, "datamodule", None), count=self._num_classes, default="{}")
        split = SPLITS[stage]
        if not mistakes:
            headline = f"No mistakes: all {total:,} {split} images are classified correctly."
        elif mistakes > len(wrong):
            headline = f"The {len(wrong)} most confident of {mistakes:,} mistakes on {total:,} {split} images"
        else:
            headline = f"All {mistakes} mistakes on {total:,} {split} images, the most confident first"
        num_wrong = int(self._batch.wrong.sum())
        batch_headline = f"Predictions for {len(self._batch.true)} {split} images, {num_wrong} of them wrong"
        sheet = self._draw(trainer, self._batch, names, batch_headline)
        save_figure(trainer, f"predictions_{stage}", sheet, tag=f"predictions/{stage}")
        sheet = self._draw(trainer, worst, names, headline, numbered=True)
        save_figure(trainer, f"mistakes_{stage}", sheet, tag=f"mistakes/{stage}")
        rows = zip(
            worst.indices.tolist(),
            [names[label] for label in worst.true.tolist()],
            [names[label] for label in worst.predicted.tolist()],
            worst.probabilities.tolist(),
            strict=True,
        )
        save_table(trainer, f"mistakes_{stage}", ("index", "true", "predicted", "probability"), rows)

    def _draw(
        self, trainer: Trainer, predictions: Predictions, names: Sequence[str], title: str, *, numbered: bool = False
    ) -> Figure:
        from lightning_cifar.plots import draw_predictions

        shown = Predictions(*(part.cpu() for part in predictions))
        return draw_predictions(
            displayable(trainer, shown.images),
            [names[label] for label in shown.predicted.tolist()],
            [names[label] for label in shown.true.tolist()],
            shown.probabilities.numpy(),
            numbers=shown.indices.tolist() if numbered else None,
            columns=self.columns,
            title=title,
        )


def _read(outputs: object, batch: object) -> tuple[Tensor, Tensor, Tensor] | str:
    """Return images (N, C, H, W), logits (N, K) and labels (N,), or a message about what is missing."""
    images, second = first_two(batch)
    if second is None or not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] not in (1, 3):
        return "batches must be (images, labels) with images (N, C, H, W), C 1 or 3"
    labels = integer_labels(second, len(images))
    if labels is None:
        return "batches must be (images, labels) with integer labels (N,)"
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else outputs
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(labels) or logits.shape[1] < 2:
        return '{step} must return the logits (N, K), or {{"logits": logits}}, of 2 or more classes'
    return images, logits, labels


def _on_cpu(predictions: Predictions | None) -> Predictions | None:
    return None if predictions is None else Predictions(*(part.cpu() for part in predictions))
