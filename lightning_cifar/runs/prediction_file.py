"""The file of predictions that ``predict`` writes for data without image files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lightning_cifar import artifacts, models
from lightning_cifar.callbacks import PredictionTable
from lightning_cifar.callbacks.ranks import gather, places


class PredictionFile(Callback):
    """Writes ``predictions.csv`` with a row for each sample: its class and probabilities, or its fitted values.

    Each of several networks trained side by side has a file ``predictions_<member>.csv``. The rows are in the order of
    the data for each number of processes.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[Tensor, dict[str, Tensor]]] = []
        self._seen = 0

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._parts, self._seen = [], 0

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if dataloader_idx or any(isinstance(each, PredictionTable) for each in trainer.callbacks):  # type: ignore[attr-defined]
            return
        given = outputs if isinstance(outputs, Mapping) else {"": outputs}
        found = {name: value.detach().cpu() for name, value in given.items() if isinstance(value, Tensor)}
        if found:
            count = len(next(iter(found.values())))
            where = places(trainer, trainer.predict_dataloaders, self._seen, count)
            self._parts.append((where, {name: value.clone() for name, value in found.items()}))
            self._seen += count

    def on_predict_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        parts = [part for share in gather(trainer, self._parts) for part in share]
        if not parts or not trainer.is_global_zero:
            return
        where = torch.cat([each for each, _ in parts])
        order = where.argsort()
        order = order[where[order] >= 0]
        for name in parts[0][1]:
            values = torch.cat([outputs[name] for _, outputs in parts])[order]
            member = pl_module.member(name) if isinstance(pl_module, models.SideBySide) else pl_module
            stem = f"predictions_{name}" if name else "predictions"
            self._write(trainer, member, stem, where[order].tolist(), values)

    def _write(
        self, trainer: pl.Trainer, network: pl.LightningModule, stem: str, numbers: list[int], values: Tensor
    ) -> None:
        if isinstance(network, models.Classifier):
            names = getattr(getattr(trainer, "datamodule", None), "class_names", None) or range(values.shape[1])
            top, predicted = values.max(dim=1)
            header, what = ["image", "class", "probability", *names], "images"
            first = [[names[int(k)], f"{float(p):.4f}"] for k, p in zip(predicted, top, strict=True)]
            cells = [f"{value:.4f}" for value in values.flatten().tolist()]
        else:
            header, what = ["sample", *(f"value_{i}" for i in range(values[0].numel()))], "samples"
            first = [[] for _ in numbers]
            cells = [f"{value:.6g}" for value in values.flatten().tolist()]
        texts = np.reshape(cells, (len(numbers), -1))
        rows = [[number, *start, *row] for number, start, row in zip(numbers, first, texts, strict=True)]
        path = artifacts.save_table(trainer, stem, header, rows)
        if path:
            print(f"predictions of {len(rows)} {what}: {path}")
