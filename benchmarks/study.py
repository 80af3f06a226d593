"""Cost of the study layer and of the report.

    python benchmarks/study.py [--parts overhead report] [--runs 8] [--epochs 3] [--rounds 3] [--threads 1]

- ``overhead``: a study of LeNet on synthetic images, one run at a time, relative to the same runs started one by one
  with ``lightning-cifar fit`` in separate processes; interleaved round by round. Three ratios: wall time (a separate
  process imports everything again), time inside the runs (``seconds`` of result.json), and training time without
  start-up. Also the start-up of a run after the first: from its start to its first training step, computed from the
  time of its first epoch.
- ``report``: ``lightning-cifar report`` on 100 synthetic runs x 10,000 points, and on 1,000 runs x 100 points: seconds
  of the command, and megabytes of the page.

Targets: at most 1.05 times the separate runs, a start-up of 1 s, a report in 10 s and 10 MB, of
1,000 runs in 30 s.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lightning_cifar.studies.jobs import Job, Progress, prepare
from lightning_cifar.studies.local import run_locally
from lightning_cifar.studies.spec import Study, read_study

NUM_ARMS, NUM_SEEDS, NUM_POINTS = 10, 10, 10_000
MANY = (20, 50, 100)  # arms, seeds, points


def write_study(folder: Path, runs: int, epochs: int, num_train: int) -> Study:
    """Two arms that cost the same."""
    path = folder / "study.yaml"
    content: dict[str, Any] = {
        "name": "bench",
        "base": {
            "trainer": {"max_epochs": epochs, "accelerator": "cpu"},
            "model": {"class_path": "LeNet"},
            "data": {"class_path": "SyntheticDataModule", "init_args": {"num_train": num_train}},
        },
        "arms": {"a": {"model.lr": 0.01}, "b": {"model.lr": 0.02}},
        "seeds": max(1, runs // 2),
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return read_study(path)


def seconds_of_study(study: Study, folder: Path, threads: int) -> tuple[float, list[Job], list[float]]:
    """Wall time, the jobs, and the start-up of each run after the first."""
    jobs = prepare(study, folder, threads=threads)
    started: dict[Job, float] = {}
    first_reports: dict[Job, float] = {}

    def watch(job: Job, news: object) -> None:
        if news is None:
            started[job] = time.perf_counter()
        elif isinstance(news, Progress):
            first_reports.setdefault(job, time.perf_counter())

    start = time.perf_counter()
    run_locally(jobs, 1, watch)
    wall = time.perf_counter() - start
    waits = []
    for job in jobs[1:]:
        first_epoch = float((job.path / "times.csv").read_text().splitlines()[1].split(",")[2])
        waits.append(first_reports[job] - started[job] - first_epoch)
    return wall, jobs, waits


def seconds_by_hand(jobs: list[Job], folder: Path, threads: int) -> tuple[float, list[Path]]:
    """Wall time of the same runs, each in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    folders = [folder / f"{job.arm}-{job.seed}" for job in jobs]
    start = time.perf_counter()
    for job, run in zip(jobs, folders, strict=True):
        words = ["fit", "--config", job.config, "--seed_everything", str(job.seed), "--run_dir", str(run)]
        words += ["--trainer.enable_progress_bar", "false"]
        command = [sys.executable, "-m", "lightning_cifar", *words]
        subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - start, folders


def inside(folders: list[Path]) -> float:
    """Seconds of the runs by their own account."""
    return sum(float(json.loads((folder / "result.json").read_text())["seconds"]) for folder in folders)


def training(folders: list[Path]) -> float:
    """Seconds of training images at the rate of the last epoch, summed over the runs."""
    total = 0.0
    for folder in folders:
        rate = json.loads((folder / "result.json").read_text())["metrics"]["throughput"]
        total += 1e4 / rate
    return total


def overhead(options: argparse.Namespace) -> None:
    wall, within, rates, waits = [], [], [], []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            study = write_study(folder, options.runs, options.epochs, options.num_train)
            together, jobs, found = seconds_of_study(study, folder / "study", options.threads)
            by_hand, folders = seconds_by_hand(jobs, folder, options.threads)
            paths = [job.path for job in jobs]
            wall.append(together / by_hand)
            within.append(inside(paths) / inside(folders))
            rates.append(training(paths) / training(folders))
            waits += found
            print(f"  {len(jobs)} runs: study {together:.2f} s, by hand {by_hand:.2f} s")
    for what, ratios in (("wall time", wall), ("time inside the runs", within), ("time of an image", rates)):
        print(
            f"{what}: study / by hand = {statistics.median(ratios):.3f} (median of {len(ratios)} rounds, "
            f"{min(ratios):.3f} to {max(ratios):.3f})"
        )
    print(
        f"start-up of a run after the first: {statistics.median(waits):.2f} s (median of n = {len(waits)}, "
        f"{min(waits):.2f} to {max(waits):.2f})"
    )


