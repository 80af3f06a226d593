"""Files with checksums: every change is detected."""

import hashlib
import io
import os
import random
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch

from lightning_cifar.checkpoints.io import VerifiedCheckpointIO
from lightning_cifar.checkpoints.reading import Checkpoint
from lightning_cifar.errors import UsageError
from lightning_cifar.files import atomic
from lightning_cifar.files import checksums as integrity
from lightning_cifar.files.checksums import (
    DamagedError,
    beside,
    move_verified,
    read_verified,
    remove_verified,
    write_verified,
)


def checkpoint(path: Path, value: float = 1.0) -> Path:
    VerifiedCheckpointIO().save_checkpoint({"state_dict": {"w": torch.full((50,), value)}}, path)
    return path


def test_written_and_read(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "folder" / "a.ckpt")
    assert torch.equal(VerifiedCheckpointIO().load_checkpoint(path)["state_dict"]["w"], torch.ones(50))
    assert beside(path).read_text() == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  a.ckpt\n"
    done = subprocess.run(["sha256sum", "--check", "a.ckpt.sha256"], cwd=path.parent, capture_output=True, check=False)
    assert done.returncode == 0
    VerifiedCheckpointIO().remove_checkpoint(path)
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize("with_digest", [True, False])
def test_mutants_are_detected(tmp_path: Path, with_digest: bool) -> None:
    path = checkpoint(tmp_path / "a.ckpt")
    good = path.read_bytes()
    weights = good.index(torch.ones(50).numpy().tobytes())
    if not with_digest:
        beside(path).unlink()
    read_verified(path)
    draw = random.Random(0)
    # Without a digest, the archive's checksums cover for what is in it, not for the padding between.
    places = range(len(good)) if with_digest else range(weights, weights + 200)
    for _ in range(100):
        mutant = bytearray(good)
        mutant[draw.choice(places)] ^= 1 << draw.randrange(8)
        path.write_bytes(mutant)
        with pytest.raises(DamagedError, match=r"a\.ckpt is damaged"):
            read_verified(path)
    for length in (0, 1, 100, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(UsageError, match=r"a\.ckpt"):
            Checkpoint.read(path)


def test_every_damaged_byte_of_the_checksum_file_is_detected(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.ckpt")
    digest = beside(path).read_bytes()
    for place in range(64):
        for value in (0x00, 0xFF, 0x80, ord(" "), ord("\n")):
            beside(path).write_bytes(digest[:place] + bytes([value]) + digest[place + 1 :])
            with pytest.raises(DamagedError, match=r"a\.ckpt is damaged: .* differs from a\.ckpt\.sha256\."):
                read_verified(path)
    move_verified(path, tmp_path / "b.ckpt")  # what is damaged can still be moved and replaced
    with pytest.raises(DamagedError, match=r"b\.ckpt is damaged"):
        read_verified(tmp_path / "b.ckpt")
    checkpoint(tmp_path / "b.ckpt")
    read_verified(tmp_path / "b.ckpt")


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "large"])
def test_a_digest_that_is_not_a_regular_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = checkpoint(tmp_path / "a.ckpt")
    place = beside(path)
    place.rename(tmp_path / "elsewhere")
    {
        "pipe": lambda: os.mkfifo(place),
        "link": lambda: place.symlink_to("elsewhere"),
        "folder": place.mkdir,
        "large": lambda: place.write_bytes(bytes(1 << 20)),
    }[kind]()
    with pytest.raises(DamagedError, match=r"a\.ckpt\.sha256 cannot be read: it is "):
        read_verified(path)


def test_a_replaced_file_is_detected(tmp_path: Path) -> None:
    a, b = checkpoint(tmp_path / "a.ckpt"), checkpoint(tmp_path / "b.ckpt", 2.0)
    a.write_bytes(b.read_bytes())
    with pytest.raises(UsageError, match=r"a\.ckpt is damaged.* Undamaged in its folder: b\.ckpt\."):
        Checkpoint.read(a)


def test_file_and_checksum_agree_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, moved = tmp_path / "a", tmp_path / "b"
    write, replace = atomic.write_atomically, Path.replace
    seen = []

    def look() -> None:
        seen.extend(read_verified(each) for each in (path, moved) if each.is_file())

    def watched(*args: object, **kwargs: object) -> None:
        write(*args, **kwargs)  # type: ignore[arg-type]
        look()

    def watched_replace(self: Path, to: Path) -> Path:
        result = replace(self, to)
        if to == moved:
            look()
        return result

    monkeypatch.setattr(integrity, "write_atomically", watched)
    monkeypatch.setattr(Path, "replace", watched_replace)
    for content in (b"one", b"two", b"three"):
        write_verified(path, content)
        assert beside(path).read_text() == f"{hashlib.sha256(content).hexdigest()}  a\n"
    move_verified(path, moved)
    write_verified(path, b"four")
    move_verified(path, moved)
    assert set(seen) == {b"one", b"two", b"three", b"four"}
    assert not path.exists()
    assert not beside(path).exists()
    assert len(beside(moved).read_text().splitlines()) == 1


def test_a_full_disk_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_verified(path, b"one")
    write = atomic.write_atomically

    def full(to: Path, content: bytes, *, durable: bool = False) -> None:
        if to == path:
            raise OSError(28, f"could not write {to}: No space left on device")
        write(to, content, durable=durable)

    monkeypatch.setattr(integrity, "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        write_verified(path, b"two")
    assert read_verified(path) == b"one"
    assert len(beside(path).read_text().splitlines()) == 1
    remove_verified(path)
    with pytest.raises(OSError, match="No space left"):
        write_verified(path, b"three")
    assert not list(tmp_path.iterdir())


def test_files_without_checksums_are_returned_unchecked(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"hello")
    assert read_verified(path) == b"hello"
    move_verified(path, tmp_path / "b")
    remove_verified(tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_a_damaged_archive_is_reported(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data", b"0" * 100)
    content = bytearray(buffer.getvalue())
    content[50] ^= 1
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DamagedError, match="the checksum of data in it is wrong"):
        read_verified(tmp_path / "a")
