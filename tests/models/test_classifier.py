"""Training settings, metrics and checkpoints of classifiers."""

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from shared import quiet_trainer

from lightning_cifar.data import SyntheticDataModule
from lightning_cifar.models import DilatedNet, LeNet
from lightning_cifar.schedules import lr_factor


def trainer(tmp_path: Path, **kwargs: Any) -> pl.Trainer:
    return quiet_trainer(**{"default_root_dir": tmp_path, "num_sanity_val_steps": 0, **kwargs})


def small_data(**kwargs: Any) -> SyntheticDataModule:
    return SyntheticDataModule(
        **{"num_train": 160, "num_val": 50, "num_test": 70, "batch_size": 16, "seed": 0, **kwargs}
    )


class LearningRates(pl.Callback):
    """Records the learning rate of each optimizer step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        self.values.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        ({"max_epochs": 2}, 20),
        ({"max_epochs": -1, "max_steps": 13}, 13),
        ({"max_epochs": 3, "accumulate_grad_batches": 4}, 9),
        ({"max_epochs": 4, "callbacks": [GradientAccumulationScheduler({0: 1, 2: 4})]}, 2 * 10 + 2 * 3),
        ({"max_epochs": 4, "max_steps": 22, "callbacks": [GradientAccumulationScheduler({2: 4})]}, 22),
    ],
)
def test_the_schedule_spans_exactly_the_steps_of_the_run(tmp_path: Path, limits: dict[str, Any], steps: int) -> None:
    rates = LearningRates()
    model = LeNet(lr=0.2, schedule="cosine", warmup=0.3)
    callbacks = [rates, *limits.pop("callbacks", [])]
    trainer(tmp_path, callbacks=callbacks, limit_val_batches=0, **limits).fit(model, small_data())
    expected = [0.2 * lr_factor(step / steps, schedule="cosine", warmup=0.3) for step in range(steps)]
    assert rates.values == pytest.approx(expected, abs=1e-12)


def test_the_schedule_continues_after_a_resume(tmp_path: Path) -> None:
    unbroken, first, second = LearningRates(), LearningRates(), LearningRates()
    settings: dict[str, Any] = {"lr": 0.2, "schedule": "linear"}
    trainer(tmp_path, callbacks=[unbroken], max_epochs=4).fit(LeNet(**settings), small_data())

    class StopAfterTwo(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            trainer.should_stop = trainer.current_epoch == 1

    stopped = trainer(tmp_path, callbacks=[first, StopAfterTwo()], max_epochs=4)
    stopped.fit(LeNet(**settings), small_data())
    stopped.save_checkpoint(tmp_path / "half.ckpt")
    resumed = trainer(tmp_path, callbacks=[second], max_epochs=4)
    resumed.fit(LeNet(**settings), small_data(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert first.values + second.values == pytest.approx(unbroken.values, abs=1e-12)


@pytest.mark.parametrize("model", [LeNet("tanh", "average", [30], lr=0.3, schedule="step"), DilatedNet("191k", lr=0.2)])
def test_a_checkpoint_restores_the_model_with_weights_only(tmp_path: Path, model: Any) -> None:
    run = trainer(tmp_path, max_steps=2, limit_val_batches=0)
    run.fit(model, small_data())
    run.save_checkpoint(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert content["class_path"].endswith(type(model).__name__)
    loaded = type(model).load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert dict(loaded.hparams) == dict(model.hparams)
    images = torch.randn(3, 3, 32, 32)
    assert torch.equal(model.eval()(images), loaded.eval()(images))


def test_metrics_are_means_over_the_whole_split(tmp_path: Path) -> None:
    model, data = LeNet(), small_data(eval_batch_size=32)  # 70 test images: the last batch is smaller
    run = trainer(tmp_path)
    metrics = run.test(model, data, verbose=False)[0]
    batches = list(data.test_dataloader())
    with torch.no_grad():
        logits = torch.cat([model.eval()(images) for images, _ in batches])
    labels = torch.cat([labels for _, labels in batches])
    assert metrics["test/loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert metrics["test/accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item(), abs=1e-7)


def test_training_loss_is_the_mean_over_the_epoch(tmp_path: Path) -> None:
    losses: list[tuple[float, int]] = []

    class Note(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            losses.append((float(outputs["loss"]), len(batch[1])))

    run = trainer(tmp_path, max_epochs=1, callbacks=[Note()], limit_val_batches=0)
    run.fit(LeNet(), small_data(num_train=150))
    mean = sum(loss * count for loss, count in losses) / 150
    assert float(run.callback_metrics["train/loss"]) == pytest.approx(mean, rel=1e-5)


def test_equal_runs_are_equal(tmp_path: Path) -> None:
    def weights() -> torch.Tensor:
        pl.seed_everything(1)
        model = LeNet(lr=0.1)
        trainer(tmp_path, max_epochs=1).fit(model, small_data(seed=None))
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    assert torch.equal(weights(), weights())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sgd", torch.optim.SGD),
        ("adam", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
        ("rmsprop", torch.optim.RMSprop),
    ],
)
def test_the_optimizer_is_that_of_torch(name: Any, kind: type) -> None:
    optimizer = LeNet(optimizer=name, lr=0.03, weight_decay=0.1, momentum=0.7, nesterov=True).make_optimizer()
    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["lr"] == 0.03
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
    if name in ("sgd", "rmsprop"):
        assert optimizer.param_groups[0]["momentum"] == 0.7


def test_barebones_trains(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning warns that nothing is logged
        pl.Trainer(accelerator="cpu", barebones=True, max_epochs=1, default_root_dir=tmp_path).fit(
            LeNet(), small_data()
        )


@pytest.mark.parametrize("batches", [1, 3])
def test_overfitting_repeats_the_same_batches(tmp_path: Path, batches: int) -> None:
    seen: list[list[int]] = []

    class Labels(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            seen.append([])

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            seen[-1] += batch[1].tolist()

    data = small_data()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, callbacks=[Labels()], overfit_batches=batches, max_epochs=3).fit(LeNet(), data)
    assert len(seen[0]) == 16 * batches
    assert seen[0] == seen[1] == seen[2]
    assert not [each for each in caught if "shuffling" in str(each.message)]  # it is off already
    usual = small_data()
    assert usual.train_dataloader().order().tolist() != list(range(160))
    assert len(usual.train_dataloader().dataset) == 160
