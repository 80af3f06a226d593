"""Files of studies and runs, without running them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

NAMES = ["epoch", "lr-SGD", "step", "train/accuracy", "train/loss", "train/loss_step", "val/accuracy"]
NAMES += ["val/accuracy/cat", "val/accuracy/<dog>", "val/loss"]


def _write_run(
    folder: Path,
    *,
    seed: int,
    shift: float = 0.0,
    epochs: int = 5,
    steps: int = 20,
    state: str | None = "done",
    error: str = "",
    timed: bool = True,
    config: dict[str, Any] | None = None,
) -> None:
    """A run whose validation accuracy grows to about 0.6 + shift; one that diverges has a NaN loss from epoch 1 on."""
    luck = np.random.default_rng(seed).normal(0, 0.02)  # of a seed, in every arm
    draw = np.random.default_rng((seed, round(1000 * shift)))
    rows: list[dict[str, float]] = []
    for epoch in range(epochs):
        for i in range(steps):
            step = epoch * steps + i
            loss = 2.3 / (1 + 0.05 * step) + draw.normal(0, 0.05)
            loss = np.nan if state == "diverged" and epoch else loss
            rows += [{"lr-SGD": 0.1, "step": step}, {"epoch": epoch, "step": step, "train/loss_step": loss}]
        accuracy = 0.6 * (epoch + 1) / epochs + shift + luck + draw.normal(0, 0.005)
        ends = {"epoch": epoch, "step": (epoch + 1) * steps - 1}
        val = {"val/accuracy": accuracy, "val/accuracy/cat": accuracy - 0.1, "val/accuracy/<dog>": accuracy + 0.1}
        rows += [{**ends, **val, "val/loss": 1 - accuracy}, {**ends, "train/accuracy": accuracy, "train/loss": loss}]
    folder.mkdir(parents=True)
    lines = [",".join(f"{row[name]:.10g}" if name in row else "" for name in NAMES) for row in rows]
    (folder / "metrics.csv").write_text("\r\n".join([",".join(NAMES), *lines, ""]))
    if timed:
        times = [f"{epoch},{(epoch + 1) * steps},{1.5 * (epoch + 1) + luck:.3f}" for epoch in range(epochs)]
        (folder / "times.csv").write_text("\n".join(["epoch,step,seconds", *times, ""]))
    if state is not None:
        (folder / "done.json").write_text(json.dumps({"state": state, "error": error, "metrics": {}}))
        result = {"versions": {"torch": "2.14.1"}, "machine": {"device": "cpu", "threads": 1}}
        (folder / "result.json").write_text(json.dumps(result))
    if config is not None:
        (folder / "config.yaml").write_text(yaml.safe_dump({"seed_everything": seed, **config}))


def _write_study(folder: Path, arms: dict[str, float], seeds: int = 3, **more: Any) -> Path:
    """A finished study: name of an arm -> its gain in accuracy."""
    held = {name: {"model": {"class_path": "LeNet", "init_args": {"lr": 0.1 + shift}}} for name, shift in arms.items()}
    folder.mkdir(parents=True)
    study = {"name": "written", "arms": held, "metric": "val/accuracy", "mode": "max", "baseline": next(iter(arms))}
    (folder / "study.json").write_text(json.dumps(study))
    about = {"arms": list(arms), "seeds": list(range(seeds)), "question": "Why?", "target": 0.5, "command": "again"}
    (folder / "about.json").write_text(json.dumps(about))
    for name, shift in arms.items():
        for seed in range(seeds):
            _write_run(folder / name / f"seed-{seed}", seed=seed, shift=shift, config=held[name], **more)
    return folder


@pytest.fixture(scope="session")
def write_run() -> Callable[..., None]:
    return _write_run


@pytest.fixture(scope="session")
def write_study() -> Callable[..., Path]:
    return _write_study
