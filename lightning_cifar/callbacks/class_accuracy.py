"""Accuracy per class over the whole validation and test set, with the confusion matrix."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_cifar.analysis.classification import accuracy, class_table, confusion_matrix
from lightning_cifar.artifacts import save_figure, save_table
from lightning_cifar.callbacks.class_names import class_names
from lightning_cifar.callbacks.duplicate_callbacks import warn_of_twins
from lightning_cifar.callbacks.probe import loader_at
from lightning_cifar.callbacks.ranks import places

Stage: TypeAlias = Literal["val", "test"]


class ClassAccuracy(Callback):
    """Count every sample of an evaluation once, and report per class.

    The evaluation step returns the logits (N, K), as a tensor or as ``{"logits": ...}``, and the batch is
    (images, labels). After each validation ``val/accuracy/<class>`` is logged. At the end of ``fit`` (for its last
    validation) and of ``validate`` and ``test`` the table is printed and saved as ``class_accuracy_<stage>.csv``, and
    the confusion matrix as ``confusion_<stage>.csv`` and ``pictures/confusion_<stage>.png``. Several data loaders are
    counted together.

    Args:
        every_n_epochs: draw the confusion matrix during training too, after the validation of each n-th epoch.
    """

    def __init__(self, every_n_epochs: int | None = None) -> None:
        if every_n_epochs is not None and every_n_epochs < 1:
            raise ValueError(f"every_n_epochs (={every_n_epochs}) must be at least 1, or None for the end only")
        self.every_n_epochs = every_n_epochs
        self._confusion: Tensor | None = None
        self._seen = 0
        self._silent = False
        self._told: set[str] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._silent = False  # another module may give what the last one did not
        warn_of_twins(trainer, self)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._confusion = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._confusion = None

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._confusion = None

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not trainer.sanity_checking:
            self._count("val", trainer, trainer.val_dataloaders, outputs, batch, batch_idx, dataloader_idx)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._count("test", trainer, trainer.test_dataloaders, outputs, batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._close("val", trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close("test", trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._report("val", trainer)
        elif self.every_n_epochs is not None and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._draw("val", trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report("test", trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._confusion is None and not self._silent:
            self._give_up("the fit ended without a validation. Give it validation data, or run validate or test")
        self._report("val", trainer)

    def _count(
        self,
        stage: Stage,
        trainer: Trainer,
        loaders: object,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        if self._silent:
            return
        pair = _logits_and_labels(outputs, batch)
        if pair is None:
            step = "validation_step" if stage == "val" else "test_step"
            self._give_up(
                f'{step} must return the logits (N, K), or {{"logits": logits}}, of 2 or more classes, for batches of '
                "(images, integer labels)"
            )
            return
        logits, labels = pair
        self._seen = 0 if batch_idx == 0 else self._seen
        found = places(trainer, loader_at(loaders, dataloader_idx), self._seen, len(labels)).to(labels.device)
        labels = torch.where(found < 0, -1, labels.long())  # samples that a sampler repeats count once
        self._seen += len(labels)
        counts = confusion_matrix(labels, logits.argmax(dim=1), logits.shape[1])
        if self._confusion is not None and len(self._confusion) != len(counts):
            self._give_up(f"logits of {len(self._confusion)} and of {len(counts)} classes cannot be counted together")
            return
        self._confusion = counts if self._confusion is None else self._confusion + counts

    def _give_up(self, reason: str) -> None:
        self._silent, self._confusion = True, None
        if reason not in self._told:
            self._told.add(reason)
            rank_zero_warn(f"ClassAccuracy reports nothing: {reason}.")

    def _close(self, stage: Stage, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum over the ranks and log; all ranks take part."""
        if trainer.world_size > 1:
            self._confusion = _sum_over_ranks(self._confusion, trainer, pl_module)
        if self._confusion is None:
            return
        self._confusion = self._confusion.cpu()
        scores = class_table(self._confusion)
        names = _class_names(trainer, len(scores))
        metrics = {f"{stage}/accuracy/{name}": s.accuracy for name, s in zip(names, scores, strict=True) if s.count}
        if trainer.state.fn == TrainerFn.FITTING:
            # The ranks agree already; sync_dist keeps Lightning from warning that they might not.
            pl_module.log_dict(metrics, sync_dist=trainer.world_size > 1)
        elif trainer.is_global_zero:
            # Lightning prints what is logged in validate and test, and the same table follows from here.
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=trainer.global_step)

    def _report(self, stage: Stage, trainer: Trainer) -> None:
        if self._confusion is None or not trainer.is_global_zero:
            return
        scores = class_table(self._confusion)
        names = _class_names(trainer, len(scores))
        rows = [
            (
                name,
                score.count,
                score.correct,
                score.accuracy,
                score.precision,
                score.f1,
                "" if score.most_confused_with is None else names[score.most_confused_with],
                score.confused,
            )
            for name, score in zip(names, scores, strict=True)
        ]
        header = ("class", "count", "correct", "accuracy", "precision", "f1", "most_confused_with", "confused")
        save_table(trainer, f"class_accuracy_{stage}", header, rows)
        matrix = zip(names, self._confusion.tolist(), strict=True)
        save_table(trainer, f"confusion_{stage}", ("true \\ predicted", *names), [(name, *row) for name, row in matrix])
        self._draw(stage, trainer)
        _print(_format_table(self._title(stage, trainer), self._confusion, names))

    def _draw(self, stage: Stage, trainer: Trainer) -> None:
        if self._confusion is None or not trainer.is_global_zero:
            return
        from lightning_cifar.plots import draw_confusion

        names = _class_names(trainer, len(self._confusion))
        figure = draw_confusion(self._confusion.numpy(), names, title=self._title(stage, trainer))
        save_figure(trainer, f"confusion_{stage}", figure)

    def _title(self, stage: Stage, trainer: Trainer) -> str:
        assert self._confusion is not None
        share, count = 100 * accuracy(self._confusion), int(self._confusion.sum())
        return f"{'validation' if stage == 'val' else 'test'}: {share:.2f} % of {count:,} images are right"


