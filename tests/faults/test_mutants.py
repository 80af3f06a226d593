"""Files with flipped bits, a missing end or the content of another file are refused."""

from __future__ import annotations

import hashlib
import pickle
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_cifar.checkpoints.io import VerifiedCheckpointIO
from lightning_cifar.checkpoints.reading import Checkpoint
from lightning_cifar.data import sources
from lightning_cifar.data.sources import read_cifar10
from lightning_cifar.errors import UsageError
from lightning_cifar.models import LeNet

ROWS = 4


def cifar10(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Write a tiny copy of CIFAR-10 and make it the official one."""
    draw = np.random.default_rng(0)
    folder.mkdir()
    names = [*sources.TRAIN_BATCHES, "test_batch"]
    for name in names:
        pixels = draw.integers(0, 256, (ROWS, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": [0, 1, 2, 9]}, 2))
    classes = [f"class {i}".encode() for i in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": classes}, 2))
    paths = [folder / name for name in (*names, "batches.meta")]
    digests = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in paths}
    monkeypatch.setattr(sources, "OFFICIAL_MD5", digests)
    read_cifar10(folder, rows=ROWS)
    return paths


def checkpoints(folder: Path) -> list[Path]:
    folder.mkdir()
    paths = [folder / name for name in ("best.ckpt", "last.ckpt", "resume.ckpt")]
    for i, path in enumerate(paths):
        torch.manual_seed(i)
        VerifiedCheckpointIO().save_checkpoint({"state_dict": LeNet().state_dict(), "epoch": i}, path)
        Checkpoint.read(path)
    return paths


def mutant(draw: random.Random, content: bytes, others: list[bytes]) -> tuple[str, bytes]:
    kind = draw.choice(["flip", "flip", "truncate", "swap", "zero"])
    if kind == "flip":
        changed = bytearray(content)
        for _ in range(draw.choice([1, 1, 2, 9])):
            changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        return kind, bytes(changed)
    if kind == "truncate":
        return kind, content[: draw.choice([0, 1, len(content) - 1, draw.randrange(len(content))])]
    if kind == "zero":  # a block of the disk that was never written
        start = draw.randrange(len(content))
        return kind, content[:start] + bytes(min(512, len(content) - start)) + content[start + 512 :]
    return kind, draw.choice(others)


def campaign(folder: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    draw = random.Random(0)
    data, saved = cifar10(folder / "data", monkeypatch), checkpoints(folder / "saved")
    originals = {path: path.read_bytes() for path in (*data, *saved)}
    caught: Counter[str] = Counter()
    missed = []
    while caught.total() + len(missed) < count:
        path = draw.choice(data if draw.random() < 0.5 else saved)
        kin = [originals[other] for other in (data if path in data else saved) if other != path]
        kind, content = mutant(draw, originals[path], kin)
        if content == originals[path]:
            continue
        path.write_bytes(content)
        said = ""
        try:
            read_cifar10(folder / "data", rows=ROWS) if path in data else Checkpoint.read(path)
        except (ValueError, UsageError) as error:
            said = str(error)
        if path.name in said and "\n" not in said:
            caught[f"{'data' if path in data else 'checkpoint'} {kind}"] += 1
        else:
            missed.append((path.name, kind, said))
        if path in saved:
            with pytest.raises(UsageError):
                VerifiedCheckpointIO().load_checkpoint(path)
        path.write_bytes(originals[path])
    print(f"{caught.total()} of {count} mutants caught: {dict(caught)}")  # noqa: T201
    assert not missed, missed


def test_a_hundred_mutants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign(tmp_path, monkeypatch, 100)


@pytest.mark.slow
def test_whole_campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: Callable[[int], int]) -> None:
    campaign(tmp_path, monkeypatch, faults(1000))
