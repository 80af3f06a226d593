"""Repeat the published learning-rate range test: torchvision's resnet18 with a 10-way layer on CIFAR-10.

    python benchmarks/lr_range_reference.py [--root data] [--unofficial] [--out docs/pictures]

200 steps of plain SGD from initial weights, 1e-4 to 10, batches of 64 images with random resized crop (80 % to 100 % of
the area) and flip; then the same points zoomed to 1e-2 to 1e-1.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import resnet18

from lightning_cifar.callbacks import LRRangeFinder
from lightning_cifar.data import CIFAR10DataModule


class PlainResNet(pl.LightningModule):
    """The network and plain SGD."""

    def __init__(self) -> None:
        super().__init__()
        self.network = resnet18(num_classes=10).to(memory_format=torch.channels_last)
        self.lr = 0.1

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.lr)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data")
    parser.add_argument("--unofficial", action="store_true", help="read a copy without the official checksums")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    options = parser.parse_args(words)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    pl.seed_everything(0, verbose=False)
    finder = LRRangeFinder(1e-4, 10.0, num_steps=200, num_sweeps=1, stop_factor=None, zoom=[1e-2, 1e-1])
    data = CIFAR10DataModule(
        options.root,
        verify=not options.unofficial,
        batch_size=64,
        augment=[{"resized_crop": 0.8}, "flip"],
        mean=[0.4914, 0.48216, 0.44653],
        std=[0.24703, 0.24349, 0.26159],
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=0,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            limit_val_batches=0,
            default_root_dir=folder,
            callbacks=[finder],
        )
        trainer.fit(PlainResNet(), data)
        for name in ("lr_range", "lr_range_zoom"):
            shutil.copy(Path(folder) / "pictures" / f"{name}.png", options.out / f"{name}_resnet18.png")
    print(f"found {finder.suggestion}; pictures in {options.out}")


if __name__ == "__main__":
    main()
