"""``lightning-cifar study``: every arm with every seed; a repeated or killed study resumes without losing results."""

import errno
import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from shared import study_rows

from lightning_cifar.cli import main
from lightning_cifar.data import CIFAR10DataModule, SyntheticDataModule
from lightning_cifar.runs.signals import Terminated
from lightning_cifar.studies import board, local
from lightning_cifar.studies.jobs import Job, prepare, state_of
from lightning_cifar.studies.run import arguments_of
from lightning_cifar.studies.spec import read_study

BASE: dict[str, Any] = {
    "trainer": {"max_epochs": 3, "log_every_n_steps": 1, "accelerator": "cpu"},
    "model": {"class_path": "LeNet", "init_args": {"lr": 0.05, "dropout": 0.2}},
    "data": {"class_path": "SyntheticDataModule", "init_args": {"num_train": 128, "num_val": 50, "num_test": 50}},
}
ARMS = {"slow": {"model.lr": 0.01}, "wild": {"model.lr": 1.0e9}}

pytestmark = pytest.mark.usefixtures("in_tmp")


def write(folder: Path, arms: dict[str, Any], **more: Any) -> str:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"base": BASE, "arms": arms, "seeds": 2, **more}, sort_keys=False))
    return str(path)


def test_runs_resumes_and_equals_single_runs(
    tmp_path: Path, start_command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write(tmp_path, ARMS)
    assert main(["study", study, "--jobs", "2", "--out", "out"]) == 0
    text = capsys.readouterr().out
    assert "2 arms x 2 seeds, 2 at a time, 1 threads each" in text
    found = study_rows(Path("out"))
    assert [(row["arm"], row["seed"], row["state"]) for row in found] == [
        ("slow", "0", "done"),
        ("wild", "0", "diverged"),
        ("slow", "1", "done"),
        ("wild", "1", "diverged"),
    ]
    assert "0 + 2 diverged" in (Path("out") / "results.md").read_text()
    assert "have no finished seed in common" in text

    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("done.json")}
    assert main(["study", study, "--out", "out"]) == 0
    assert "4 of 4 runs are done and kept" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("done.json")} == before

    args = ["fit", "--config", "out/slow/config.yaml", "--seed_everything", "1", "--run_dir", "hand"]
    args += ["--trainer.enable_progress_bar", "false"]
    alone = start_command(*args, OMP_NUM_THREADS="1")
    alone.join()
    assert alone.exitcode == 0
    result = json.loads(Path("hand/result.json").read_text())
    assert float(found[2]["final"]) == result["metrics"]["val/accuracy"]


def test_killed_and_run_again_gives_the_same_table(
    tmp_path: Path, start_command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write(tmp_path, {"slow": {"model.lr": 0.01}, "mixup": {"model.mixup": 0.5}}, seeds=1)
    args = ["study", study, "--jobs", "2", "--threads", "1", "--out"]
    assert main([*args, "whole"]) == 0
    process = start_command(*args, "broken")
    while not list(Path("broken").rglob("times.csv")):  # one epoch of one run is over
        assert process.is_alive()
        time.sleep(0.02)
    process.kill()
    process.join()
    assert not Path("broken/results.csv").exists()
    assert main([*args, "broken"]) == 0
    assert study_rows(Path("whole")) == study_rows(Path("broken")), capsys.readouterr().out
    assert len(study_rows(Path("whole"))) == 2


def test_mistakes_are_found_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error(arms: dict[str, Any], *args: str) -> str:
        assert main(["study", write(tmp_path, arms), "--out", "out", *args]) == 2
        assert not Path("out").exists()
        return capsys.readouterr().err

    assert "arm wrong: there is no option activaton. Did you mean activation?" in error(
        {"a": {"model.lr": 1.0}, "wrong": {"model.activaton": "tanh"}}
    )
    assert "arm wrong: lr (=-1.0) must be a positive number" in error({"wrong": {"model.lr": -1.0}})
    assert "--seeds: '0' must be a whole number" in error({"a": {"model.lr": 1.0}}, "--seeds", "0")
    assert "--jobs: '0' must be a whole number" in error({"a": {"model.lr": 1.0}}, "--jobs", "0")
    assert "must have the form KEY=VALUE, such as data.root=/my/data" in error({"a": {"model.lr": 1.0}}, "--set", "x")
    assert "--set: the setting 'dta.root' does not exist. Did you mean data?" in error(
        {"a": {"model.lr": 1.0}}, "--set", "dta.root=x"
    )


def test_missing_data_stop_a_study_before_its_first_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: CIFAR10DataModule) -> None:
        tried.append(str(self.root))
        raise ConnectionError("CIFAR-10 could not be downloaded: try --data SyntheticDataModule or --data.url URL")

    tried: list[str] = []
    monkeypatch.setattr(CIFAR10DataModule, "prepare_data", refuse)
    arms = {"a": {"model.lr": 0.1}, "b": {"model.lr": 0.2}}
    args = ["study", write(tmp_path, arms), "--out", "out", "--set", "data.class_path=CIFAR10DataModule"]
    assert main([*args, "--set", "data.root=absent"]) == 2
    printed = capfd.readouterr()
    hint = "try --set data.class_path=SyntheticDataModule or --set data.url=URL"
    assert printed.err == f"lightning-cifar: error: CIFAR-10 could not be downloaded: {hint}\n"
    assert printed.out.count("\n") == 1
    assert "Seed set to" not in printed.out
    assert tried == ["absent"]  # once for both arms
    assert not Path("out").exists()


