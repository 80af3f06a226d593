"""Training time of networks side by side relative to the same networks one after the other.

    python benchmarks/lockstep.py [--threads 2] [--rounds 7] [--cases pair toys mlps] [--device cpu]

Interleaved round by round in one process, on the same data, each with a Lightning Trainer without logger:

- ``pair``: the MLP of 39,106 parameters and the same with batch normalisation (39,250), 1 x 28 x 28, batch 512;
- ``toys``: eight regressors 1-100-100-1 (10,401), full batch of 50, Adam;
- ``mlps``: eight MLPs of 39,106 parameters with different seeds and learning rates, batch 64.

``alone`` is the sum of separate trainings, ``lockstep`` is SideBySide. All training epochs except the first are timed,
to exclude start-up. Prints medians, and the median ratio to ``alone`` of the same round, with the smallest and the
largest.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch

from lightning_cifar import models
from lightning_cifar.data import NoisyLineDataModule
from lightning_cifar.data.image_datamodule import ImageDataModule, LabelledImages
from lightning_cifar.models import SideBySide


class RandomImages(ImageDataModule):
    """Noise with labels, which costs what images cost."""

    class_names = tuple("0123456789")
    own_mean, own_std = (0.5,), (0.3,)
    in_channels, image_size = 1, 28
    size = 64 * 512

    def load(self, part: Literal["train", "test"]) -> LabelledImages:
        generator = np.random.default_rng(0)
        shape = (self.size, self.image_size, self.image_size, self.in_channels)
        images = generator.integers(0, 256, shape, dtype=np.uint8)
        return LabelledImages(images, generator.integers(0, 10, self.size))


class Case(NamedTuple):
    members: dict[str, dict[str, Any]]
    data: Callable[[], pl.LightningDataModule]


def eight(class_path: str, **init_args: Any) -> dict[str, dict[str, Any]]:
    return {
        f"seed_{i}": {"class_path": class_path, "init_args": {**init_args, "lr": 0.002 * (i + 1)}, "seed": i}
        for i in range(8)
    }


def images(batch_size: int) -> Callable[[], pl.LightningDataModule]:
    return lambda: RandomImages(batch_size=batch_size, num_train=64 * batch_size, num_val=0, augment=(), seed=0)


GREY = {"in_channels": 1, "image_size": 28}
CASES = {
    "pair": Case(
        {
            "plain": {"class_path": "MLP", "init_args": GREY},
            "batch_norm": {"class_path": "MLP", "init_args": {**GREY, "batch_norm": True}},
        },
        images(512),
    ),
    "toys": Case(
        eight("MLPRegressor", optimizer="adam"),
        lambda: NoisyLineDataModule(passes=100, seed=0),
    ),
    "mlps": Case(eight("MLP", **GREY), images(64)),
}


class EpochClock(pl.Callback):
    """Seconds of each training epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _wait(pl_module.device)
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _wait(pl_module.device)
        self.seconds.append(time.perf_counter() - self.start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(module: pl.LightningModule, data: pl.LightningDataModule, device: str, epochs: int) -> float:
    clock = EpochClock()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator=device,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[clock],
    )
    trainer.fit(module, data)
    return sum(clock.seconds[1:])


def seconds_alone(case: Case, device: str, epochs: int) -> float:
    """The sum over the members' own runs."""
    total = 0.0
    for settings in case.members.values():
        torch.manual_seed(settings.get("seed", 0))
        module = getattr(models, settings["class_path"])(**settings["init_args"])
        total += seconds_of(module, case.data(), device, epochs)
    return total


def seconds_together(case: Case, device: str, epochs: int) -> float:
    torch.manual_seed(0)
    return seconds_of(SideBySide(case.members), case.data(), device, epochs)


def compare(name: str, device: str, rounds: int, epochs: int) -> None:
    case = CASES[name]
    seconds: dict[str, list[float]] = {"alone": [], "lockstep": []}
    for _ in range(rounds):
        seconds["alone"].append(seconds_alone(case, device, epochs))
        seconds["lockstep"].append(seconds_together(case, device, epochs))
    steps = (epochs - 1) * len(case.data().train_dataloader())  # type: ignore[attr-defined]  # ours have it
    print(f"\n{name}: {len(case.members)} networks, {steps} steps")
    for way, values in seconds.items():
        ratios = sorted(value / alone for value, alone in zip(values, seconds["alone"], strict=True))
        ratio = statistics.median(ratios)
        print(
            f"  {way:<9} {1e3 * statistics.median(values) / steps:8.3f} ms per step of all   {ratio:5.2f}x of alone "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}), throughput {1 / ratio:5.2f}x"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--epochs", type=int, default=4, help="the first is not timed")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    print(
        f"torch {torch.__version__}, lightning {pl.__version__}, {options.device}, {options.threads} thread(s), "
        f"n = {options.rounds} rounds"
    )
    for name in options.cases:
        compare(name, options.device, options.rounds, options.epochs)


if __name__ == "__main__":
    main()
