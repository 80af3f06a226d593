"""Predictions of ``predict`` as a table, and sheets of the images with their predicted classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_cifar.analysis.prediction_table import are_probabilities, class_in_path, top_classes
from lightning_cifar.artifacts import save_figure, save_table, writes
from lightning_cifar.callbacks.base import BatchCallback, check_minimum
from lightning_cifar.callbacks.datamodule import class_names, displayable
from lightning_cifar.callbacks.probe import first_two, integer_labels, loader_at
from lightning_cifar.callbacks.ranks import gather, places
from lightning_cifar.callbacks.terminal import new_table, print_above_progress_bar, render_table


class _Row(NamedTuple):
    place: int  # index among all samples of the loader
    number: int  # number of the file, or the place if the images have no files
    name: str
    classes: list[str]
    probabilities: list[float]
    true: str | None


class PredictionTable(BatchCallback):
    """Save and print the most likely classes of each image in ``predict``.

    ``predictions.csv`` contains all images. ``pictures/predictions.png`` shows the first images as the network receives
    them, each with its class and probability; ``predictions_2.png`` shows the next ones, and so on.

    ``predict_step`` returns probabilities (N, K). A batch is images, (images, labels), or (images, file numbers) if the
    data module has ``file_names``; the true class of a file is the class after which one of its folders is named. Only
    the first of several data loaders is used. Class names are the ``class_names`` of the module, or of the data module;
    ``mean`` and ``std`` of the data module undo the normalization.

    Args:
        top: number of classes per image.
        rows, columns: numbers of rows and columns of a sheet.
        sheets: maximum number of sheets.
        lines: maximum number of printed lines of the table.

    Raises:
        ValueError: If a number is below 1, or ``sheets`` or ``lines`` below 0.

    Example:
        >>> trainer = Trainer(callbacks=[PredictionTable(top=3)])
    """

    def __init__(self, top: int = 5, rows: int = 4, columns: int = 5, sheets: int = 10, lines: int = 50) -> None:
        check_minimum(top=top, rows=rows, columns=columns)
        check_minimum(0, sheets=sheets, lines=lines)
        self.top, self.rows, self.columns, self.sheets, self.lines = top, rows, columns, sheets, lines
        super().__init__()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "predict":
            super().setup(trainer, pl_module, stage)

    def _reset(self) -> None:
        self._table: list[_Row] = []
        self._names: list[str] = []
        self._files: Sequence[str] | None = None
        self._images: list[Tensor] = []
        self._drawn = 0
        self._pictures: list[Path] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._reset()
        files = getattr(getattr(trainer, "datamodule", None), "file_names", None)
        self._files = files if isinstance(files, list | tuple) else None

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if dataloader_idx or self._disabled:
            return
        images, second = first_two(batch)
        if not isinstance(outputs, Tensor) or not are_probabilities(outputs):
            self._disable("predict_step must return probabilities (N, K), K of 2 or more")
            return
        if self._table and len(self._names) != outputs.shape[1]:
            sizes = f"{len(self._names)} and of {outputs.shape[1]}"
            self._disable(f"probabilities of {sizes} classes do not fit in one table")
            return
        if not self._names:
            owners = pl_module, getattr(trainer, "datamodule", None)
            self._names = class_names(*owners, count=outputs.shape[1], default="class {}")
        self._add(outputs, integer_labels(second, len(outputs)), trainer)
        if isinstance(images, Tensor) and images.ndim == 4 and images.shape[1] in (1, 3):
            room = self.sheets * self.rows * self.columns - self._drawn - len(self._images)
            # clone, since a view would send its whole batch to the other processes
            self._images += [image.detach().cpu().clone() for image in images[: max(room, 0)]]
            if trainer.world_size == 1:  # the images of several processes are combined at the end
                self._draw(trainer, self._table, whole=True)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._disabled:
            return
        shares = gather(trainer, (self._table, self._images))
        rows = sorted((row for table, _ in shares for row in table), key=lambda row: row.place)
        if trainer.world_size > 1:
            pairs = [pair for table, images in shares for pair in zip(table, images, strict=False)]
            pairs.sort(key=lambda pair: pair[0].place)
            self._images = [image for _, image in pairs[: self.sheets * self.rows * self.columns]]
        self._draw(trainer, rows, whole=False)
        rows.sort(key=lambda row: row.number)
        if not rows or not writes(trainer):
            return
        count = len(rows[0].classes)
        ranks = ["", *(f"_{rank}" for rank in range(2, count + 1))]
        header = ["file" if self._files is not None else "image"]
        header += [f"{name}{rank}" for rank in ranks for name in ("class", "probability")]
        known = any(row.true is not None for row in rows)
        body = [
            [
                row.name,
                *(cell for name, p in zip(row.classes, row.probabilities, strict=True) for cell in (name, f"{p:.4f}")),
                *([row.true or ""] if known else []),
            ]
            for row in rows
        ]
        path = save_table(trainer, "predictions", header + ["true"] * known, body)
        lines = [format_predictions(rows[: self.lines])] if self.lines else []
        if 0 < self.lines < len(rows):
            lines.append(f"... and {len(rows) - self.lines} more in the table")
        lines += [_score(rows)] if known else []
        lines.append(f"predictions of {len(rows)} images: {', '.join(map(str, filter(None, [path, *self._pictures])))}")
        print_above_progress_bar("\n".join(lines))

    def _add(self, outputs: Tensor, second: Tensor | None, trainer: Trainer) -> None:
        """Add the rows of a batch."""
        top = top_classes(outputs, self.top)
        numbers = None if second is None else second.tolist()
        found = places(trainer, loader_at(trainer.predict_dataloaders), len(self._table), len(outputs)).tolist()
        for i, (classes, shares) in enumerate(zip(top.classes.tolist(), top.probabilities.tolist(), strict=True)):
            number, true = found[i], None
            name = str(number)
            if numbers is not None and self._files is not None and 0 <= numbers[i] < len(self._files):
                number = numbers[i]
                name = self._files[number]
                true = class_in_path(name, self._names)
            elif numbers is not None and 0 <= numbers[i] < len(self._names):
                true = self._names[numbers[i]]
            self._table.append(_Row(found[i], number, name, [self._names[k] for k in classes], shares, true))

    def _draw(self, trainer: Trainer, rows: Sequence[_Row], *, whole: bool) -> None:
        """Draw the sheets that are full, and at the end the rest. All images of a sheet have the same size."""
        if not trainer.is_global_zero:
            return
        size = self.rows * self.columns
        while self._images:
            shape = self._images[0].shape
            other = (i for i, image in enumerate(self._images[:size]) if image.shape != shape)
            end = next(other, min(size, len(self._images)))
            if whole and end < size and end == len(self._images):
                return  # more may follow
            shown, self._images = self._images[:end], self._images[end:]
            self._draw_sheet(trainer, torch.stack(shown), rows[self._drawn : self._drawn + end])

    def _draw_sheet(self, trainer: Trainer, images: Tensor, rows: Sequence[_Row]) -> None:
        from lightning_cifar.plots import PredictedPhotograph, draw_photographs

        first, last = self._drawn + 1, self._drawn + len(rows)
        self._drawn = last
        figure = draw_photographs(
            displayable(trainer, images),
            [PredictedPhotograph(row.classes[0], row.probabilities[0], row.true, row.name) for row in rows],
            columns=self.columns,
            title=f"Images {first} to {last}: most likely class and its probability",
        )
        number = len(self._pictures) + 1
        name = "predictions" if number == 1 else f"predictions_{number}"
        path = save_figure(trainer, name, figure, tag="predictions/predict", step=number)
        self._pictures += [path] if path else []


def _score(rows: Sequence[_Row]) -> str:
    known = [row for row in rows if row.true is not None]
    first, among = (sum(row.true in row.classes[:count] for row in known) for count in (1, len(rows[0].classes)))
    return (
        f"top-1 accuracy {first} of {len(known)}, top-{len(rows[0].classes)} accuracy {among} of {len(known)} "
        "(images in folders named after a class)"
    )


def format_predictions(rows: Sequence[_Row]) -> str:
    """Format rows as a table that is as wide as the terminal."""
    from rich.text import Text

    from lightning_cifar.plots import to_percent

    known = any(row.true is not None for row in rows)
    table = new_table()
    table.add_column("image", overflow="fold")
    for column in ["true"] * known + [str(rank + 1) for rank in range(len(rows[0].classes))]:
        table.add_column(column)
    for row in rows:
        # Rich would interpret brackets in a plain string as markup.
        cells = [Text(f"{name} {to_percent(p)}") for name, p in zip(row.classes, row.probabilities, strict=True)]
        if known and row.true is not None:
            cells[0].stylize("green" if row.true == row.classes[0] else "red")
        table.add_row(Text(row.name), *([Text(row.true or "")] if known else []), *cells)
    return render_table(table, width=160)
