"""What a run leaves of itself: the configuration in each checkpoint, and what came out in result.json."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from lightning_cifar import artifacts
from lightning_cifar.checkpoints.reading import CONFIG_KEY, RUN_ID
from lightning_cifar.runs.folder import RunFolder


class RunRecord(Callback):
    """Puts the configuration into each checkpoint, and what came out into result.json.

    Args:
        command: Which command this is.
        config: The configuration, YAML text.
        folder: Of the run; it is told when a first batch comes.
    """

    def __init__(self, command: str, config: str, folder: RunFolder) -> None:
        self.command, self.config, self.folder = command, config, folder
        self.start = time.monotonic()
        self.metrics: dict[str, float] = {}
        self._trains = False

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        if not self._trains:  # a run that ended, is continued and fails before its first batch keeps its result
            artifacts.remove_json(trainer, "result")
        self.folder.has_begun = self._trains = True

    def on_validation_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.folder.has_begun = True

    def on_test_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.folder.has_begun = True

    def on_predict_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.folder.has_begun = True

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[CONFIG_KEY] = self.config
        checkpoint[RUN_ID] = self.folder.run_id

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._collect(trainer)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._collect(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.sanity_checking or stage == "predict":
            return
        self._collect(trainer)
        checkpoint = trainer.checkpoint_callback
        score = getattr(checkpoint, "best_model_score", None)
        names = ("lightning-cifar", "torch", "torchvision", "lightning")
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
                "best": None if score is None else float(score),
                "versions": {name: version(name) for name in names} | {"python": platform.python_version()},
                "machine": {
                    "processor": platform.machine(),
                    "threads": torch.get_num_threads(),
                    "device": str(trainer.strategy.root_device),
                    "precision": str(trainer.precision),
                },
            },
        )

    def _collect(self, trainer: pl.Trainer) -> None:
        if not trainer.sanity_checking:
            # Those without a split in their name are for the progress bar.
            values = trainer.callback_metrics.items()
            self.metrics |= {name: float(value) for name, value in values if "/" in name}
