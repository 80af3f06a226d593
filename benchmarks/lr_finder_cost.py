"""Cost of a learning-rate sweep relative to the same number of bare training steps with the same loader.

    python benchmarks/lr_finder_cost.py [--threads 1] [--rounds 5]

Interleaved round by round in one process; the bare loop consists of the network, its optimizer and the loader.
Prints the median ratio over the rounds, with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable

import lightning.pytorch as pl
import torch
import torch.nn.functional as F

from lightning_cifar.callbacks.lr_sweep import sweep
from lightning_cifar.data import SyntheticDataModule
from lightning_cifar.models import Classifier, DilatedNet, LeNet

NUM_STEPS: dict[type[Classifier], int] = {LeNet: 200, DilatedNet: 8}


class Compare(pl.Callback):
    """Time both on a connected trainer, before the training starts."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.ratios: list[float] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        num_steps = NUM_STEPS[type(pl_module)]  # type: ignore[index]
        lrs = [1e-4] * num_steps
        for i in range(self.rounds + 1):
            ours = seconds(lambda: sweep(trainer, pl_module, lrs, seed=0, stop=lambda losses: False))
            bare = seconds(lambda: bare_steps(trainer, pl_module, num_steps))
            if i:  # the first round warms up
                self.ratios.append(ours / bare)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def bare_steps(trainer: pl.Trainer, pl_module: pl.LightningModule, num_steps: int) -> None:
    network = pl_module.network
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    done = 0
    while True:
        for images, labels in trainer.train_dataloader:
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
            done += 1
            if done == num_steps:
                return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    print(f"torch {torch.__version__}, {options.threads} thread(s), batch 128, n = {options.rounds} rounds")
    for kind, num_steps in NUM_STEPS.items():
        compare = Compare(options.rounds)
        trainer = pl.Trainer(
            max_epochs=0,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[compare],
        )
        trainer.fit(kind(), SyntheticDataModule(num_train=6400, num_val=10, num_test=1, seed=0))
        ratios = sorted(compare.ratios)
        print(
            f"{kind.__name__:<12} {num_steps} steps: a sweep takes {statistics.median(ratios):.3f}x "
            f"({ratios[0]:.3f} to {ratios[-1]:.3f})"
        )


if __name__ == "__main__":
    main()
