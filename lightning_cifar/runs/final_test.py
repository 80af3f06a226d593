"""Test at the end of a ``fit``, of the best or the last weights."""

from __future__ import annotations

import os
from typing import Any

import lightning.pytorch as pl

from lightning_cifar.runs.checkpoint_writers import best_writer


def evaluate_best(trainer: pl.Trainer, model: pl.LightningModule, datamodule: pl.LightningDataModule) -> None:
    """Test the best checkpoint, or else the last weights, and print the result."""
    best = best_writer(trainer)
    path = getattr(best, "best_model_path", "") or None
    if trainer.is_global_zero:
        print(f"test of {os.path.relpath(path) if path else 'the last weights'} ({_reason(best, path)})")
    results = trainer.test(model, datamodule=datamodule, ckpt_path=path, weights_only=True, verbose=False)
    if trainer.is_global_zero:
        for line in result_lines(results[0] if results else {}):
            print(line)


def result_lines(metrics: Any) -> list[str]:
    """Return a line of test metrics for each network; the names of several networks end in ``/<network>``."""
    lines: dict[str, list[str]] = {}
    for name, value in metrics.items():
        metric, _, network = name.removeprefix("test/").partition("/")
        lines.setdefault(network, []).append(f"test/{metric} {value:.4g}")
    return ["  ".join([*([network] if network else []), *found]) for network, found in lines.items()]


def _reason(best: object, path: str | None) -> str:
    monitor = getattr(best, "monitor", None)
    if path is None:
        return "there is no best checkpoint: " + ("no validation ran" if best else "checkpoints are off")
    if isinstance(monitor, dict):
        rules = ", ".join(dict.fromkeys(monitor.values()))
        return f"each network at its best {rules}"
    return f"best {monitor}" if monitor else "the last epoch, since there is no validation"
