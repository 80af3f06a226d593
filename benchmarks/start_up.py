"""Time of an import, of the help of each command, and from `fit` to the first training step: medians of n.

    python benchmarks/start_up.py [--rounds 5]

The last part compares `lightning-cifar fit` (default callbacks, run folder, record of the run) with a script that only
calls `LightningCLI` with the same model and data, interleaved: LeNet on 1,000 synthetic images, one thread. Processor
time includes all threads; other programs disturb it less than wall time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lightning_cifar.commands.table import COMMANDS

LIGHTNINGS = ("fit", "validate", "test", "predict")  # their help is from Lightning and loads torch

# The process ends in the first step, without closing files.
FIRST_STEP = """
import os
from lightning.pytorch import Callback

class FirstStep(Callback):
    def on_train_batch_end(self, *args):
        os._exit(42)
"""
PLAIN = """
from lightning.pytorch.cli import LightningCLI
from lightning_cifar.data import SyntheticDataModule
from lightning_cifar.models import LeNet
LightningCLI(LeNet, SyntheticDataModule)
"""


def seconds_of(arguments: list[str], status: int = 0, folder: str | None = None) -> tuple[float, float]:
    """Wall time and processor time of a Python process that runs in ``folder`` and may import from it."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [folder, *sys.path])),
    }
    before, begin = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    wall, after = time.perf_counter() - begin, os.times()
    assert done.returncode == status, done.stderr
    return wall, after.children_user + after.children_system - before.children_user - before.children_system


def help_times(rounds: int) -> None:
    cases = {
        "python -c pass": ["-c", "pass"],
        "import lightning_cifar": ["-c", "import lightning_cifar"],
        "lightning-cifar --help": ["-m", "lightning_cifar", "--help"],
    }
    cases |= {
        f"lightning-cifar {name} --help": ["-m", "lightning_cifar", name, "--help"]
        for name in COMMANDS
        if name not in LIGHTNINGS
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, arguments in cases.items():
            times[name].append(seconds_of(arguments)[0])
    print(f"Python {sys.version.split()[0]}, n = {rounds}, interleaved, median (smallest to largest), seconds")
    for name, seconds in times.items():
        print(f"{name:35} {spread(seconds, 3)}")


def first_step_times(rounds: int) -> None:
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "first_step.py").write_text(FIRST_STEP)
        (Path(folder) / "plain.py").write_text(PLAIN)
        shared = ["--trainer.callbacks+=first_step.FirstStep", "--trainer.accelerator=cpu", "--data.num_train=1000"]
        ours = ["-m", "lightning_cifar", "fit", "--model=LeNet", "--data=SyntheticDataModule", *shared]
        for i in range(rounds):
            first = seconds_of([*ours, f"--run_dir=run_{i}"], status=42, folder=folder)
            pairs.append((first, seconds_of(["plain.py", "fit", *shared], status=42, folder=folder)))
    print("fit to the first step: lightning-cifar, plain LightningCLI, ratio")
    for k, kind in enumerate(("wall", "processor")):
        times = [[first[k] for first, _ in pairs], [plain[k] for _, plain in pairs]]
        ratios = [first / plain for first, plain in zip(*times, strict=True)]
        print(f"{kind:10} time {spread(times[0])} s, {spread(times[1])} s, {spread(ratios)}")


def spread(values: list[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    help_times(rounds)
    first_step_times(rounds)


if __name__ == "__main__":
    main()
