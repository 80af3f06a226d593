"""``load_study``: tables of settings, metrics and curves."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_cifar import load_study
from lightning_cifar.errors import UsageError
from lightning_cifar.studies.report.comparison import compare


@pytest.fixture
def folder(tmp_path: Path, write_study: Callable[..., Path]) -> Path:
    folder = write_study(tmp_path / "s", {"plain": 0.0, "better": 0.1}, seeds=2)
    (folder / "better/seed-1/done.json").write_text(json.dumps({"state": "failed", "error": "no"}))
    return folder


def test_tables(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the libraries: columns of equal length, with the values of the runs."""
    monkeypatch.setitem(sys.modules, "polars", SimpleNamespace(DataFrame=dict))
    settings, metrics, curves = load_study(folder, "polars")
    assert settings == {"arm": ["plain", "better"], "model": ["LeNet"] * 2, "model.lr": ["0.1", "0.2"]}
    runs = compare([folder]).runs
    assert metrics["state"] == ["done", "done", "done", "failed"]
    assert metrics["seed"] == [0, 1, 0, 1]
    assert metrics["val/accuracy"] == pytest.approx([run.final("val/accuracy") for run in runs], nan_ok=True)
    assert len({len(column) for column in curves.values()}) == 1
    chosen = (curves["arm"] == "better") & (curves["seed"] == 0) & (curves["metric"] == "val/loss")
    assert curves["value"][chosen].tolist() == runs[2].curves["val/loss"].value.tolist()
    assert curves["epoch"][chosen].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames(folder: Path, library: str) -> None:
    pytest.importorskip(library)
    tables = load_study(folder, library)  # type: ignore[arg-type]
    assert [len(table) for table in tables[:2]] == [2, 4]
    assert set(tables.curves.columns) == {"arm", "seed", "metric", "step", "epoch", "seconds", "value"}


def test_mistakes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="load_study needs pandas: pip install pandas, or pass library='polars'"):
        load_study(folder)
    with pytest.raises(UsageError, match=r"the folder .*none does not exist"):
        load_study(tmp_path / "none")