def write_runs(folder: Path, arms: int = NUM_ARMS, seeds: int = NUM_SEEDS, points: int = NUM_POINTS) -> Path:
    """A study's folder as if it had run: noisy losses and accuracies of single batches, and of epochs."""
    content = {
        "name": "written",
        "base": {"model": {"class_path": "LeNet"}, "data": {"class_path": "SyntheticDataModule"}},
        "arms": {f"lr {0.01 * (i + 1):.2f}": {"model.lr": 0.01 * (i + 1)} for i in range(arms)},
        "seeds": seeds,
        "target": 0.6,
    }
    path = folder / "written.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    study = read_study(path)
    jobs = prepare(study, folder / "study", threads=1)
    (folder / "study" / "about.json").write_text(json.dumps(study.about(), default=str))
    for job in jobs:
        _write_run(job, list(study.arms).index(job.arm), points)
    return folder / "study"


def _write_run(job: Job, quality: int, points: int, epochs: int = 50) -> None:
    draw = np.random.default_rng((job.seed, quality))
    steps = 10 * np.arange(points) + 9
    part = np.linspace(0, 1, points)
    luck = draw.normal(0, 0.01)
    loss = 0.6 + 1.7 * np.exp(-(4 + 0.5 * quality) * part) + luck + draw.gamma(2, 0.08, points)
    accuracy = np.clip(0.75 - 0.65 * np.exp(-(3 + 0.4 * quality) * part) + draw.normal(luck, 0.04, points), 0, 1)
    classes = ("bird", "cat", "dog", "ship")
    names = ["epoch", "lr", "step", "train/accuracy", "train/accuracy_step", "train/loss", "train/loss_step"]
    names += ["val/accuracy", *(f"val/accuracy/{name}" for name in classes), "val/loss"]
    every = max(1, points // epochs)
    lines = [",".join(names)]
    for i, step in enumerate(steps.tolist()):
        lines.append(f",{0.01 * (quality + 1) * (1 - part[i]):.8f},{step},,,,,,,,,,")
        lines.append(f"{i // every},,{step},,{accuracy[i]:.10f},,{loss[i]:.16f},,,,,,")
        if (i + 1) % every == 0:
            mean, best = loss[i + 1 - every : i + 1].mean(), accuracy[i + 1 - every : i + 1].mean()
            by_class = ",".join(f"{best + offset:.6f}" for offset in (-0.05, -0.15, 0.02, 0.12))
            lines.append(f"{i // every},,{step},,,,,{best - 0.02:.10f},{by_class},{mean + 0.1 * part[i] ** 2:.10f}")
            lines.append(f"{i // every},,{step},{best:.10f},,{mean:.10f},,,,,,,")
    job.path.mkdir(parents=True)
    (job.path / "metrics.csv").write_text("\n".join(lines) + "\n")
    ends = [f"{e},{10 * every * (e + 1)},{3.1 * (e + 1) * (1 + luck):.3f}" for e in range(points // every)]
    (job.path / "times.csv").write_text("\n".join(["epoch,step,seconds", *ends]) + "\n")
    (job.path / "done.json").write_text(json.dumps({"state": "done", "seconds": 160.0, "metrics": {}}))


def report(options: argparse.Namespace) -> None:
    for arms, seeds, points in ((NUM_ARMS, NUM_SEEDS, options.points), MANY):
        _report(options.rounds, arms, seeds, points)


def _report(rounds: int, arms: int, seeds: int, points: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = write_runs(Path(name), arms, seeds, points)
        out = Path(name) / "report.html"
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            command = [sys.executable, "-m", "lightning_cifar", "report", str(folder), "--out", str(out)]
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(time.perf_counter() - start)
        print(
            f"report of {arms * seeds} runs x {points} points: {statistics.median(seconds):.2f} s "
            f"(median of {len(seconds)}, {min(seconds):.2f} to {max(seconds):.2f}), {out.stat().st_size / 1e6:.2f} MB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("overhead", "report"), default=["overhead", "report"])
    parser.add_argument("--runs", type=int, default=8, help="number of runs of the study")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--num_train", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--points", type=int, default=NUM_POINTS)
    options = parser.parse_args()
    names = ("torch", "lightning", "numpy", "scipy")
    print(", ".join(f"{name} {version(name)}" for name in names), f", {options.threads} thread(s)", sep="")
    if "overhead" in options.parts:
        overhead(options)
    if "report" in options.parts:
        report(options)


if __name__ == "__main__":
    main()
