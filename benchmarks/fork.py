"""Cost of forks in processor time: keeping a state, and a study with a trunk relative to one without.

    python benchmarks/fork.py [--images 45000] [--epochs 4] [--rounds 3]

Each round trains five arms of LeNet with one seed on synthetic images of the size of CIFAR-10, with and without a trunk
of half the epochs, one after the other in this process. Targets: a kept state costs at most 1 % of an epoch, and the
study with a trunk at most 0.65 times the other.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from lightning_cifar.callbacks import ExactResume
from lightning_cifar.studies.jobs import prepare
from lightning_cifar.studies.run import work
from lightning_cifar.studies.spec import read_study

KEPT: list[float] = []
ARMS = ("constant", "linear", "cosine", "exponential", "step")


def timed_keep(keep: Any) -> Any:
    @functools.wraps(keep)
    def call(self: ExactResume, trainer: Any, folder: Path) -> None:
        start = time.process_time()
        keep(self, trainer, folder)
        if self._has_kept:
            KEPT.append(time.process_time() - start)

    return call


def seconds(folder: Path, images: int, epochs: int, trunk: int) -> float:
    """Return the processor time of a study; ``trunk`` epochs are trained once."""
    data = {"class_path": "SyntheticDataModule", "init_args": {"num_train": images, "num_val": 5000, "batch_size": 128}}
    study = {
        "name": "fork",
        "base": {
            "trainer": {"max_epochs": epochs, "accelerator": "cpu"},
            "model": {"class_path": "LeNet", "init_args": {"lr": 0.05, "momentum": 0.9}},
            "data": data,
        },
        "arms": {name: {"model.schedule": name} for name in ARMS},
        "seeds": 1,
        **({"trunk": {"epochs": trunk}} if trunk else {}),
    }
    folder.mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    jobs = prepare(read_study(folder / "study.yaml"), folder / "runs", threads=1)
    start = time.process_time()
    for job in jobs:
        if work(job, lambda _: None) != "done":
            raise SystemExit(f"{job.arm} failed")
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=45_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ExactResume._keep = timed_keep(ExactResume._keep)  # type: ignore[method-assign]
    ratios, shares = [], []
    with tempfile.TemporaryDirectory() as folder:
        seconds(Path(folder, "warm-up"), 640, 2, 1)
        for i in range(options.rounds):
            KEPT.clear()
            whole = seconds(Path(folder, f"whole {i}"), options.images, options.epochs, 0)
            forked = seconds(Path(folder, f"forked {i}"), options.images, options.epochs, options.epochs // 2)
            ratios.append(forked / whole)
            shares.append(statistics.median(KEPT) / (whole / options.epochs / len(ARMS)))
            print(f"{forked:.1f} s of {whole:.1f} s: {ratios[-1]:.3f}; a state {shares[-1]:.2%}", flush=True)
    print(f"median: {statistics.median(ratios):.3f} times, a state {statistics.median(shares):.2%} of an epoch")


if __name__ == "__main__":
    main()
