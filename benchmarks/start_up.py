"""Wall time of an import and of the help of each command, and of Python only: median of n.

python benchmarks/start_up.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from lightning_cifar.commands.table import COMMANDS

LIGHTNINGS = ("fit", "validate", "test", "predict")  # their help is from Lightning and loads torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
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
        for name, words in cases.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
            times[name].append(time.perf_counter() - begin)
    print(f"Python {sys.version.split()[0]}, n = {rounds}, interleaved, median (smallest to largest), seconds")
    for name, seconds in times.items():
        print(f"{name:35} {statistics.median(seconds):6.3f}  ({min(seconds):.3f} to {max(seconds):.3f})")


if __name__ == "__main__":
    main()
