"""Build the model and the data of a configuration without a run, and load the weights of a finished run."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
import torch

from lightning_cifar import data, models
from lightning_cifar.checkpoints.find import find_checkpoint
from lightning_cifar.checkpoints.reading import Checkpoint
from lightning_cifar.errors import UsageError
from lightning_cifar.runs.arguments import Arguments
from lightning_cifar.runs.cli import RunCLI
from lightning_cifar.runs.start import start_run


class BuildCLI(RunCLI):
    """Parses the command line and builds model and data like a run, and then stops."""

    def instantiate_trainer(self, **kwargs: object) -> pl.Trainer:
        return pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=0)

    def _run_subcommand(self, subcommand: str) -> None:
        """Do nothing: all checks that do not need the data have passed."""


def build(arguments: Arguments) -> BuildCLI:
    """Check that a ``fit`` can start, without starting it; the result has its model and its data module."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # seed, devices and precision are in the log of each run
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return start_run(BuildCLI, arguments)
    finally:
        logging.disable(before)


@dataclass(frozen=True)
class TrainedRun:
    """A classifier with the last weights of a run, on the GPU if there is one, and its data module."""

    folder: Path
    model: models.Classifier
    datamodule: data.ImageDataModule
    steps: int

    def batches(self, num_images: int, split: str = "train") -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Read the first images of a split, as the network receives them in evaluation, in batches of up to 500.

        Raises:
            UsageError: If the split is empty.
        """
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        found, left = [], num_images
        for images, labels in self.datamodule.loader("val" if split == "val" else "train"):
            found.append((images[:left].to(self.model.device), labels[:left].to(self.model.device)))
            left -= len(found[-1][1])
            if left <= 0:
                break
        if not found:
            raise UsageError(f"the {split} split of {self.folder} is empty: choose another --split.")
        return found


def load_run(folder: Path, options: Sequence[str] = ()) -> TrainedRun:
    """Load the last weights of a run. Its folder is trusted like a script: ``config.yaml`` names the classes.

    Args:
        options: Options of ``fit`` that override its configuration, such as ``--data.root``.

    Raises:
        UsageError: If the folder is not that of a run, has no weights, or the network does not classify images.
    """
    config = folder / "config.yaml"
    if not config.is_file():
        raise UsageError(f"{folder} is not the folder of a run: it has no config.yaml.")
    last = folder / "checkpoints" / "last.ckpt"
    checkpoint = Checkpoint.read(last if last.is_file() else find_checkpoint(folder).path)
    built = build(Arguments("fit", ("--config", str(config), *options)))
    model, datamodule = built.model, built.datamodule
    if not isinstance(model, models.Classifier) or not isinstance(datamodule, data.ImageDataModule):
        raise UsageError(f"{folder} trained {type(model).__name__}, which is not one network that classifies images.")
    checkpoint.load_into(model, str(config))
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return TrainedRun(folder, model, datamodule, checkpoint.progress.get("steps", 0))
