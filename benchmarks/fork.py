"""Cost of forks in processor time: keeping a state, and a study with a trunk relative to one without.

    python benchmarks/fork.py [--root data] [--images 45000] [--epochs 4] [--rounds 3]

Each round trains five arms of LeNet with one seed, with and without a trunk of half the epochs, one after the other in
this process, then LeNet once with a state of each epoch. The images are those of CIFAR-10 with ``--root``, otherwise
synthetic ones, which each run draws again. Targets: a kept state costs at most 1 % of an epoch, and the study with a
trunk at most 0.65 times the other. The first state includes the checksum of the images.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from lightning_cifar.callbacks import ExactResume
from lightning_cifar.cli import main as lightning_cifar
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


def seconds(folder: Path, data: dict[str, Any], epochs: int, trunk: int) -> float:
    """Return the processor time of a study; ``trunk`` epochs are trained once."""
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
    parser.add_argument("--root", help="folder of CIFAR-10; default: synthetic images")
    parser.add_argument("--images", type=int, default=45_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ExactResume._keep = timed_keep(ExactResume._keep)  # type: ignore[method-assign]
    data: dict[str, Any] = {"class_path": "SyntheticDataModule", "init_args": {"num_val": 5000}}
    if options.root:
        data = {"class_path": "CIFAR10DataModule", "init_args": {"root": str(Path(options.root).resolve())}}
        data["init_args"]["verify"] = False
    data["init_args"] |= {"num_train": options.images, "batch_size": 128}
    with tempfile.TemporaryDirectory() as folder:
        seconds(Path(folder, "warm-up"), {**data, "init_args": {**data["init_args"], "num_train": 640}}, 2, 1)
        for i in range(options.rounds):
            whole = seconds(Path(folder, f"whole {i}"), data, options.epochs, 0)
            forked = seconds(Path(folder, f"forked {i}"), data, options.epochs, options.epochs // 2)
            KEPT.clear()
            config = Path(folder, f"whole {i}", "runs", ARMS[0], "config.yaml")
            kept = ["--keep_every_n_epochs", "1", "--run_dir", str(Path(folder, f"kept {i}"))]
            lightning_cifar(["fit", "--config", str(config), "--seed_everything", "0", *kept])
            first, *later = (value / (whole / options.epochs / len(ARMS)) for value in KEPT)
            print(
                f"trunk: {forked:.1f} s of {whole:.1f} s: {forked / whole:.3f} times; of an epoch, the first state "
                f"{first:.2%}, later ones {statistics.median(later):.2%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
