"""Runs that are killed at any moment and continued end like uninterrupted ones."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_cifar.files.checksums import beside, read_verified

BASE: dict[str, Any] = {
    "trainer": {
        **{"max_epochs": 4, "log_every_n_steps": 1, "enable_progress_bar": False, "accelerator": "cpu"},
        "callbacks": [{"class_path": "SampleGrid", "init_args": {"rows": 1, "columns": 1}}],
    },
    "model": {
        "class_path": "LeNet",
        "init_args": {"dropout": 0.2, "mixup": 0.3, "optimizer": "adam", "lr": 0.003, "schedule": "cosine"},
    },
    "data": {"class_path": "SyntheticDataModule", "init_args": {"num_train": 96, "num_val": 32, "batch_size": 32}},
}
GIF = {"class_path": "WeightGIF", "init_args": {"every_n_epochs": 1, "columns": 2, "max_kernels": 2}}
FINDER = {"class_path": "LRRangeFinder", "init_args": {"num_steps": 20, "num_sweeps": 2, "apply": True}}
EMA = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.9}}
AUGMENTED = {"augment": ["flip", {"crop": 4}, {"cutout": 8}]}
VARIANTS: dict[str, tuple[list[Any], dict[str, Any], dict[str, Any]]] = {  # callbacks, trainer, data
    "gif": ([GIF], {}, AUGMENTED),
    "finder": ([FINDER, GIF], {"accumulate_grad_batches": 2}, AUGMENTED),
    "seldom": ([EMA, GIF], {"accumulate_grad_batches": 4, "check_val_every_n_epoch": 2}, {}),
    "workers": ([], {}, {"albumentations": "flip.yaml", "num_workers": 2}),
}


class Experiment:
    """An uninterrupted run of a variant, for comparison."""

    def __init__(self, server: Any, folder: Path, name: str) -> None:
        self.server, self.name = server, name
        self.config = folder / f"{name}.yaml"
        callbacks, trainer, data = VARIANTS[name]
        config: dict[str, Any] = json.loads(json.dumps(BASE))
        config["trainer"]["callbacks"] += callbacks
        config["trainer"] |= trainer
        config["data"]["init_args"] |= data
        if "albumentations" in data:
            path = folder / "flip.yaml"
            path.write_text("- HorizontalFlip: {p: 0.5}\n")
            config["data"]["init_args"]["albumentations"] = str(path)
        self.config.write_text(yaml.safe_dump(config))
        self.whole = folder / f"{name}-whole"
        trace = folder / "trace.json"
        answer = server.run(self.whole, self.args(self.whole), trace=str(trace))
        assert answer["codes"] == [0], answer["said"]
        self.seconds = answer["seconds"]
        self.trace = json.loads(trace.read_text())
        self.end = outcome(self.whole)

    def check_against_a_fresh_process(self, folder: Path) -> None:
        """Check that a process forked from a warm one gives the result of a new one."""
        args = [sys.executable, "-m", "lightning_cifar", *self.args(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(args, check=True, capture_output=True, env=environment)
        assert differences(self.end, outcome(folder)) == []

    def args(self, folder: Path) -> list[str]:
        return ["fit", "--config", str(self.config), "--run_dir", str(folder)]

    def moment(self, draw: random.Random) -> dict[str, Any]:
        """Choose when to kill: by time, at a file operation, or in a phase."""
        kind = draw.random()
        if kind < 0.3:
            return {"kill_after": draw.uniform(0.3, 1.0) * self.seconds}
        if kind < 0.65:
            delay = draw.choice([0, 0, draw.uniform(0, 0.02)])
            return {"aim": {"file": draw.randint(1, self.trace["files"]), "delay": delay}}
        phase = draw.choice(sorted(self.trace["counts"]))
        count = self.trace["counts"][phase]
        delay = draw.uniform(0, self.trace["seconds"][phase] / count)
        return {"aim": {"phase": phase, "nth": draw.randint(1, count), "delay": delay}}

    def broken(self, folder: Path, draw: random.Random, kills: int) -> list[str]:
        """Kill and continue a run several times, then finish it; return the phase of each kill."""
        hit: list[str] = []
        for _ in range(kills + 1):
            args = ["fit", "--resume", str(folder)]
            if folder.exists() and not any((folder / "checkpoints").glob("resume*.ckpt")):
                shutil.rmtree(folder)  # it broke before its first checkpoint
            if not folder.exists():
                args = self.args(folder)
            if (folder / "result.json").exists():
                break  # the last kill came too late
            answer = self.server.run(folder, args, **(self.moment(draw) if len(hit) < kills else {}))
            if answer["codes"] == [-9]:
                hit.append(answer["phase"])
            else:
                assert answer["codes"] == [0], answer["said"]
        if not (folder / "result.json").exists():
            answer = self.server.run(folder, ["fit", "--resume", str(folder)])
            assert answer["codes"] == [0], answer["said"]
        return hit


def digests(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Return the hash of every tensor in a checkpoint."""
    if isinstance(value, torch.Tensor):
        yield name, hashlib.sha256(value.detach().contiguous().numpy().tobytes()).hexdigest()
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        yield from digests(item, f"{name}.{key}")


