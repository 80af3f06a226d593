"""What tests of several folders share. Pytest makes this folder importable by its setting ``pythonpath``."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest

from lightning_cifar import cli


def quiet_trainer(**settings: Any) -> pl.Trainer:
    """Return a Trainer on the CPU that logs, saves and shows nothing, unless ``settings`` say so."""
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return pl.Trainer(**{"accelerator": "cpu", **dict.fromkeys(off, False), **settings})


def study_rows(folder: Path) -> list[dict[str, str]]:
    """Return the rows of results.csv of a study, without times."""
    with (folder / "results.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if "seconds" not in key} for row in csv.DictReader(file)]


def error_of(capsys: pytest.CaptureFixture[str], args: list[str]) -> str:
    """Run a command with a mistake in it. Return its one line, and check that no file is left behind."""
    capsys.readouterr()
    before = sorted(Path().rglob("*"))
    code = cli.main(args)
    captured = capsys.readouterr()
    said = [line for line in captured.err.splitlines() if line.startswith("lightning-cifar: error: ")]
    assert code == 2, captured
    assert len(said) == 1, captured
    assert sorted(Path().rglob("*")) == before
    return said[0].removeprefix("lightning-cifar: error: ")
