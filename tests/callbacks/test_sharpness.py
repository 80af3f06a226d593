"""Measurements are those of the full Hessian, at the right steps, also in a resumed training."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cifar.analysis.sharpness import flatten, unflatten
from lightning_cifar.callbacks import ExactResume, Sharpness

pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:The .*dataloader.* does not have many workers"),
]

MakeTrainer = Callable[..., Trainer]


class Net(LightningModule):
    """Four steps per epoch."""

    def __init__(self, optimizer: str = "SGD", **settings: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 2))
        self.optimizer, self.settings = optimizer, settings

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return getattr(torch.optim, self.optimizer)(self.parameters(), lr=0.05, **self.settings)

    def train_dataloader(self) -> Any:
        inputs = torch.linspace(-1, 1, 32 * 3).reshape(-1, 3).sin()
        return DataLoader(TensorDataset(inputs, torch.arange(32) % 2), batch_size=8)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "sharpness.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_the_last_value_is_the_eigenvalue_of_the_full_hessian(
    optimizer: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """On the first samples of the training, with their batch statistics and without dropout."""
    net = Net(optimizer)
    trainer = make_trainer(Sharpness(num_samples=6, tolerance=1e-4, max_products=300), max_epochs=3)
    trainer.fit(net)
    inputs, labels = (each[:6] for each in next(iter(net.train_dataloader())))
    parameters = dict(net.named_parameters())
    net.train()
    net.net[3].eval()

    def loss(vector: Tensor) -> Tensor:
        held = dict(zip(parameters, unflatten(vector, list(parameters.values())), strict=True))
        return nn.functional.cross_entropy(torch.func.functional_call(net, held, (inputs,)), labels)

    hessian = torch.autograd.functional.hessian(loss, flatten([each.detach() for each in parameters.values()]))
    limit = 2 / 0.05
    if optimizer == "Adam":
        state = trainer.optimizers[0].state
        root = flatten([(state[each]["exp_avg_sq"] / (1 - 0.999**12)).sqrt() + 1e-8 for each in parameters.values()])
        scale = ((1 - 0.9**12) * root) ** -0.5
        hessian, limit = scale[:, None] * hessian * scale, 2 * 1.9 / 0.1 / 0.05
    row = rows_of(tmp_path)[-1]
    assert float(row["sharpness"]) == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-3)
    assert float(row["limit"]) == pytest.approx(limit)
    assert (tmp_path / "pictures" / "sharpness.png").is_file()


def test_measurements_are_after_the_first_each_nth_and_the_last_step(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(Sharpness(every_n_steps=5), max_epochs=3, logger=CSVLogger(tmp_path, "", ""))
    trainer.fit(Net())
    rows = rows_of(Path(trainer.loggers[0].log_dir))  # type: ignore[arg-type]
    assert [(row["step"], row["epoch"]) for row in rows] == [("1", "0.25"), ("5", "1.25"), ("10", "2.5"), ("12", "3")]
    assert float(trainer.callback_metrics["train/sharpness"]) == pytest.approx(float(rows[-1]["sharpness"]), rel=1e-6)
    with (Path(trainer.loggers[0].log_dir) / "metrics.csv").open() as file:  # type: ignore[arg-type]
        logged = [row["train/sharpness"] for row in csv.DictReader(file) if row["train/sharpness"]]
    assert [float(value) for value in logged] == pytest.approx([float(rows[i]["sharpness"]) for i in (0, 1, 3)])


def test_a_resumed_training_has_the_same_rows(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    make_trainer(ExactResume(), Sharpness(every_n_steps=3), max_epochs=3).fit(Net())
    whole = rows_of(tmp_path)

    make_trainer(ExactResume(), Sharpness(every_n_steps=3), max_epochs=2, default_root_dir=tmp_path / "part").fit(Net())
    trainer = make_trainer(ExactResume(), Sharpness(every_n_steps=3), max_epochs=3)
    trainer.fit(Net(), ckpt_path=tmp_path / "part" / "checkpoints" / "resume.ckpt", weights_only=True)
    rows = rows_of(tmp_path)
    assert [row for row in rows if row["step"] != "12"] == [row for row in whole if row["step"] != "12"]
    assert rows[-1]["step"] == "12"


class NoSecondDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class Once(Net):
    def forward(self, x: Tensor) -> Tensor:
        return NoSecondDerivative.apply(self.net(x))  # type: ignore[no-untyped-call,no-any-return]


class Two(Net):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        pass


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (Once, "second derivative of Once cannot be computed: NoSecond.* is a custom function"),
        (Two, "automatic optimization"),
    ],
)
def test_a_module_that_does_not_fit_is_reported_once(
    module: type[Net], match: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match=match):
        make_trainer(Sharpness(every_n_steps=1)).fit(module())
    assert not (tmp_path / "sharpness.csv").exists()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"every_n_steps": 0}, r"every_n_steps \(=0\) must be at least 1"),
        ({"num_samples": 0}, r"num_samples \(=0\)"),
        ({"tolerance": 1}, r"tolerance \(=1\) must be above 0 and below 1"),
        ({"max_products": 1}, r"max_products \(=1\) must be at least 2"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Sharpness(**settings)
