"""Snapshots are saved in a checkpoint, and loggers receive them in a supported form."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lightning_cifar.analysis.activations import LayerSummary, summarise
from lightning_cifar.analysis.layer_selection import SelectedLayers, Tap
from lightning_cifar.callbacks.snapshots import HEADER, Snapshot, density_panels, log_summary, table_rows

VALUES = torch.randn(400, 5, generator=torch.Generator().manual_seed(0)).relu()
FOUND = LayerSummary(summarise(VALUES), summarise(VALUES * 2))
SNAPSHOT = Snapshot(7, {"a": 0.5}, {("train", "a", "net.1"): FOUND})


def test_a_checkpoint_holds_them(tmp_path: Path) -> None:
    torch.save(SNAPSHOT.pack(), tmp_path / "packed.pt")
    packed = torch.load(tmp_path / "packed.pt", weights_only=True)
    assert repr(Snapshot.unpack(packed)) == repr(SNAPSHOT)


def test_rows() -> None:
    before, after = table_rows([SNAPSHOT], {("a", "net.1")})
    assert dict(zip(HEADER, after, strict=True))["kept_share"] == "1"
    assert before[:6] == [7, "train", "a", "net.1", "input", 2000]
    assert before[HEADER.index("kept_share")] == ""
    assert float(str(before[HEADER.index("mean")])) == float(f"{FOUND.before.mean:.7g}")
    assert dict(zip(HEADER, before, strict=True))["probe_loss"] == "0.5"


def test_panels_state_the_values_outside() -> None:
    place = SelectedLayers("net.1", [Tap("a", "net.1", "input")], ["before"])
    (panel,) = density_panels([SNAPSHOT], [place], ["train"], share=0.05)
    (curve,) = panel.curves
    zeros = 100 * FOUND.before.zeros
    assert curve.notes[0].startswith(f"without the {zeros:.3g} % exact zeros, ")
    assert curve.notes[0].endswith("% outside")
    assert float(np.sum(curve.heights) * np.diff(np.asarray(panel.edges))[0]) == pytest.approx(1)


def test_a_logged_histogram_has_all_values_in_few_bins() -> None:
    calls: list[tuple[str, dict[str, Any]]] = []
    writer = SimpleNamespace(add_histogram_raw=lambda tag, **values: calls.append((tag, values)))
    trainer: Any = SimpleNamespace(
        loggers=[SimpleNamespace(experiment=each) for each in (writer, None, object())],
        is_global_zero=True,
        fast_dev_run=False,
    )
    log_summary(trainer, "x", FOUND.before, 3)
    log_summary(trainer, "x", summarise(torch.full((3,), torch.nan)), 4)
    ((tag, found),) = calls
    assert (tag, found["global_step"]) == ("x", 3)
    assert (found["min"], found["max"]) == (FOUND.before.low, FOUND.before.high)
    assert 1990 < found["num"] == sum(found["bucket_counts"]) <= 2000  # a few may lie beyond the bins
    assert len(found["bucket_counts"]) == len(found["bucket_limits"]) <= 60
    assert found["sum"] / found["num"] == pytest.approx(FOUND.before.mean, abs=0.1)
