"""Regressors: loss, metrics, schedule and resume."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from shared import quiet_trainer

from lightning_cifar.data import NoisyLineDataModule
from lightning_cifar.models import LeNet, MLPRegressor, Regressor


def fit(model: pl.LightningModule, tmp_path: Path, data: NoisyLineDataModule, **kwargs: Any) -> pl.Trainer:
    settings: dict[str, Any] = {"max_epochs": 1, "logger": False, "enable_checkpointing": False, **kwargs}
    trainer = pl.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **settings,
    )
    trainer.fit(model, data)
    return trainer


def test_a_linear_model_converges_to_least_squares(tmp_path: Path) -> None:
    data = NoisyLineDataModule(passes=300)
    model = MLPRegressor([], lr=0.5, momentum=0.0)
    trainer = fit(model, tmp_path, data)
    x, y = data.points("train")
    design = torch.cat([x, torch.ones_like(x)], dim=1)
    best = torch.linalg.lstsq(design, y).solution
    fitted = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    torch.testing.assert_close(fitted, best[:, 0], atol=1e-5, rtol=1e-5)
    x, y = data.points("val")
    error = (y - torch.cat([x, torch.ones_like(x)], dim=1) @ best).square().mean()
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(float(error), rel=1e-4)
    x, y = data.points("test")
    error = (y - torch.cat([x, torch.ones_like(x)], dim=1) @ best).square().mean()
    metrics = trainer.test(model, data, verbose=False)[0]
    assert metrics == {"test/loss": pytest.approx(float(error), rel=1e-4)}


def test_the_training_loss_is_the_mean_over_the_epoch(tmp_path: Path) -> None:
    losses: list[tuple[float, int]] = []

    class Note(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            losses.append((float(outputs["loss"]), len(batch[0])))

    trainer = fit(
        MLPRegressor(), tmp_path, NoisyLineDataModule(batch_size=30, passes=4), callbacks=[Note()], log_every_n_steps=1
    )
    assert [count for _, count in losses] == [30, 20] * 4
    mean = sum(loss * count for loss, count in losses) / 200
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(mean, rel=1e-5)
    assert float(trainer.callback_metrics["train/loss_step"]) == pytest.approx(losses[-1][0])


def test_evaluation_is_without_dropout(tmp_path: Path) -> None:
    data = NoisyLineDataModule(passes=1)
    trainer = fit(model := MLPRegressor(dropout=0.9), tmp_path, data)
    first, second = (trainer.validate(model, data, verbose=False)[0] for _ in range(2))
    assert first == second
    prediction = trainer.predict(model, data)
    assert prediction is not None
    torch.testing.assert_close(prediction[0], model.eval()(data.points("test").x))


def test_different_shapes_raise() -> None:
    model = MLPRegressor()
    with pytest.raises(ValueError, match=r"Outputs \(5, 1\) and targets \(5,\) differ in shape"):
        model.training_loss((torch.zeros(5, 1), torch.zeros(5)))


def test_monitored_metric() -> None:
    assert Regressor.monitor == ("val/loss", "min")
    assert LeNet.monitor == ("val/accuracy", "max")


def test_scheduler_without_a_trainer() -> None:
    model = MLPRegressor(lr=0.4, schedule="linear")
    optimizer = model.make_optimizer()
    scheduler = model.make_scheduler(optimizer, 4)
    lrs = []
    for _ in range(5):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert lrs == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0])
    with pytest.raises(ValueError, match=r"schedule=linear needs a finite number of steps"):
        model.make_scheduler(optimizer, float("inf"))
    MLPRegressor().make_scheduler(optimizer, float("inf"))  # a constant schedule needs no end


def test_settings_override_those_of_a_checkpoint(tmp_path: Path) -> None:
    data = NoisyLineDataModule(passes=4)
    trainer = fit(MLPRegressor(lr=0.1), tmp_path, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    model = MLPRegressor(lr=0.003, weight_decay=0.5)
    resumed = quiet_trainer(max_epochs=2)
    resumed.fit(model, data, ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    group = resumed.optimizers[0].param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.003, 0.5)
