"""Accuracy per class on the validation or test set, with the confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lightning_cifar.analysis.classification import accuracy, class_table, confusion_matrix, pr_curves, score_counts
from lightning_cifar.analysis.prediction_table import are_probabilities
from lightning_cifar.artifacts import log_pr_curves, log_table, save_figure, save_table
from lightning_cifar.callbacks.base import SPLITS, EvaluationCallback, Stage
from lightning_cifar.callbacks.datamodule import class_names
from lightning_cifar.callbacks.probe import first_two, integer_labels
from lightning_cifar.callbacks.ranks import gather, places
from lightning_cifar.callbacks.terminal import new_table, print_above_progress_bar, render_table

_MOST_CURVES = 100  # classes with a precision-recall curve each


class ClassAccuracy(EvaluationCallback):
    """Compute accuracy, precision and F1 score of each class, and the confusion matrix.

    The evaluation step returns logits (N, K), as a tensor or as ``{"logits": ...}``. A batch is (images, labels).
    Every sample counts once, also with several processes; several data loaders are counted together.

    After each validation, ``val/accuracy/<class>`` is logged, and TensorBoard receives a precision-recall curve of each
    of up to 100 classes. At the end of ``fit`` (for its last validation),
    ``validate`` and ``test``, the table is printed and saved as ``class_accuracy_<stage>.csv``, and the confusion
    matrix as ``confusion_<stage>.csv`` and ``pictures/confusion_<stage>.png``.

    Args:
        every_n_epochs: also draw the confusion matrix during training, after the validation of every n-th epoch.

    Raises:
        ValueError: If ``every_n_epochs`` is below 1.

    Example:
        >>> trainer = Trainer(callbacks=[ClassAccuracy(every_n_epochs=10)])
    """

    def __init__(self, every_n_epochs: int | None = None) -> None:
        super().__init__(every_n_epochs)

    def _reset(self) -> None:
        self._confusion: Tensor | None = None
        self._scores: Tensor | None = None
        self._gives_probabilities = False

    def _collect(self, stage: Stage, trainer: Trainer, loader: object, outputs: object, batch: object) -> None:
        pair = _logits_and_labels(outputs, batch)
        if pair is None:
            step = "validation_step" if stage == "val" else "test_step"
            self._disable(
                f'{step} must return the logits (N, K), or {{"logits": logits}}, of 2 or more classes, for batches of '
                "(images, integer labels)"
            )
            return
        logits, labels = pair
        found = places(trainer, loader, self._seen, len(labels)).to(labels.device)
        labels = torch.where(found < 0, -1, labels.long())  # count samples that a sampler repeats only once
        self._seen += len(labels)
        counts = confusion_matrix(labels, logits.argmax(dim=1), logits.shape[1])
        if self._confusion is not None and len(self._confusion) != len(counts):
            self._disable(f"logits of {len(self._confusion)} and of {len(counts)} classes cannot be counted together")
            return
        if self._confusion is None:  # only once per evaluation, since the check waits for the device
            self._gives_probabilities = are_probabilities(logits, tolerance=1e-3)
        self._confusion = counts if self._confusion is None else self._confusion + counts
        if logits.shape[1] <= _MOST_CURVES:
            scores = score_counts(labels, logits if self._gives_probabilities else logits.float().softmax(dim=1))
            self._scores = scores if self._scores is None else self._scores + scores

    def _join_ranks(self, stage: Stage, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum over the ranks, of which some may not have seen a batch, and log."""
        own = [None if counts is None else counts.cpu() for counts in (self._confusion, self._scores)]
        self._confusion, self._scores = (_total(counts) for counts in zip(*gather(trainer, own), strict=True))
        if self._confusion is None:
            return
        scores = class_table(self._confusion)
        names = self._names(trainer)
        if self._scores is not None:
            curves = pr_curves(self._scores).numpy()
            log_pr_curves(trainer, {f"pr/{stage}/{name}": curve for name, curve in zip(names, curves, strict=True)})
        metrics = {f"{stage}/accuracy/{name}": s.accuracy for name, s in zip(names, scores, strict=True) if s.count}
        if trainer.state.fn == TrainerFn.FITTING:
            # The ranks already agree; sync_dist only prevents Lightning's warning.
            pl_module.log_dict(metrics, sync_dist=trainer.world_size > 1)
        elif trainer.is_global_zero:
            # Lightning prints the values logged in validate and test, which would repeat our table.
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=trainer.global_step)

    def _report(self, stage: Stage, trainer: Trainer) -> None:
        if self._confusion is None or not trainer.is_global_zero:
            return
        names = self._names(trainer)
        rows = [
            (name, *scores, "" if other is None else names[other], confused)
            for name, (*scores, other, confused) in zip(names, class_table(self._confusion), strict=True)
        ]
        header = ("class", "count", "correct", "accuracy", "precision", "f1", "most_confused_with", "confused")
        save_table(trainer, f"class_accuracy_{stage}", header, rows)
        log_table(trainer, f"classes/{stage}", header, rows)
        matrix = zip(names, self._confusion.tolist(), strict=True)
        save_table(trainer, f"confusion_{stage}", ("true \\ predicted", *names), [(name, *row) for name, row in matrix])
        self._report_epoch(stage, trainer)
        print_above_progress_bar(_format_table(self._title(stage), self._confusion, names))

    def _report_epoch(self, stage: Stage, trainer: Trainer) -> None:
        """Draw the confusion matrix."""
        if self._confusion is None or not trainer.is_global_zero:
            return
        from lightning_cifar.plots import draw_confusion

        figure = draw_confusion(self._confusion.numpy(), self._names(trainer), title=self._title(stage))
        save_figure(trainer, f"confusion_{stage}", figure, tag=f"confusion/{stage}")

    def _names(self, trainer: Trainer) -> list[str]:
        assert self._confusion is not None
        return class_names(getattr(trainer, "datamodule", None), count=len(self._confusion), default="{}")

    def _title(self, stage: Stage) -> str:
        assert self._confusion is not None
        return f"{SPLITS[stage]}: {100 * accuracy(self._confusion):.2f} % of {int(self._confusion.sum()):,} correct"


def _logits_and_labels(outputs: object, batch: object) -> tuple[Tensor, Tensor] | None:
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else outputs
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
        return None
    labels = integer_labels(first_two(batch)[1], len(logits))
    return None if labels is None else (logits.detach(), labels)


def _total(counts: Sequence[Tensor | None]) -> Tensor | None:
    known = [each for each in counts if each is not None]
    return torch.stack(known).sum(dim=0) if known else None


def _format_table(title: str, confusion: Tensor, names: Sequence[str]) -> str:
    from rich.text import Text

    table = new_table(title=title, show_footer=True)
    table.add_column("class", footer="all")
    table.add_column("n", footer=str(int(confusion.sum())), justify="right")
    table.add_column("accuracy %", footer=f"{100 * accuracy(confusion):.2f}", justify="right")
    table.add_column("precision %", justify="right")
    table.add_column("most confused with")
    for name, score in zip(names, class_table(confusion), strict=True):
        confused = ""
        if score.most_confused_with is not None:
            confused = f"{names[score.most_confused_with]} ({100 * score.confused / score.count:.1f} %)"
        shares = ["-" if math.isnan(x) else f"{100 * x:.2f}" for x in (score.accuracy, score.precision)]
        # Rich would interpret brackets in a plain string as markup.
        table.add_row(Text(name), str(score.count), *shares, Text(confused))
    return render_table(table, width=100)
