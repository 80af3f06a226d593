"""What the network takes each image for: a table, and sheets of the images with their classes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_cifar.analysis.prediction_table import are_probabilities, class_in_path, top_classes
from lightning_cifar.artifacts import save_figure, save_table
from lightning_cifar.callbacks.class_names import class_names
from lightning_cifar.callbacks.duplicate_callbacks import warn_of_twins
from lightning_cifar.callbacks.probe import loader_at
from lightning_cifar.callbacks.ranks import gather, places


class _Row(NamedTuple):
    place: int  # among all samples that the loader gives
    number: int  # of the file, or else the place
    name: str
    classes: list[str]
    probabilities: list[float]
    true: str | None


class PredictionTable(Callback):
    """Of ``predict``: the likeliest classes of each image in ``predictions.csv``, in the terminal, and as a picture.

    ``pictures/predictions.png`` shows the first images as the network got them, each titled with its class and
    probability; ``predictions_2.png`` the next ones, and so on.

    ``predict_step`` returns probabilities (N, K). Where the data module has ``file_names``, a batch is (images, numbers
    of the files), and a file is right or wrong if one of its folders is named after a class; else a batch is images, or
    (images, labels). Of several data loaders the first one counts. Names of classes are the module's ``class_names``,
    or else the data module's; ``mean`` and ``std`` of the data module undo the normalisation.

    Args:
        top: classes of each image that are told.
        rows, columns: of a sheet.
        sheets: at most; the table holds all images.
        lines: of the table that are printed at most.

    Raises:
        ValueError: a number is below 1, or ``sheets`` or ``lines`` below 0.
    """

    def __init__(self, top: int = 5, rows: int = 4, columns: int = 5, sheets: int = 10, lines: int = 50) -> None:
        for name, value in {"top": top, "rows": rows, "columns": columns}.items():
            if value < 1:
                raise ValueError(f"{name} (={value}) must be at least 1")
        for name, value in {"sheets": sheets, "lines": lines}.items():
            if value < 0:
                raise ValueError(f"{name} (={value}) must be at least 0")
        self.top, self.rows, self.columns, self.sheets, self.lines = top, rows, columns, sheets, lines
        self._silent = False
        self._told: set[str] = set()
        self._reset()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._silent = False  # another module may give what the last one did not
        if stage == "predict":
            warn_of_twins(trainer, self)

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
        if dataloader_idx or self._silent:
            return
        images = batch[0] if isinstance(batch, tuple | list) and batch else batch
        if not isinstance(outputs, Tensor) or not are_probabilities(outputs):
            self._give_up("predict_step must return probabilities (N, K), K of 2 or more")
            return
        if self._table and len(self._names) != outputs.shape[1]:
            self._give_up(f"probabilities of {len(self._names)} and of {outputs.shape[1]} classes make no one table")
            return
        self._names = self._names or _class_names(trainer, pl_module, outputs.shape[1])
        self._add(outputs, _second(batch, len(outputs)), trainer)
        if isinstance(images, Tensor) and images.ndim == 4 and images.shape[1] in (1, 3):
            room = self.sheets * self.rows * self.columns - self._drawn - len(self._images)
            # Copies: a view would take its whole batch along to another process.
            self._images += [image.detach().cpu().clone() for image in images[: max(room, 0)]]
            if trainer.world_size == 1:  # several processes join their images at the end
                self._draw(trainer, self._table, whole=True)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._silent:
            return
        shares = gather(trainer, (self._table, self._images))
        rows = sorted((row for table, _ in shares for row in table), key=lambda row: row.place)
        if trainer.world_size > 1:
            pairs = [pair for table, images in shares for pair in zip(table, images, strict=False)]
            pairs.sort(key=lambda pair: pair[0].place)
            self._images = [image for _, image in pairs[: self.sheets * self.rows * self.columns]]
        self._draw(trainer, rows, whole=False)
        rows.sort(key=lambda row: row.number)
        if not rows or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined,unused-ignore]
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
        _print("\n".join(lines))

    def _give_up(self, reason: str) -> None:
        self._silent = True
        if reason not in self._told:
            self._told.add(reason)
            rank_zero_warn(f"PredictionTable shows nothing: {reason}.")

    def _add(self, outputs: Tensor, second: Tensor | None, trainer: Trainer) -> None:
        """The rows of a batch."""
        top = top_classes(outputs, self.top)
        found = places(trainer, loader_at(trainer.predict_dataloaders), len(self._table), len(outputs)).tolist()
        for i, (classes, shares) in enumerate(zip(top.classes.tolist(), top.probabilities.tolist(), strict=True)):
            number, true = found[i], None
            name = str(number)
            if second is not None and self._files is not None and 0 <= int(second[i]) < len(self._files):
                number = int(second[i])
                name = self._files[number]
                true = class_in_path(name, self._names)
            elif second is not None and 0 <= (label := int(second[i])) < len(self._names):
                true = self._names[label]
            self._table.append(_Row(found[i], number, name, [self._names[k] for k in classes], shares, true))

    def _draw(self, trainer: Trainer, rows: Sequence[_Row], *, whole: bool) -> None:
        """Draw the sheets that are full, and at the end the rest. A sheet holds images of one size."""
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
        from lightning_cifar.plots import PredictedPhotograph, draw_photographs, to_displayable

        first, last = self._drawn + 1, self._drawn + len(rows)
        self._drawn = last
        data = getattr(trainer, "datamodule", None)
        pixels = images.float() if images.is_floating_point() else images  # NumPy has no bfloat16
        figure = draw_photographs(
            to_displayable(pixels.numpy(), getattr(data, "mean", None), getattr(data, "std", None)),
            [PredictedPhotograph(row.classes[0], row.probabilities[0], row.true, row.name) for row in rows],
            columns=self.columns,
            title=f"Images {first} to {last}: the likeliest class of each, and its probability",
        )
        number = len(self._pictures) + 1
        path = save_figure(trainer, "predictions" if number == 1 else f"predictions_{number}", figure)
        self._pictures += [path] if path else []


def _second(batch: object, size: int) -> Tensor | None:
    """What stands beside the images of a batch, as long as it is one whole number for each."""
    values = batch[1] if isinstance(batch, tuple | list) and len(batch) > 1 else None
    if not isinstance(values, Tensor) or values.shape != (size,) or values.is_floating_point():
        return None
    return values.cpu()


def _class_names(trainer: Trainer, pl_module: LightningModule, num_classes: int) -> list[str]:
    names = class_names(pl_module, getattr(trainer, "datamodule", None), count=num_classes)
    return names or [f"class {k}" for k in range(num_classes)]


def _score(rows: Sequence[_Row]) -> str:
    known = [row for row in rows if row.true is not None]
    first, among = (sum(row.true in row.classes[:count] for row in known) for count in (1, len(rows[0].classes)))
    return (
        f"of {len(known)} images in folders with a class's name, {first} are right, "
        f"and {among} have it among the first {len(rows[0].classes)}"
    )


def format_predictions(rows: Sequence[_Row]) -> str:
    """The table as text, as wide as the terminal."""
    import io

    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lightning_cifar.plots import to_percent

    terminal = sys.stdout.isatty()
    known = any(row.true is not None for row in rows)
    table = Table(box=box.SIMPLE_HEAD if terminal else box.ASCII)
    table.add_column("image", overflow="fold")
    for column in ["true"] * known + [str(rank + 1) for rank in range(len(rows[0].classes))]:
        table.add_column(column)
    for row in rows:
        # Text, so that a name with brackets is not taken for markup.
        cells = [Text(f"{name} {to_percent(p)}") for name, p in zip(row.classes, row.probabilities, strict=True)]
        if known and row.true is not None:
            cells[0].stylize("green" if row.true == row.classes[0] else "red")
        table.add_row(Text(row.name), *([Text(row.true or "")] if known else []), *cells)
    text = io.StringIO()
    Console(file=text, force_terminal=terminal, width=None if terminal else 160, highlight=False).print(table)
    return text.getvalue().rstrip("\n")


def _print(text: str) -> None:
    # Above a progress bar of either kind, see callbacks/class_accuracy.py.
    from tqdm import tqdm  # type: ignore[import-untyped]

    tqdm.write(text)
