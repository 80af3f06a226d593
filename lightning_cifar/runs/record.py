"""Record of a run: its configuration in each checkpoint, and its results in result.json."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lightning_cifar import artifacts
from lightning_cifar.checkpoints.reading import CONFIG_KEY, RUN_ID
from lightning_cifar.files.processor import processor_name
from lightning_cifar.runs.checkpoint_writers import best_writer
from lightning_cifar.runs.folder import RunFolder


class RunRecord(Callback):
    """Adds the configuration (YAML text) to each checkpoint, and writes the results of a command to result.json."""

    def __init__(self, command: str, config: str, folder: RunFolder) -> None:
        self.command, self.config, self.folder = command, config, folder
        self.start = time.monotonic()
        self.metrics: dict[str, float] = {}

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.folder.begin()

    on_validation_batch_start = on_test_batch_start = on_predict_batch_start = on_train_batch_start

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[CONFIG_KEY] = self.config
        checkpoint[RUN_ID] = self.folder.run_id

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            # Other metrics without a split in their name are for the progress bar.
            values = trainer.callback_metrics.items()
            self.metrics |= {name: float(value) for name, value in values if "/" in name or name == "throughput"}

    on_test_end = on_validation_end

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.sanity_checking or stage == "predict":
            return
        self.on_validation_end(trainer, pl_module)
        best = best_writer(trainer)
        score, monitor = getattr(best, "best_model_score", None), getattr(best, "monitor", None)
        artifacts.save_json(
            trainer,
            "result",
            {
                "command": self.command,
                "model": type(pl_module).__name__,
                "parameters": sum(parameter.numel() for parameter in pl_module.parameters()),
                "epochs": trainer.current_epoch,
                "steps": trainer.global_step,
                "seconds": round(time.monotonic() - self.start, 1),
                "metrics": self.metrics,
                "best": float(score) if isinstance(score, Tensor) else score or None,
                "best_metric": monitor or None,
                "versions": versions(),
                "machine": machine(trainer),
            },
        )


def versions() -> dict[str, str]:
    """Return the versions of Python and of the main packages."""
    names = ("lightning-cifar", "torch", "torchvision", "lightning")
    return {name: version(name) for name in names} | {"python": platform.python_version()}


def machine(trainer: pl.Trainer) -> dict[str, Any]:
    """Return the processor, threads, device and precision of a run."""
    return {
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "device": str(trainer.strategy.root_device),
        "precision": str(trainer.precision),
    }
