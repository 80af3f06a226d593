"""Regularisation: mixed labels, decay groups, dropout, stochastic depth; and Muon."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from shared import quiet_trainer
from torch import nn

from lightning_cifar.data import SyntheticDataModule
from lightning_cifar.models import DilatedNet, LeNet, ResNetCIFAR
from lightning_cifar.models.optimizers import MuonAdamW


def fit(model: pl.LightningModule, tmp_path: Path, **kwargs: Any) -> pl.Trainer:
    trainer = quiet_trainer(default_root_dir=tmp_path, **{"max_epochs": 1, **kwargs})
    trainer.fit(model, SyntheticDataModule(num_train=96, num_val=20, num_test=10, batch_size=32, seed=0))
    return trainer


@pytest.mark.parametrize("settings", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixup_and_cutmix_mix_labels(settings: dict[str, Any], tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    class Note(LeNet):
        def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            seen.append(labels)
            return super().loss(logits, labels)

    fit(Note(**settings), tmp_path)
    assert len(seen) == 3
    for labels in seen:
        assert labels.shape == (32, 10)
        torch.testing.assert_close(labels.sum(1), torch.ones(32))
    assert any(((labels > 0).sum(1) == 2).any() for labels in seen)


def test_evaluation_has_no_mixup_or_label_smoothing() -> None:
    model = LeNet(mixup=0.5, label_smoothing=0.3).eval()
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    model.log = lambda *args, **kwargs: None  # type: ignore[method-assign,assignment]
    output = model.validation_step((images, labels), 0)
    torch.testing.assert_close(output["loss"], F.cross_entropy(model(images), labels))


def test_label_smoothing_equals_torch() -> None:
    logits, labels = torch.randn(6, 10), torch.arange(6)
    smoothed = LeNet(label_smoothing=0.2).loss(logits, labels)
    target = F.one_hot(labels, 10) * 0.8 + 0.02
    torch.testing.assert_close(smoothed, -(target * logits.log_softmax(1)).sum(1).mean())


def test_hinge_loss() -> None:
    logits, labels = torch.tensor([[2.0, 1.5, 0.0]]), torch.tensor([0])
    assert LeNet(loss="multi_margin", num_classes=3).loss(logits, labels).item() == pytest.approx(0.5 / 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixup": 0.2, "loss": "multi_margin"}, r"mixup \(=0.2\) needs loss=cross_entropy, not 'multi_margin'"),
        ({"cutmix": 1.0, "loss": "multi_margin"}, r"cutmix \(=1.0\) needs loss=cross_entropy"),
        ({"label_smoothing": 0.1, "loss": "multi_margin"}, r"label_smoothing \(=0.1\) needs loss=cross_entropy"),
        ({"mixup": -1.0}, r"mixup \(=-1.0\)"),
        ({"dropout": 1.0}, r"dropout \(=1.0\)"),
    ],
)
def test_invalid_regularisation_raises(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LeNet(**settings)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_weight_decay_can_exclude_norms_and_biases(optimizer: Any, tmp_path: Path) -> None:
    model = DilatedNet(optimizer=optimizer, weight_decay=0.1, decay_norm_and_bias=False, lr=1e-3)
    groups = model.make_optimizer().param_groups
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            spared = isinstance(module, nn.BatchNorm2d) or name == "bias"
            assert decay[id(parameter)] == (0.0 if spared else 0.1)
    assert len(decay) == len(list(model.parameters()))


def test_the_schedule_preserves_ratios_between_groups(tmp_path: Path) -> None:
    ratios = []

    class TwoRates(LeNet):
        def make_optimizer(self) -> torch.optim.Optimizer:
            first, *rest = self.parameters()
            return torch.optim.SGD([{"params": [first], "lr": 0.01}, {"params": rest, "lr": 0.1}])

        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            first, rest = (group["lr"] for group in optimizer.param_groups)
            ratios.append(rest / first)

    fit(TwoRates(schedule="cosine", final_lr=0.1), tmp_path, max_epochs=2)
    assert ratios == pytest.approx([10.0] * 6)


def test_dropout_and_batch_norm_are_optional() -> None:
    kinds = [type(module) for module in DilatedNet(batch_norm=False, dropout=0.0).modules()]
    assert nn.BatchNorm2d not in kinds
    assert nn.Dropout2d not in kinds
    assert [module.p for module in DilatedNet("191k", dropout=0.3).modules() if isinstance(module, nn.Dropout2d)] == [
        0.3
    ] * 2
    assert [module.p for module in LeNet(dropout=0.4).modules() if isinstance(module, nn.Dropout)] == [0.4] * 2
    assert not [module for module in LeNet().modules() if isinstance(module, nn.Dropout)]


@pytest.mark.parametrize(("depth", "count"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)])
def test_number_of_parameters_of_residual_networks(depth: Any, count: int) -> None:
    assert sum(parameter.numel() for parameter in ResNetCIFAR(depth).parameters()) == count


def test_stochastic_depth_increases_with_depth_and_is_off_in_evaluation_mode() -> None:
    model = ResNetCIFAR(20, stochastic_depth=0.9)
    rates = [module.drop for module in model.modules() if hasattr(module, "drop")]
    assert rates == pytest.approx([0.1 * i for i in range(1, 10)])
    images = torch.randn(4, 3, 32, 32)
    torch.manual_seed(0)
    model.train()
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_muon_equals_torchs_muon_on_matrices() -> None:
    torch.manual_seed(0)
    weight, bias = nn.Parameter(torch.randn(6, 4, 3, 3)), nn.Parameter(torch.randn(6))
    flat, vector = nn.Parameter(weight.detach().flatten(1).clone()), nn.Parameter(bias.detach().clone())
    ours = MuonAdamW([{"params": [weight, bias]}], lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.1)
    muon = torch.optim.Muon(
        [flat], lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW([vector], lr=0.02, weight_decay=0.1)
    for step in range(3):
        gradient = torch.randn(6, 4, 3, 3)
        weight.grad, flat.grad = gradient, gradient.flatten(1)
        bias.grad, vector.grad = torch.full((6,), float(step)), torch.full((6,), float(step))
        ours.step()
        muon.step()
        adamw.step()
    torch.testing.assert_close(weight.flatten(1), flat)
    torch.testing.assert_close(bias, vector)


def flat_weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_muon_steps_on_grouped_convolutions_and_batch_norms() -> None:
    model = DilatedNet(optimizer="muon", lr=0.02)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    F.cross_entropy(model(torch.randn(8, 3, 32, 32)), torch.arange(8)).backward()  # type: ignore[no-untyped-call]
    model.make_optimizer().step()
    assert torch.isfinite(flat_weights(model)).all()
    assert not any(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_a_resumed_run_with_muon_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"optimizer": "muon", "lr": 0.02, "schedule": "linear"}
    pl.seed_everything(0)
    unbroken = LeNet(**settings)
    fit(unbroken, tmp_path, max_epochs=2)

    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            trainer.should_stop = True

    pl.seed_everything(0)
    half = fit(LeNet(**settings), tmp_path, max_epochs=2, callbacks=[Stop()])
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed = LeNet(**settings)
    trainer = quiet_trainer(max_epochs=2)
    data = SyntheticDataModule(num_train=96, num_val=20, num_test=10, batch_size=32, seed=0)
    trainer.fit(resumed, data, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    torch.testing.assert_close(flat_weights(resumed), flat_weights(unbroken), atol=1e-6, rtol=1e-5)
