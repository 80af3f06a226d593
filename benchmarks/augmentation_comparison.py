"""Test accuracy of LeNet on CIFAR-10 after 5 epochs with three augmentations: mean and standard deviation over seeds.

    python benchmarks/augmentation_comparison.py [--root data] [--seeds 3] [--epochs 5] [--unofficial]

Each run has the same number of epochs, no checkpoint is selected, and the test set is used once. The same seed gives
the same initial weights, order of images and, for shared operations, the same random numbers.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import warnings
from typing import Any

import lightning.pytorch as pl
import torch

from lightning_cifar.data import CIFAR10DataModule
from lightning_cifar.models import LeNet

ARMS: dict[str, list[Any]] = {
    "none": [],
    "flip + crop": ["flip", {"crop": 2}],
    "flip + crop + cutout": ["flip", {"crop": 2}, {"cutout": 8}],
}


def run(data: CIFAR10DataModule, seed: int, epochs: int) -> dict[str, float]:
    pl.seed_everything(seed, verbose=False)
    trainer = pl.Trainer(
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    model = LeNet(lr=0.05, weight_decay=5e-4, schedule="cosine", warmup=0.2)
    trainer.fit(model, data)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return metrics | dict(trainer.test(model, data, verbose=False)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--unofficial", action="store_true", help="read a copy without the official checksums")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    print(f"torch {torch.__version__}, lightning {pl.__version__}, {torch.get_num_threads()} threads")
    print(f"LeNet, {options.epochs} epochs, n = {options.seeds} seeds; mean ± standard deviation\n")
    print("| augmentation | training accuracy (%) | validation accuracy (%) | test accuracy (%) |")
    print("|---|---|---|---|")
    for arm, augment in ARMS.items():
        results = []
        for seed in range(options.seeds):
            data = CIFAR10DataModule(options.root, verify=not options.unofficial, augment=augment, seed=seed)
            results.append(run(data, seed, options.epochs))
        cells = []
        for split in ("train", "val", "test"):
            values = [100 * result[f"{split}/accuracy"] for result in results]
            deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
            cells.append(f"{statistics.mean(values):.2f} ± {deviation:.2f}")
        print(f"| {arm} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
