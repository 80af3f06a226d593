"""A study that is stopped, or has a full disk, keeps its finished runs and reports this in one line."""

import errno
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_cifar.cli import main
from lightning_cifar.commands import study as command
from lightning_cifar.data import SyntheticDataModule
from lightning_cifar.studies import run
from lightning_cifar.studies.jobs import error_of, prepare, state_of
from lightning_cifar.studies.run import work
from lightning_cifar.studies.spec import read_study

BASE: dict[str, Any] = {
    "trainer": {"max_epochs": 2, "accelerator": "cpu"},
    "model": {"class_path": "LeNet"},
    "data": {"class_path": "SyntheticDataModule", "init_args": {"num_train": 128, "num_val": 50, "num_test": 50}},
}


def write(folder: Path, epochs: int = 2) -> str:
    """Two runs, the first of which is short."""
    path = folder / "study.yaml"
    arms = {"short": {"model.lr": 0.1}, "long": {"trainer.max_epochs": epochs}}
    path.write_text(yaml.safe_dump({"base": BASE, "arms": arms, "seeds": 1}, sort_keys=False))
    return str(path)


def children_of(pid: int) -> set[int]:
    """All descendants of a process, on Linux."""
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            found |= {child, *children_of(child)}
    return found


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads the children of a process from /proc")
def test_ctrl_c_ends_the_children_and_keeps_what_is_done(tmp_path: Path, start_command: Any) -> None:
    args = ["study", write(tmp_path, epochs=100_000), "--threads", "1", "--out", str(tmp_path / "out")]
    process = start_command(*args, log=tmp_path / "log")
    while not (tmp_path / "out/long/seed-0/times.csv").exists():
        assert process.is_alive()
        time.sleep(0.05)
    children = children_of(process.pid)
    assert len(children) >= 2, "the server that forks, and the run"
    os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does
    process.join()
    errors = (tmp_path / "log").read_text()
    assert process.exitcode == 130, errors
    assert "stopped, 1 of 2 runs are done; to continue, repeat the command" in errors
    assert "Traceback" not in errors
    while any(Path(f"/proc/{child}").exists() for child in children):  # for ever, if one stays
        time.sleep(0.05)
    assert json.loads((tmp_path / "out/short/seed-0/done.json").read_text())["state"] == "done"
    assert not (tmp_path / "out/long/seed-0/done.json").exists()
    assert (tmp_path / "out/long/seed-0/checkpoints/resume.ckpt").is_file(), "from here it goes on"


def full(path: Path, content: bytes) -> None:
    raise OSError(errno.ENOSPC, f"could not write {path}: {os.strerror(errno.ENOSPC)}")


def test_a_full_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "write_atomically", full)
    monkeypatch.setattr(command, "_check_arms", lambda study: dict.fromkeys(study.arms, SyntheticDataModule()))
    assert main(["study", write(tmp_path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "No space left on device" in error
    assert str(tmp_path / "out") in error


def test_a_run_that_finds_the_disk_full_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(job: object, say: object) -> dict[str, float]:
        raise OSError(errno.ENOSPC, "could not write metrics.csv: No space left on device")

    monkeypatch.setattr(run, "run_job", no_room)
    job = prepare(read_study(Path(write(tmp_path))), tmp_path / "out", threads=1)[0]
    assert work(job, lambda progress: None) == "failed"
    assert state_of(job) == "failed"
    assert "No space left on device" in error_of(job)
    assert "\n" not in error_of(job)