def outcome(folder: Path) -> dict[str, Any]:
    """Return everything that must not depend on interruptions."""
    found: dict[str, Any] = {}
    for name in ("last", "best"):
        path = folder / "checkpoints" / f"{name}.ckpt"
        assert beside(path).is_file()
        read_verified(path)
        held = torch.load(path, weights_only=True)
        # Lightning does not bring back a ModelCheckpoint's current_score, which nobody reads.
        tensors = {key.replace(str(folder), ""): value for key, value in digests(held) if "current_score" not in key}
        found[name] = tensors | {"step": str(held["global_step"])}
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if "throughput" not in k} for row in csv.DictReader(file)]
    found["metrics"] = rows
    for path in sorted((folder / "pictures").glob("*.gif")):
        found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    result = json.loads((folder / "result.json").read_text())
    found["result"] = {k: v for k, v in result["metrics"].items() if "throughput" not in k} | {"best": result["best"]}
    assert not list(folder.rglob("*.part"))
    return found


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    found = []
    for name in a.keys() | b.keys():
        if a.get(name) != b.get(name):
            one, other = a.get(name), b.get(name)
            if isinstance(one, dict) and isinstance(other, dict):
                found += [f"{name}{key}" for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
            elif isinstance(one, list) and isinstance(other, list):
                lines = [i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]]
                found.append(f"{name}: rows {lines} of {len(one)} and {len(other)}")
            else:
                found.append(name)
    return found


def campaign(server: Any, folder: Path, variants: list[str], kills: int, seed: int, most: int = 5) -> Counter[str]:
    """Kill runs until a number of kills hit; each run must end like the uninterrupted one."""
    draw = random.Random(seed)
    experiments = [Experiment(server, folder, name) for name in variants]
    if kills > 20:
        for experiment in experiments:
            experiment.check_against_a_fresh_process(folder / f"{experiment.name}-fresh")
    phases: Counter[str] = Counter()
    wrong = []
    runs = 0
    while phases.total() < kills:
        experiment = experiments[runs % len(experiments)]
        runs += 1
        target = folder / f"{experiment.name}-{runs}"
        hit = experiment.broken(target, draw, min(draw.randint(1, most), kills - phases.total()))
        phases.update(hit)
        found = differences(experiment.end, outcome(target))
        print(f"run {runs}, {experiment.name}: killed in {hit}, {len(found)} differences {found[:5]}", flush=True)  # noqa: T201
        if found:
            wrong.append((target, hit, found))
        else:
            shutil.rmtree(target)
    print(f"{phases.total()} kills in {runs} runs, {len(wrong)} ended otherwise; hit: {dict(phases)}")  # noqa: T201
    assert not wrong, wrong
    return phases


def test_killed_runs_end_like_uninterrupted_ones(server: Any, tmp_path: Path) -> None:
    assert campaign(server, tmp_path, ["finder"], kills=4, seed=3, most=4).total() == 4


@pytest.mark.slow
@pytest.mark.timeout(4000)
def test_whole_campaign(server: Any, tmp_path: Path, faults: Callable[[int], int]) -> None:
    phases = campaign(server, tmp_path, list(VARIANTS), kills=faults(200), seed=0)
    if phases.total() >= 100:
        assert {"save", "validation", "sweep", "gif", "step"} <= phases.keys()


@pytest.mark.slow
@pytest.mark.timeout(4000)
def test_lightning_without_this_package(server: Any, tmp_path: Path, faults: Callable[[int], int]) -> None:
    """The figure of Lightning, for comparison. It must not be better than that of this package."""
    draw = random.Random(0)
    folder = tmp_path / "whole"
    folder.mkdir()
    answer = server.run(folder, ["stock", str(folder)], trace=str(tmp_path / "trace.json"))
    assert answer["codes"] == [0], answer["said"]
    files = json.loads((tmp_path / "trace.json").read_text())["files"]
    end = dict(digests(torch.load(folder / "end.pt", weights_only=True)))
    runs, same, kills = faults(40), 0, 0
    for i in range(runs):
        target = tmp_path / f"run-{i}"
        target.mkdir()
        aims: list[dict[str, Any]] = [
            {"kill_after": draw.uniform(0.1, 1.0) * answer["seconds"]},
            {"aim": {"file": draw.randint(1, files), "delay": draw.uniform(0, 0.02)}},
        ]
        killed = server.run(target, ["stock", str(target)], **draw.choice(aims))["codes"] == [-9]
        kills += killed
        code = server.run(target, ["stock", str(target)])["codes"] if killed else [0]
        ended = code == [0] and dict(digests(torch.load(target / "end.pt", weights_only=True))) == end
        same += ended and killed
    print(f"Lightning alone: {same} of {kills} killed runs end bit-identical")  # noqa: T201
    assert same <= kills


@pytest.mark.slow
def test_a_killed_fork_ends_like_an_uninterrupted_one(
    server: Any, tmp_path: Path, faults: Callable[[int], int]
) -> None:
    """From the moment in which its folder is a run, before its first step too."""
    first = Experiment(server, tmp_path, "seldom")
    parent = tmp_path / "parent"
    assert server.run(parent, [*first.args(parent), "--keep_every_n_epochs", "2"])["codes"] == [0]
    start = ["fork", str(parent), "--epoch", "2", "--model.lr", "0.001", "--restart_schedule", "true"]
    whole, trace = tmp_path / "fork", tmp_path / "trace.json"
    assert server.run(whole, [*start, "--run_dir", str(whole)], trace=str(trace))["codes"] == [0]
    files, broken = json.loads(trace.read_text())["files"], 0
    for number in (1, *range(4, files, max(1, files // faults(5)))):
        target = tmp_path / f"fork-{number}"
        killed = server.run(target, [*start, "--run_dir", str(target)], aim={"file": number, "delay": 0})
        assert killed["codes"] == [-9]
        if not (target / "config.yaml").is_file():
            broken += 1
            continue  # it is not a run yet
        answer = server.run(target, ["fit", "--resume", str(target)])
        assert answer["codes"] == [0], answer["said"]
        assert differences(outcome(whole), outcome(target)) == []
    assert broken <= 2
