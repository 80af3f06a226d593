"""Means over seeds for TensorBoard, read with its own reader."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from lightning_cifar import cli
from lightning_cifar.analysis.statistics import mean_interval


def test_means_over_seeds(write_study: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", {"plain": 0.0, "fine": 0.1})
    for _ in range(2):  # again: the curves are replaced
        assert cli.main(["report", str(folder)]) == 0
    for arm in ("plain", "fine"):
        events = EventAccumulator(str(folder / f"{arm} (mean)"), {"scalars": 0, "tensors": 0}).Reload()
        assert len(list((folder / f"{arm} (mean)").iterdir())) == 1
        seeds = []
        for seed in range(3):
            with (folder / arm / f"seed-{seed}" / "metrics.csv").open() as file:
                rows = [row for row in csv.DictReader(file) if row["val/accuracy"]]
            seeds.append([float(row["val/accuracy"]) for row in rows])
        expected = [mean_interval(values) for values in zip(*seeds, strict=True)]
        steps = [int(row["step"]) for row in rows]
        for tag, name in {
            "val/accuracy": "mean",
            **{f"band/val/accuracy/{n}": n for n in ("mean", "low", "high")},
        }.items():
            found = [(event.step, event.value) for event in events.Scalars(tag)]
            assert [step for step, _ in found] == steps
            assert [value for _, value in found] == pytest.approx([getattr(each, name) for each in expected], rel=1e-5)
        assert not [tag for tag in events.Tags()["scalars"] if "cat" in tag or tag.endswith("_step")]
        layout = make_ndarray(events.Tensors("custom_scalars__config__")[0].tensor_proto).item()
        assert b"band/val/accuracy/mean" in layout
