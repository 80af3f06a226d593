"""Equal runs are bit-identical. (For batch sizes and ranks see tests/data/test_batches.py.)"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

WORDS = """fit --model LeNet --model.dropout 0.2 --model.mixup 0.3 --data SyntheticDataModule --data.num_train 96
--data.num_val 32 --data.batch_size 32 --trainer.max_epochs 2 --trainer.enable_progress_bar false
--trainer.accelerator cpu --run_dir""".split()  # noqa: SIM905


def repeat(server: Any, folder: Path, count: int) -> None:
    ends = set()
    for i in range(count):
        run = folder / str(i)
        answer = server.run(run, [*WORDS, str(run)])
        assert answer["codes"] == [0], answer["said"]
        weights = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        ends.add(hashlib.sha256(b"".join(value.numpy().tobytes() for value in weights.values())).hexdigest())
    print(f"{count} equal runs, {len(ends)} different ends")  # noqa: T201
    assert len(ends) == 1


def test_three_runs(server: Any, tmp_path: Path) -> None:
    repeat(server, tmp_path, 3)


@pytest.mark.slow
def test_ten_runs(server: Any, tmp_path: Path, faults: Callable[[int], int]) -> None:
    repeat(server, tmp_path, faults(10))
