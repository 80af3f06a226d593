"""``study --plan``: number of seeds from a pilot or a given standard deviation; nothing starts."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lightning_cifar.analysis.planning import power_of_difference, power_of_equivalence, seeds_needed
from lightning_cifar.cli import main
from lightning_cifar.studies.report import results
from lightning_cifar.studies.report.build import build
from lightning_cifar.studies.report.comparison import compare
from lightning_cifar.studies.spec import read_study

STUDY: dict[str, Any] = {
    "base": {
        "trainer": {"max_epochs": 1},
        "model": {"class_path": "LeNet"},
        "data": {"class_path": "SyntheticDataModule"},
    },
    "arms": {"a": {"model.lr": 0.1}, "b": {"model.lr": 0.2}, "c": {"model.lr": 0.3}},
    "seeds": 4,
}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    return "s.yaml"


def numbers(text: str) -> list[int]:
    return [int(number.replace(",", "")) for number in re.findall(r"power: ([\d,]+) seeds", text)]


def test_from_a_given_standard_deviation(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", path, "--plan", "--detect", "0.5", "--sd", "0.8 points"]) == 0
    text = capsys.readouterr().out
    expected = [
        seeds_needed(lambda n, power=power: power(n, 0.5, 0.8, 0.025))
        for power in (power_of_difference, power_of_equivalence)
    ]
    assert numbers(text) == expected
    assert "0.8 points (given)" in text
    assert "5 % for 2 comparison(s)" in text
    assert not Path("runs").exists()


def test_from_a_pilot_with_its_time(path: str, write_run: Callable[..., None], capsys: Any) -> None:
    study = read_study(Path(path))
    folder = Path("runs/studies/s")
    folder.mkdir(parents=True)
    (folder / "study.json").write_text(study.to_json())
    for arm, shift in {"a": 0.0, "b": 0.01, "c": 0.02}.items():
        for seed in range(3):
            write_run(folder / arm / f"seed-{seed}", seed=seed, shift=shift)
    assert main(["study", path, "--plan", "--detect", "1", "--jobs", "2"]) == 0
    text = capsys.readouterr().out
    values = results.finals(compare([folder]).runs, list("abc"), "val/accuracy")
    gaps = np.array([[values[arm][seed] - values["a"][seed] for seed in range(3)] for arm in "bc"])
    std = np.sqrt(gaps.var(axis=1, ddof=1).mean())
    assert f"{results.number_text(100 * std)} points (from 3 seeds, at most " in text
    assert numbers(text)[0] == seeds_needed(lambda n: power_of_difference(n, 0.01, std, 0.025))
    needed = numbers(text)[0] * 3 * 7.5 / 2
    assert f"about {needed / 60:.3g} min" in text or f"about {needed:.0f} s" in text
    assert sorted(each.name for each in folder.iterdir()) == ["a", "b", "c", "study.json"], "nothing was written"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--plan"], "--plan needs the difference that matters: add --detect 0.5"),
        (
            ["--plan", "--detect", "0.5"],
            "has no two finished seeds as a pilot: run the study with --seeds 3, or add --sd",
        ),
        (["--plan", "--detect", "-1"], "--detect (=-1 points) must be a positive difference"),
        (["--plan", "--detect", "x", "--sd", "1"], "--detect (=x points) must be a positive difference"),
        (["--detect", "0.5"], "--detect is an option of a plan: add --plan"),
    ],
)
def test_mistakes(path: str, args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", path, *args]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_report_without_a_verdict_states_how_many_seeds_are_needed(
    tmp_path: Path, write_study: Callable[..., Path]
) -> None:
    folder = write_study(tmp_path / "s", {"plain": 0.0, "same": 0.001}, seeds=3)
    text = build(compare([folder]), "x").text
    assert "with 80% power: " in text
    held = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**held, "margin": 0.003}))
    assert "To detect a difference of 0.3 points with 80% power: " in build(compare([folder]), "x").text
    shown = build(compare([write_study(tmp_path / "t", {"plain": 0.0, "better": 0.2}, seeds=5)]), "x").text
    assert "power" not in shown
