"""The average of the last epochs' weights is validated and saved; the rest of the training does not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cifar.callbacks import SWAWeightAveraging

X = torch.linspace(-1, 1, 12)[:, None]
BATCHES = DataLoader(TensorDataset(X, 3 * X + 1), batch_size=4)  # three steps an epoch


class Line(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(1, 1)
        self.validated: list[Tensor] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return nn.functional.mse_loss(self.layer(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        if batch_idx == 0:
            self.validated.append(self.layer.weight.detach().clone())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return {
            "optimizer": optimizer,
            "lr_scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch),
        }


class Trace(pl.Callback):
    """The weights that train, at the end of each epoch, and the learning rate of each step."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.weights.append(pl_module.layer.weight.detach().clone())


def fit(folder: Path, *callbacks: Any, ckpt_path: Path | None = None, **kwargs: Any) -> Line:
    trainer = pl.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[*callbacks, ModelCheckpoint(folder, "last", enable_version_counter=False)],
        **({"max_epochs": 8} | kwargs),
    )
    module = Line()
    trainer.fit(module, BATCHES, BATCHES, ckpt_path=ckpt_path, weights_only=True)
    return module


pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on plain loaders and full folders


def test_the_average_is_validated_and_saved(tmp_path: Path) -> None:
    trace = Trace()
    module = fit(tmp_path, trace, SWAWeightAveraging(start=0.5, lr=0.05))
    average = torch.stack(trace.weights[4:]).mean(0)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    torch.testing.assert_close(saved["state_dict"]["layer.weight"], average)
    torch.testing.assert_close(module.layer.weight.detach(), average)
    for epoch in range(8):
        seen = torch.stack(trace.weights[min(4, epoch) : epoch + 1]).mean(0)
        torch.testing.assert_close(module.validated[epoch], seen)
    assert (saved["epoch"], saved["global_step"]) == (7, 24)
    assert trace.rates == pytest.approx([0.1 * 0.9 ** (i // 3) for i in range(12)] + [0.05] * 12)


def test_without_a_rate_of_its_own_the_schedule_stays(tmp_path: Path) -> None:
    alone, averaged = Trace(), Trace()
    fit(tmp_path, alone)
    fit(tmp_path, averaged, SWAWeightAveraging(lr=None))
    assert averaged.rates == alone.rates
    for one, other in zip(alone.weights, averaged.weights, strict=True):
        assert torch.equal(one, other), "the training goes on with its own weights"


def test_a_resumed_training_ends_with_the_same_average(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", SWAWeightAveraging(start=0.5))

    class Stop(pl.Callback):
        def __init__(self, epoch: int) -> None:
            self.epoch = epoch

        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
            trainer.should_stop = trainer.current_epoch == self.epoch

    for epoch in (1, 5):  # before averaging begins, and in it
        folder = tmp_path / str(epoch)
        fit(folder, SWAWeightAveraging(start=0.5), Stop(epoch))
        resumed = fit(folder, SWAWeightAveraging(start=0.5), ckpt_path=folder / "last.ckpt")
        torch.testing.assert_close(resumed.layer.weight, whole.layer.weight)


def test_a_limit_in_steps(tmp_path: Path) -> None:
    trace = Trace()
    module = fit(tmp_path, trace, SWAWeightAveraging(start=0.5), max_epochs=-1, max_steps=10)
    assert trace.rates[5:] == [0.01] * 5
    assert torch.equal(module.layer.weight, torch.load(tmp_path / "last.ckpt")["state_dict"]["layer.weight"])


@pytest.mark.parametrize(("settings", "message"), [({"start": 1.0}, r"start \(=1.0\)"), ({"lr": 0.0}, r"lr \(=0.0\)")])
def test_values_out_of_range(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SWAWeightAveraging(**settings)  # type: ignore[arg-type]


def test_an_end_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a limit"):
        fit(tmp_path, SWAWeightAveraging(), max_epochs=-1)