def _logits_and_labels(outputs: object, batch: object) -> tuple[Tensor, Tensor] | None:
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else outputs
    labels = batch[1] if isinstance(batch, tuple | list) and len(batch) > 1 else None
    if not isinstance(logits, Tensor) or not isinstance(labels, Tensor):
        return None
    if logits.ndim != 2 or logits.shape[1] < 2 or labels.shape != logits.shape[:1] or labels.is_floating_point():
        return None
    return logits.detach(), labels


def _sum_over_ranks(confusion: Tensor | None, trainer: Trainer, pl_module: LightningModule) -> Tensor | None:
    """A rank without a batch does not know K and would leave the others waiting, so the ranks agree on it first."""
    size = torch.tensor(0 if confusion is None else len(confusion), device=pl_module.device)
    largest = int(trainer.strategy.reduce(size, reduce_op="max"))
    if largest == 0:
        return None
    if confusion is None:
        confusion = torch.zeros(largest, largest, dtype=torch.int64, device=pl_module.device)
    total = trainer.strategy.reduce(confusion, reduce_op="sum")
    assert isinstance(total, Tensor)
    return total


def _class_names(trainer: Trainer, num_classes: int) -> Sequence[str]:
    names = class_names(getattr(trainer, "datamodule", None), count=num_classes)
    return names or [str(index) for index in range(num_classes)]


def _format_table(title: str, confusion: Tensor, names: Sequence[str]) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    table = Table(title=title, box=box.SIMPLE_HEAD if terminal else box.ASCII, show_footer=True)
    table.add_column("class", footer="all")
    table.add_column("n", footer=str(int(confusion.sum())), justify="right")
    table.add_column("accuracy %", footer=f"{100 * accuracy(confusion):.2f}", justify="right")
    table.add_column("precision %", justify="right")
    table.add_column("most confused with")
    for name, score in zip(names, class_table(confusion), strict=True):
        if score.most_confused_with is None:
            confused = ""
        else:
            confused = f"{names[score.most_confused_with]} ({100 * score.confused / score.count:.1f} %)"
        # Text, so that a class name with brackets is not taken for markup.
        table.add_row(
            Text(name),
            str(score.count),
            "-" if math.isnan(score.accuracy) else f"{100 * score.accuracy:.2f}",
            "-" if math.isnan(score.precision) else f"{100 * score.precision:.2f}",
            Text(confused),
        )
    text = io.StringIO()
    width = None if terminal else 100
    Console(file=text, force_terminal=terminal, width=width, highlight=False).print(table)
    return text.getvalue().rstrip("\n")


def _print(text: str) -> None:
    # Above a progress bar of either kind: tqdm moves its own bars aside, and Rich redirects stdout.
    from tqdm import tqdm  # type: ignore[import-untyped]

    tqdm.write(text)
