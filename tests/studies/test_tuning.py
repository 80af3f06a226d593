"""Tuning before a study: budgets, halving by exact resume, borders, seeds, and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from lightning_cifar.cli import main
from lightning_cifar.errors import UsageError
from lightning_cifar.files.reading import read_json
from lightning_cifar.plots import report_html
from lightning_cifar.runs.metrics import read_curves
from lightning_cifar.studies import tuning
from lightning_cifar.studies.jobs import Job, prepare, state_of
from lightning_cifar.studies.report.build import build
from lightning_cifar.studies.report.comparison import compare
from lightning_cifar.studies.run import arguments_of, work
from lightning_cifar.studies.spec import Study, read_study
from lightning_cifar.studies.tuning import TUNING, TuningRecord, tune

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

STUDY: dict[str, Any] = {
    "seeds": [3, 8],
    "base": {
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "enable_progress_bar": False},
        "model": {"class_path": "LeNet", "init_args": {"schedule": "linear", "dropout": 0.2}},
        "data": {"class_path": "SyntheticDataModule", "init_args": {"num_train": 64, "num_val": 32, "batch_size": 16}},
    },
    "arms": {"relu": {"model.activation": "relu"}, "tanh": {"model.activation": "tanh"}},
    "tune": {"model.lr": {"low": 0.001, "high": 0.1, "num": 3}, "seeds": 2},
}


def read(folder: Path, **changed: Any) -> Study:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changed}, sort_keys=False))
    return read_study(path)


class Runner:
    """Writes the files of runs without training; ``value(settings, seed, epoch)`` is the metric of an epoch."""

    def __init__(self, value: Callable[[dict[str, Any], int, int], float]) -> None:
        self.value = value
        self.started: list[str] = []
        self.epochs = 0

    def __call__(self, jobs: list[Job]) -> None:
        for job in jobs:
            config = yaml.safe_load(Path(job.config).read_text())
            settings = config["model"]["init_args"]
            end = job.pause or config["trainer"]["max_epochs"]
            held = job.path / "metrics.csv"
            before = len(held.read_text().splitlines()) - 1 if held.is_file() else 0
            self.epochs += end - before
            self.started += [] if before else [f"{job.arm} {job.seed}"]
            values = [self.value(settings, job.seed, epoch) for epoch in range(end)]
            job.path.mkdir(parents=True, exist_ok=True)
            rows = [f"{epoch},{4 * epoch + 3},{value}" for epoch, value in enumerate(values)]
            held.write_text("\n".join(["epoch,step,val/accuracy", *rows, ""]))
            state = "done" if all(value == value for value in values) else "diverged"
            (job.path / "done.json").write_text(json.dumps({"state": state, "paused_at": job.pause}))


def by_rate(best: float) -> Callable[[dict[str, Any], int, int], float]:
    return lambda settings, seed, epoch: 0.5 - abs(settings["lr"] - best) + 0.01 * epoch


def test_each_arm_gets_its_best_setting_with_the_same_budget(tmp_path: Path) -> None:
    study = read(tmp_path)
    runner = Runner(
        lambda settings, *_: 0.5 - abs(settings["lr"] - {"relu": 0.01, "tanh": 0.1}[settings["activation"]])
    )
    assert tune(study, tmp_path / "s", 1, runner) == {"relu": {"model.lr": 0.01}, "tanh": {"model.lr": 0.1}}
    assert len(runner.started) == 2 * 3 * 2
    assert runner.epochs == 2 * 3 * 2 * 3
    record = read_json(tmp_path / "s" / TUNING, TuningRecord)
    assert (record["seeds"], record["epochs"]) == ([100_000, 100_001], 18)
    assert [record["arms"][arm]["at_border"] for arm in study.arms] == [[], ["model.lr = 0.1, the highest value"]]
    again = Runner(lambda *_: 0.0)
    assert tune(study, tmp_path / "s", 1, again) == {"relu": {"model.lr": 0.01}, "tanh": {"model.lr": 0.1}}
    assert again.epochs == 0, "no run starts twice"


def test_halving_stops_the_worse_half(tmp_path: Path) -> None:
    values = {"low": 0.001, "high": 1.0, "num": 7}
    study = read(tmp_path, tune={"model.lr": values, "seeds": 2, "halving": [1, 2]})
    runner = Runner(by_rate(0.1))
    assert set(tune(study, tmp_path / "s", 1, runner)) == {"relu", "tanh"}
    assert len(set(runner.started)) == len(runner.started) == 2 * 7 * 2
    per_arm = 2 * (7 + 4 + 2)  # seeds x settings that are trained in each epoch
    assert runner.epochs == 2 * per_arm
    record = read_json(tmp_path / "s" / TUNING, TuningRecord)
    assert record["epochs"] == per_arm
    for held in record["arms"].values():
        assert sorted(each["epochs"] for each in held["tried"]) == [1, 1, 1, 2, 2, 3, 3]
        assert held["chosen"] == {"model.lr": 0.1}
    again = Runner(lambda *_: 0.0)
    tune(study, tmp_path / "s", 1, again)
    assert again.epochs == 0, "the later values of runs that continued do not change the first choices"


def test_an_optimum_at_the_border_extends_the_range_of_all_arms(tmp_path: Path) -> None:
    study = read(tmp_path, tune={**STUDY["tune"], "widen": 3})
    best = {"relu": 0.9, "tanh": 0.01}
    runner = Runner(lambda settings, *_: -abs(settings["lr"] - best[settings["activation"]]))
    assert tune(study, tmp_path / "s", 1, runner) == {"relu": {"model.lr": 1.0}, "tanh": {"model.lr": 0.01}}
    record = read_json(tmp_path / "s" / TUNING, TuningRecord)
    tried = [[each["settings"]["model.lr"] for each in held["tried"]] for held in record["arms"].values()]
    assert tried == [[0.001, 0.01, 0.1, 1.0, 10.0]] * 2
    assert record["epochs"] == 2 * 3 * 5
    assert [held["at_border"] for held in record["arms"].values()] == [[], []]


def test_a_diverged_setting_is_the_worst(tmp_path: Path) -> None:
    study = read(tmp_path)
    runner = Runner(lambda settings, seed, _: float("nan") if settings["lr"] > 0.05 and seed == 100_001 else 0.1)
    assert tune(study, tmp_path / "s", 1, runner)["relu"] == {"model.lr": 0.001}
    nothing = Runner(lambda *_: float("nan"))
    with pytest.raises(UsageError, match="arm relu: the runs of all 3 tuned settings diverged: use lower values"):
        tune(study, tmp_path / "t", 1, nothing)


def test_several_keys_and_a_loss(tmp_path: Path) -> None:
    given = {"model.lr": {"low": 0.01, "high": 0.1, "num": 2}, "model.weight_decay": [0.0, 0.1], "seeds": [77]}
    study = read(tmp_path, tune=given, metric="val/loss")
    found = tuning._score([1.0, 2.0], "min"), tuning._score([1.0, 2.0], "max")
    assert found == (-1.5, 1.5)
    assert study.tune is not None
    assert [list(each.values()) for each in study.tune.combinations()] == [
        [0.01, 0.0],
        [0.01, 0.1],
        [0.1, 0.0],
        [0.1, 0.1],
    ]
    assert study.tune.seeds == (77,)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tune": 3}, r"tune \(=3\) must contain a key with its range, such as tune: "),
        ({"tune": {"seeds": 2}}, "must contain a key with its range"),
        ({"tune": {"model.lr": {"low": 0.1, "high": 0.01, "num": 3}}}, r"low \(=0.1\) must be positive and below high"),
        ({"tune": {"model.lr": {"low": 0.0, "high": 0.01, "num": 3}}}, r"low \(=0.0\) must be positive"),
        ({"tune": {"model.lr": {"low": 0.1, "hgh": 0.01}}}, "must be a list of values, or {low"),
        ({"tune": {"model.lr": {"low": 0.1, "high": 1, "num": 1}}}, r"num \(=1\) must be the number of values"),
        ({"tune": {"model.lr": [0.1]}}, "tune has a budget of 1 setting"),
        ({"tune": {"model.lr": [0.1, 0.2], "seeds": [8, 9]}}, "seed 8 is also a seed of the study"),
        ({"tune": {"model.lr": [0.1, 0.2], "seeds": 0}}, r"seeds \(=0\) must be a number of seeds"),
        ({"tune": {"model.activation": ["relu", "tanh"]}}, "arm relu fixes model.activation, which is tuned"),
        ({"tune": {"model.lr": [0.1, 0.2], "halving": [3]}}, r"halving \(=\[3\]\) must be a list of epochs below 3"),
        ({"tune": {"model.lr": [0.1, 0.2], "halving": [2, 1]}}, "must increase"),
        ({"tune": {"model.lr": [0.1, 0.2], "widen": 1}}, r"widen \(=1\) must be how many times a range"),
        ({"tune": {"model.lr": [0.1, 0.2], "seds": 2}}, "'seds' is not a setting. Did you mean seeds?"),
        ({"trunk": {"epochs": 1}}, "tune needs arms with equal max_epochs, for equal budgets, and no trunk"),
    ],
)
def test_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(tmp_path, **changed)


def test_a_setting_that_does_not_exist_is_found_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read(tmp_path, tune={"model.rate": [0.1, 0.2]})
    assert main(["study", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "s")]) == 2
    assert "arm relu: there is no option rate" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_a_paused_run_continues_with_the_bits_of_an_unbroken_one(tmp_path: Path, one_thread: None) -> None:
    study = read(tmp_path, arms={"relu": {"model.activation": "relu"}}, seeds=[3])
    (whole,) = prepare(study, tmp_path / "whole", threads=1)
    (job,) = prepare(study, tmp_path / "paused", threads=1)
    assert work(whole, lambda _: None) == "done"
    for pause in (1, 2, 0):
        part = Job(job.arm, job.seed, job.folder, job.config, job.metric, 1, pause=pause)
        assert state_of(part) == ("waiting" if pause == 1 else "broken")
        assert arguments_of(part).has("--resume") == (pause != 1)
        assert work(part, lambda _: None) == "done", (job.path / "done.json").read_text()
        assert state_of(part) == "done"
        assert len((job.path / "times.csv").read_text().splitlines()) == 1 + (pause or 3)
    assert not json.loads((job.path / "done.json").read_text()).get("paused_at")
    curves = [read_curves(each.path) for each in (whole, job)]
    for name in ("train/loss", "val/loss", "val/accuracy"):
        assert curves[0][name].value.tolist() == curves[1][name].value.tolist()
    first, second = (
        torch.load(each.path / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for each in (whole, job)
    )
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_the_report_shows_the_metric_over_the_rate(tmp_path: Path, write_study: Callable[..., Path]) -> None:
    folder = write_study(tmp_path / "s", {"plain": 0.0, "better": 0.1})
    assert "Tuning" not in report_html(build(compare([folder]), "x").page)
    rates = (0.01, 0.1, 1.0)
    tried = [
        {"settings": {"model.lr": rate}, "epochs": 5, "values": [0.5 + 0.1 * i, 0.51 + 0.1 * i]}
        for i, rate in enumerate(rates)
    ]
    tried[0]["values"] = [None, 0.5]
    at_border = ["model.lr = 1, the highest value"]
    arms = {
        "plain": {"tried": tried, "chosen": {"model.lr": 0.1}, "at_border": []},
        "better": {"tried": tried, "chosen": {"model.lr": 1.0}, "at_border": at_border},
    }
    (folder / TUNING).write_text(json.dumps({"seeds": [100_000, 100_001], "epochs": 30, "arms": arms}))
    (section,) = build(compare([folder]), "x").page.sections
    assert section.table.rows[0] == ["plain", "model.lr 0.1", "60.50 ± 0.71", "3", "no"]
    assert section.table.rows[1] == ["better", "model.lr 1.0", "70.50 ± 0.71", "3", at_border[0]]
    assert "3 settings and 30 epochs in all, with the seeds 100000, 100001" in section.notes[0]
    assert "may not be the optimum" in section.notes[1]
    warning = "The tuning of better chose model.lr = 1, the highest value of its range: a better one may lie outside."
    assert warning in build(compare([folder]), "x").page.warnings
    assert section.pictures[0].content.startswith(b"\x89PNG")
    page = report_html(build(compare([folder]), "x").page)
    assert page.count("<h2>Tuning</h2>") == 1
    for rate, augment in zip(tried, ([], ["flip"], [{"crop": 4}]), strict=True):
        rate["settings"] = {"data.augment": augment}
    arms["plain"]["chosen"] = {"data.augment": ["flip"]}
    (folder / TUNING).write_text(json.dumps({"seeds": [100_000], "epochs": 30, "arms": arms}))
    (section,) = build(compare([folder]), "x").page.sections
    assert [row[1] for row in section.table.rows] == ["data.augment ['flip']"], "the other choice was not tried"
    (folder / TUNING).write_text('{"seeds": [1], "epochs": 1, "arms": {"plain": {"tried": []}}}')
    assert build(compare([folder]), "x").page.sections == [], "not finished"


def test_a_study_is_tuned_then_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    read(tmp_path, seeds=[0], arms={"relu": {"model.activation": "relu"}}, tune={"model.lr": [0.001, 0.05], "seeds": 1})
    started: list[str] = []

    def run(jobs: list[Job], num_jobs: int, watch: Callable[..., None]) -> None:
        for job in jobs:
            started.append(f"{job.arm} {job.seed}")
            watch(job, None)
            watch(job, work(job, lambda _: None))

    monkeypatch.setattr("lightning_cifar.studies.local.run_locally", run)
    args = ["study", "study.yaml", "--out", "s", "--set", "trainer.max_epochs=1"]
    assert main(args) == 0
    assert started == ["relu: lr=0.001 100000", "relu: lr=0.05 100000", "relu 0"]
    text = capsys.readouterr().out
    chosen = read_json(Path("s") / TUNING, TuningRecord)["arms"]["relu"]["chosen"]["model.lr"]
    assert f"tuned relu: model.lr {chosen}" in text
    assert yaml.safe_load(Path("s/relu/seed-0/config.yaml").read_text())["model"]["init_args"]["lr"] == chosen
    with np.load("s/relu/seed-0/correct.npz") as held:
        correct = np.unpackbits(held["bits"], count=int(held["count"]))
    assert correct.mean() == pytest.approx(read_curves(Path("s/relu/seed-0"))["val/accuracy"].value[-1])
    assert len(correct) == 32
    started.clear()
    assert main(args) == 0
    assert started == []
    assert json.loads(Path("s/about.json").read_text())["seen"] == [1]
    assert main([*args, "--seeds", "2"]) == 0
    assert started == ["relu 1"]
    assert json.loads(Path("s/about.json").read_text())["seen"] == [1, 2]
    assert "Seeds were added after results were seen (1, then 2 seeds)" in Path("s/results.md").read_text()
    read(tmp_path, seeds=[0], arms={"relu": {"model.activation": "relu"}}, tune={"model.lr": [0.001, 0.06], "seeds": 1})
    assert main(args) == 2
    assert "s contains another study (tune.model.lr was [0.001, 0.05] and is [0.001, 0.06])" in capsys.readouterr().err
