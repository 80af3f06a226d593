"""A long training with every callback needs no more memory, and no more open files, than a short one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lightning_cifar import callbacks
from lightning_cifar.checkpoints.io import VerifiedCheckpointIO
from lightning_cifar.data import SyntheticDataModule
from lightning_cifar.models import LeNet

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
    pytest.mark.filterwarnings(
        "ignore:.*does not have many workers.*",
        "ignore:.*smaller than the logging interval.*",
        "ignore:Experiment logs directory.*",
    ),
]


class Meter(pl.Callback):
    """Resident memory in MB and open files at the end of chosen epochs."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.memory: list[float] = []
        self.files: list[int] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
            self.files.append(len(os.listdir("/proc/self/fd")))


def soak(folder: Path, epochs: int) -> Meter:
    meter = Meter(max(1, epochs // 20))
    watchers = [
        callbacks.ExactResume(),
        callbacks.ActivationSnapshots(every_n_steps=20),
        callbacks.ClassAccuracy(10),
        callbacks.FeatureMaps(every_n_epochs=10),
        callbacks.FilterImages(every_n_epochs=10),
        callbacks.LRRangeFinder(num_steps=10, num_sweeps=1, milestones=[1, 2]),
        callbacks.LayerTable(),
        callbacks.LossCurves(every_n_epochs=10, max_time_share=1.0),
        callbacks.NonFiniteGuard(),
        callbacks.OcclusionMaps(images=(0,), window=16, stride=8, every_n_epochs=10, limit=None),
        callbacks.PredictionGrid(2, 4, every_n_epochs=10),
        callbacks.SampleGrid(2, 4),
        callbacks.Throughput(),
        callbacks.WeightGIF(every_n_epochs=20),
    ]
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=[TensorBoardLogger(str(folder), "", ""), CSVLogger(str(folder), "", "")],
        callbacks=[*watchers, meter],
        plugins=[VerifiedCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    data = SyntheticDataModule(num_train=64, num_val=32, num_test=32, batch_size=32)
    trainer.fit(LeNet(lr=0.001), datamodule=data)
    return meter


def test_thirty_epochs_leave_no_file_open(tmp_path: Path) -> None:
    meter = soak(tmp_path, 30)
    assert meter.files[-1] <= meter.files[len(meter.files) // 3]
    assert meter.memory[-1] < 1.15 * meter.memory[len(meter.memory) // 3]


@pytest.mark.slow
@pytest.mark.timeout(4000)
def test_a_thousand_epochs(tmp_path: Path, faults: Callable[[int], int]) -> None:
    meter = soak(tmp_path, max(100, faults(1000)))
    warm = meter.memory[len(meter.memory) // 4]
    print(f"MB: {[round(each) for each in meter.memory]}, files: {meter.files}")  # noqa: T201
    print(f"memory {meter.memory[-1] / warm - 1:+.2%} after a quarter, files {meter.files[-1] - meter.files[0]:+d}")  # noqa: T201
    assert meter.files[-1] <= meter.files[0]
    assert meter.memory[-1] < 1.02 * warm
