"""A full or read-only disk: one clear line, the last state is kept, and no partial file is left."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lightning_cifar import cli
from lightning_cifar.checkpoints.io import VerifiedCheckpointIO
from lightning_cifar.files.atomic import write_atomically
from lightning_cifar.files.checksums import read_verified
from lightning_cifar.models import LeNet
from lightning_cifar.runs.disk_full import silent_writers


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    args = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(args, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk, and not everywhere")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_checkpoint_that_does_not_fit(small_disk: Path) -> None:
    path = small_disk / "resume.ckpt"
    io = VerifiedCheckpointIO()
    io.save_checkpoint({"state_dict": {"w": torch.ones(50_000)}}, path)
    before = read_verified(path)
    with pytest.raises(OSError, match=r"could not write .*resume\.ckpt: No space left on device"):
        io.save_checkpoint({"state_dict": {"w": torch.ones(250_000)}}, path)
    assert read_verified(path) == before
    assert files(small_disk) == {"resume.ckpt", "resume.ckpt.sha256"}
    with pytest.raises(OSError, match="No space left on device"):
        write_atomically(small_disk / "picture.png", bytes(2 << 20))
    assert files(small_disk) == {"resume.ckpt", "resume.ckpt.sha256"}


RUN = """fit --model LeNet --data SyntheticDataModule --data.num_train 64 --data.num_val 32 --trainer.max_epochs 4
    --trainer.enable_progress_bar false --trainer.accelerator cpu --run_dir""".split()  # noqa: SIM905


def test_a_run_on_a_disk_that_becomes_full(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = threading.excepthook, sys.unraisablehook
    assert cli.main([*RUN, str(small_disk / "run")]) == 2
    captured = capsys.readouterr().err
    said = [line for line in captured.splitlines() if "error" in line.lower()]
    assert len(said) == 1
    assert f"error: no space is left in {small_disk / 'run'}: free some, then " in said[0]
    assert "Traceback" not in captured
    assert (threading.excepthook, sys.unraisablehook) == before
    assert not list(small_disk.rglob("*.part"))
    for path in small_disk.rglob("*.ckpt"):
        read_verified(path)


def test_the_message_states_how_to_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    step = LeNet.training_step

    def training_step(self: LeNet, *args: object, **kwargs: object) -> object:
        if self.trainer.current_epoch < 2:
            return step(self, *args, **kwargs)
        thread = threading.Thread(target=full)  # as in TensorBoard
        thread.start()
        thread.join()
        return full()

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(LeNet, "training_step", training_step)
        assert cli.main([*RUN, "run"]) == 2
    said = capfd.readouterr().err
    advice = "lightning-cifar fit --resume run"
    last = f"lightning-cifar: error: no space is left in run: free some, then continue with {advice}"
    assert said.splitlines()[-1] == last
    assert "Traceback" not in said
    assert cli.main(advice.split()[1:]) == 0
    assert (folder / "result.json").is_file()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_other_errors_of_threads_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: messages.append(args.exc_value))

    def fail(error: Exception) -> None:
        raise error

    other = OSError(errno.EACCES, "not yours")
    with silent_writers():
        for error in (OSError(errno.ENOSPC, "full"), other):
            thread = threading.Thread(target=fail, args=(error,))
            thread.start()
            thread.join()
    assert messages == [other]


def test_read_only(small_disk: Path) -> None:
    path = small_disk / "a.ckpt"
    io = VerifiedCheckpointIO()
    io.save_checkpoint({"state_dict": {}}, path)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OSError, match=r"could not write .*: Read-only file system"):
        io.save_checkpoint({"state_dict": {"w": torch.ones(3)}}, path)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert io.load_checkpoint(path) == {"state_dict": {}}
    assert files(small_disk) == {"a.ckpt", "a.ckpt.sha256"}
