"""An interrupted and resumed run is bit-identical to an uninterrupted one."""

import csv
import random
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cifar.callbacks.exact_resume import ExactResume, _restore_table
from lightning_cifar.callbacks.random_states import random_state, set_random_state

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*",
    "ignore:.*smaller than the logging interval.*",
    "ignore:Experiment logs directory.*",
    "ignore:Checkpoint directory.*",
    "ignore:.*fork.*:DeprecationWarning",
)

EPOCHS, BATCHES = 4, 8


class Net(pl.LightningModule):
    """Draws from all global generators."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        noise = random.random() + np.random.rand()  # noqa: NPY002
        loss = nn.functional.cross_entropy(self.network(batch[0] + 0.1 * noise), batch[1])
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        self.log("val/loss", nn.functional.cross_entropy(self.network(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)]


class Power(pl.Callback):
    """Interrupts the run at a given batch, or after a given hook."""

    def __init__(self, at: int, hook: str = "on_train_batch_end") -> None:
        self.at, self.hook = at, hook

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object, **kwargs: object) -> None:
        self._maybe(trainer, "on_train_batch_end")

    def on_validation_end(self, trainer: pl.Trainer, *args: object, **kwargs: object) -> None:
        self._maybe(trainer, "on_validation_end")

    def on_train_epoch_end(self, trainer: pl.Trainer, *args: object, **kwargs: object) -> None:
        self._maybe(trainer, "on_train_epoch_end")

    def _maybe(self, trainer: pl.Trainer, hook: str) -> None:
        if hook == self.hook and trainer.fit_loop.total_batch_idx + 1 >= self.at:
            raise InterruptedError


def fit(folder: Path, *callbacks: pl.Callback, resume: bool = False, workers: int = 0, **trainer: Any) -> pl.Trainer:
    pl.seed_everything(7, verbose=False)
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(8 * BATCHES, 6, generator=generator), torch.arange(8 * BATCHES) % 3
    data = TensorDataset(images, labels)
    loaders = (
        DataLoader(data, batch_size=8, shuffle=True, num_workers=workers),
        DataLoader(data, batch_size=32),
    )
    model = Net()
    if resume:
        torch.rand(17)  # a new process is somewhere else in its random numbers
    the = pl.Trainer(
        max_epochs=EPOCHS,
        logger=CSVLogger(folder, "", ""),
        callbacks=[ExactResume(), ModelCheckpoint(folder / "checkpoints", "best", monitor="val/loss"), *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        accelerator="cpu",
        **trainer,
    )
    the.fit(model, *loaders, ckpt_path=folder / "checkpoints/resume.ckpt" if resume else None, weights_only=True)
    return the


def weights(trainer: pl.Trainer) -> dict[str, Tensor]:
    return trainer.model.state_dict()  # type: ignore[union-attr]


def broken(folder: Path, *powers: Power, **settings: Any) -> pl.Trainer:
    """Interrupt and resume once for each power, then run to the end."""
    for i, power in enumerate(powers):
        with pytest.raises(InterruptedError):
            fit(folder, power, resume=i > 0, **settings)
    return fit(folder, resume=True, **settings)


@pytest.mark.parametrize(("workers", "accumulate"), [(0, 4), (2, 1)])
def test_bit_identical(tmp_path: Path, workers: int, accumulate: int) -> None:
    settings: Any = {"workers": workers, "accumulate_grad_batches": accumulate}
    unbroken = fit(tmp_path / "a", **settings)
    again = broken(tmp_path / "b", Power(3), Power(2 * BATCHES + 3), **settings)
    for name, value in weights(unbroken).items():
        assert torch.equal(value, weights(again)[name]), name
    assert unbroken.global_step == again.global_step == EPOCHS * BATCHES // accumulate
    assert (tmp_path / "a/metrics.csv").read_bytes() == (tmp_path / "b/metrics.csv").read_bytes()


@pytest.mark.parametrize(
    ("hook", "at"),
    [("on_validation_end", BATCHES), ("on_train_epoch_end", 2 * BATCHES), ("on_train_batch_end", BATCHES)],
)
def test_bit_identical_when_broken_at_the_end_of_an_epoch(tmp_path: Path, hook: str, at: int) -> None:
    unbroken = fit(tmp_path / "a")
    again = broken(tmp_path / "b", Power(at, hook))
    for name, value in weights(unbroken).items():
        assert torch.equal(value, weights(again)[name]), name
    assert (tmp_path / "a/metrics.csv").read_bytes() == (tmp_path / "b/metrics.csv").read_bytes()


def test_a_table_that_was_lost_comes_back(tmp_path: Path) -> None:
    """Lightning's logger clears the table before it writes it with a new column, and may be killed in between."""
    fit(tmp_path / "a")
    with pytest.raises(InterruptedError):
        fit(tmp_path / "b", Power(2 * BATCHES + 3))
    (tmp_path / "b/metrics.csv").write_bytes(b"")
    fit(tmp_path / "b", resume=True)
    assert (tmp_path / "a/metrics.csv").read_bytes() == (tmp_path / "b/metrics.csv").read_bytes()


def test_names_of_metrics_may_contain_line_breaks(tmp_path: Path) -> None:
    names = ["a\nb", "a\rb", "a\r\nb", "a\x0bb", "a\x0cb", "a\x85b", "a\u2028b", 'a",b', "a\x1cb"]
    logger = CSVLogger(tmp_path, "", "")
    logger.log_metrics({"first": 1.0} | dict.fromkeys(names, 2.0), step=0)
    logger.save()
    text = (tmp_path / "metrics.csv").read_bytes().decode()
    columns = list(logger.experiment.metrics_keys)
    assert {*names} < {*columns}
    again = CSVLogger(tmp_path, "", "")
    with pytest.warns(UserWarning, match="directory .* exists and is not empty|.*overwritten.*"):
        _restore_table(again, text)
    assert again.experiment.metrics_keys == columns
    again.log_metrics({"first": 3.0} | dict.fromkeys(names, 4.0), step=1)
    again.save()
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["first"] for row in rows] == ["1.0", "3.0"]
    assert [{row[name] for name in names} for row in rows] == [{"2.0"}, {"4.0"}]


def test_the_test_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the random states, the resumed run has other results."""
    unbroken = fit(tmp_path / "a")
    monkeypatch.setattr("lightning_cifar.callbacks.exact_resume.set_random_state", lambda _: None)
    again = broken(tmp_path / "b", Power(2 * BATCHES + 3))
    assert any(not torch.equal(value, weights(again)[name]) for name, value in weights(unbroken).items())


def test_random_state_round_trip() -> None:
    state = random_state()
    first = (torch.rand(2).tolist(), random.random(), np.random.rand())  # noqa: NPY002
    set_random_state(state)
    assert first == (torch.rand(2).tolist(), random.random(), np.random.rand())  # noqa: NPY002


def test_period() -> None:
    with pytest.raises(ValueError, match=r"every_n_epochs \(=0\) must be at least 1"):
        ExactResume(0)
