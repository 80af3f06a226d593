"""A disk that is full or read-only: one clear line, the last good state stays, and no part of a file is left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lightning_cifar import cli
from lightning_cifar.artifacts import write_atomically
from lightning_cifar.checkpoint_io import VerifiedCheckpointIO
from lightning_cifar.integrity import read_verified


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
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


@pytest.mark.filterwarnings("ignore:GPU available but not used")
@pytest.mark.filterwarnings("ignore:.*No space left on device")
def test_a_run_on_a_disk_that_becomes_full(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = """fit --model LeNet --data SyntheticDataModule --data.num_train 64 --data.num_val 32 --trainer.max_epochs 4
    --trainer.enable_progress_bar false --trainer.accelerator cpu --run_dir""".split()  # noqa: SIM905
    assert cli.main([*words, str(small_disk / "run")]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "error" in line.lower()]
    assert len(said) == 1
    assert "No space left on device" in said[0]
    assert not list(small_disk.rglob("*.part"))
    for path in small_disk.rglob("*.ckpt"):
        read_verified(path)


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