def test_each_different_data_of_unfinished_arms_is_prepared_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[int] = []
    monkeypatch.setattr(SyntheticDataModule, "prepare_data", lambda self: prepared.append(self.split_seed))
    monkeypatch.setattr("lightning_cifar.studies.local.run_locally", lambda *_: None)
    path = write(
        tmp_path, {"a": {"model.lr": 1.0}, "b": {"data.split_seed": 5}, "c": {"model.lr": 2.0}, "d": {"model.lr": 3.0}}
    )
    assert main(["study", path, "--out", "out"]) == 1
    assert sorted(prepared) == [0, 5]
    for job in prepare(read_study(Path(path)), Path("out"), threads=1):
        if job.arm == "b":
            job.path.mkdir()
            (job.path / "done.json").write_text('{"state": "done"}')
    prepared.clear()
    assert main(["study", path, "--out", "out"]) == 1
    assert prepared == [0]


def test_the_folder_of_another_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = read_study(Path(write(tmp_path, {"a": {"model.lr": 1.0}})))
    prepare(first, Path("out"), threads=1)
    assert main(["study", write(tmp_path, {"a": {"model.lr": 2.0}}), "--out", "out"]) == 2
    assert (
        "out contains another study (arms.a.model.lr was 1.0 and is 2.0): pass another --out" in capsys.readouterr().err
    )
    Path("full").mkdir()
    Path("full/precious.txt").write_text("x")
    assert main(["study", write(tmp_path, {"a": {"model.lr": 2.0}}), "--out", "full"]) == 2
    assert "full exists and is not the folder of a study" in capsys.readouterr().err


def test_states_of_a_job(tmp_path: Path) -> None:
    jobs = prepare(read_study(Path(write(tmp_path, ARMS))), tmp_path / "out", threads=1)
    assert [(job.arm, job.seed) for job in jobs] == [("slow", 0), ("wild", 0), ("slow", 1), ("wild", 1)]
    job: Job = jobs[2]
    assert state_of(job) == "waiting"
    assert arguments_of(job).args[:1] == ("--config",)
    job.path.mkdir()
    assert state_of(job) == "broken"
    (job.path / "done.json").write_text('{"state": "failed"')
    assert state_of(job) == "broken"  # cut off while it was written
    (job.path / "done.json").write_text('{"state": "failed", "error": "no"}')
    assert state_of(job) == "failed"
    (job.path / "checkpoints").mkdir()
    (job.path / "checkpoints/resume.ckpt").touch()
    (job.path / "config.yaml").touch()
    assert arguments_of(job).args == ("--resume", job.folder)
    assert state_of(job) == "broken"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_names_the_option(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
        raise OSError(number, os.strerror(number), str(self))

    path = write(tmp_path, {"a": {"model.lr": 1.0}})
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main(["study", path, "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert os.strerror(number) in error
    assert "pass another folder as --out" in error


def test_each_line_states_the_time_of_the_run_and_of_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(board.time, "monotonic", lambda: next(clock))
    study = read_study(Path(write(tmp_path, ARMS)))
    jobs = prepare(study, tmp_path / "out", threads=1)
    shown = board.Board(jobs, study)
    for job, state in zip(jobs[:2], ("done", "failed"), strict=True):
        job.path.mkdir()
        (job.path / "done.json").write_text(json.dumps({"state": state, "error": "no space is left"}))
        shown.hear(job, None)
        shown.hear(job, state)
    assert capsys.readouterr().out.splitlines() == [
        "[1/4] slow, seed 0: done   10 s, 20 s since the start",
        "[2/4] wild, seed 0: failed   10 s, 40 s since the start: no space is left",
    ]


def test_a_run_that_cannot_write_its_record_reports_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(job: Job, say: object) -> None:
        raise OSError(errno.ENOSPC, "could not write done.json: No space left on device")

    sent: list[object] = []
    pipe: Any = SimpleNamespace(send=sent.append, close=lambda: None)
    monkeypatch.setattr("lightning_cifar.studies.run.work", full)
    monkeypatch.setattr(local, "redirect_output", lambda path: None)
    before = signal.getsignal(signal.SIGINT)
    try:
        local._worker(prepare(read_study(Path(write(tmp_path, ARMS))), tmp_path / "out", threads=1)[0], pipe)
    finally:
        signal.signal(signal.SIGINT, before)
    assert sent == ["[Errno 28] could not write done.json: No space left on device"]


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_ends_a_study_after_its_runs(
    number: int, kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(number)
    monkeypatch.setattr(local, "wait", lambda *_, **__: os.kill(os.getpid(), number) or [])
    ended: list[object] = []
    monkeypatch.setattr(local, "_end", ended.extend)
    process = Mock(sentinel=-1)
    context = SimpleNamespace(
        set_forkserver_preload=lambda names: None,
        Pipe=lambda duplex: (Mock(), Mock()),
        Process=lambda **_: process,
    )
    monkeypatch.setattr(local.mp, "get_context", lambda method: context)
    jobs = prepare(read_study(Path(write(tmp_path, ARMS))), tmp_path / "out", threads=1)
    with pytest.raises(KeyboardInterrupt) as caught:
        local.run_locally(jobs, 1, lambda *_: None)
    assert caught.type is kind
    assert ended == [process]
    assert signal.getsignal(number) == before
