"""Fitted curves are the outputs of the networks, and the training does not change."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cifar.callbacks import FitCurves

MakeTrainer = Callable[..., Trainer]


class Points:
    """Batches of a line with noise; their order depends on torch's generator."""

    def __init__(self, size: int = 12, batches: int = 3, seed: int = 0, width: int = 1) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.linspace(-1, 1, size)[:, None].repeat(1, width)
        self.y = self.x + 0.3 * torch.randn(size, width, generator=generator)
        self.batches = batches

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in torch.randperm(len(self.x)).chunk(self.batches):
            yield self.x[chosen], self.y[chosen]


def network(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 16), nn.BatchNorm1d(16), nn.Dropout(dropout), nn.ReLU(), nn.Linear(16, 1))


class ExternalModule(LightningModule):
    def __init__(self, net: nn.Module | None = None) -> None:
        super().__init__()
        self.net = network() if net is None else net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.mse_loss(self(batch[0]).mean(), batch[1].float().mean())

    def validation_step(self, batch: object, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Together(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.members = nn.ModuleDict({"plain": ExternalModule(network()), "dropped": ExternalModule(network(0.5))})

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        for member, optimizer in zip(self.members.values(), self.optimizers(), strict=True):
            optimizer.zero_grad()
            self.manual_backward(F.mse_loss(member(batch[0]), batch[1]))
            optimizer.step()

    def validation_step(self, batch: object, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [member.configure_optimizers() for member in self.members.values()]


@pytest.fixture
def draws() -> None:
    """Marks a test that reads the written files."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Disables drawing, which takes most of the time, in the other tests."""
    if "draws" not in request.fixturenames:
        monkeypatch.setattr(FitCurves, "_write", lambda *_: None)


def fit(make_trainer: MakeTrainer, callback: Any, module: LightningModule | None = None, **kwargs: Any) -> None:
    trainer = make_trainer(*([callback] if callback else []), **({"max_epochs": 2} | kwargs))
    torch.manual_seed(5)
    trainer.fit(ExternalModule() if module is None else module, Points(), Points(seed=1))


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("draws")
def test_pictures_and_table(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    module = Together()
    callback = FitCurves(every_n_steps=2, mc_samples=5)
    fit(make_trainer, callback, module)
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {f"fit_curves{end}" for end in (".png", "_moments.png", ".gif", ".webp")}
    with Image.open(tmp_path / "pictures/fit_curves.gif") as gif:
        durations = []
        for index in range(gif.n_frames):
            gif.seek(index)
            durations.append(gif.info["duration"])
    assert sum(durations) == 200 * (3 + 5)  # after 0, 2, 4 and 6 steps, the last one five times
    rows = table(tmp_path / "fit_curves.csv")
    assert [(int(row["step"]), row["network"]) for row in rows] == [
        (step, name) for step in (0, 2, 4, 6) for name in ("plain", "dropped")
    ]
    held_out = Points(seed=1)
    with torch.no_grad():
        expected = float(F.mse_loss(module.members.eval()["dropped"](held_out.x), held_out.y))
    assert float(rows[-1]["val_mse"]) == pytest.approx(expected, rel=1e-5)


def test_curves_are_those_of_evaluation_mode(make_trainer: MakeTrainer) -> None:
    module = ExternalModule(network(0.5))
    callback = FitCurves(every_n_steps=4, num_places=50)
    fit(make_trainer, callback, module)
    assert [snapshot.step for snapshot in callback.snapshots] == [0, 4, 6]
    grid = torch.linspace(-1.1, 1.1, 50)[:, None]
    with torch.no_grad():
        expected = module.eval()(grid)[:, 0].numpy()
    np.testing.assert_allclose(callback.snapshots[-1].fits[""].values, expected, atol=1e-6)
    assert callback.snapshots[-1].fits[""].band is None


def test_the_band_contains_only_dropout(make_trainer: MakeTrainer) -> None:
    module = ExternalModule(network(0.5))
    callback = FitCurves(every_n_steps=100, mc_samples=4000, num_places=3)
    fit(make_trainer, callback, module)
    band = callback.snapshots[-1].fits[""].band
    assert band is not None
    module.eval()
    module.net[2].train()
    grid = torch.linspace(-1.1, 1.1, 3)[:, None]
    with torch.no_grad():
        curves = module(grid.repeat(4000, 1)).reshape(4000, 3)
    np.testing.assert_allclose(band[0], curves.mean(0), atol=0.05)
    np.testing.assert_allclose(band[1], curves.std(0), rtol=0.1)


def test_networks_without_dropout_have_no_band(make_trainer: MakeTrainer) -> None:
    callback = FitCurves(mc_samples=3)
    fit(make_trainer, callback, Together())
    fits = callback.snapshots[0].fits
    assert fits["plain"].band is None
    assert fits["dropped"].band is not None
    assert fits["dropped"].band[1].min() > 0


def test_the_masks_are_the_same_each_time(make_trainer: MakeTrainer) -> None:
    module = ExternalModule(network(0.5))
    module.configure_optimizers = lambda: None  # type: ignore[method-assign]  # so that nothing else moves
    module.net[1] = nn.Identity()
    callback = FitCurves(every_n_steps=1, mc_samples=3)
    trainer = make_trainer(callback)
    module.automatic_optimization = False

    def draw(batch: object, batch_idx: int) -> None:
        torch.rand(1)  # the random state moves on between the pictures

    module.training_step = draw  # type: ignore[method-assign,assignment]
    with pytest.warns(UserWarning, match="configure_optimizers"):
        trainer.fit(module, Points(), Points(seed=1))
    first, *others = (snapshot.fits[""].band for snapshot in callback.snapshots)
    assert len(others) == 3
    for band in others:
        np.testing.assert_array_equal(band, first)


def test_the_training_does_not_notice(make_trainer: MakeTrainer) -> None:
    results = []
    for callback in (None, FitCurves(every_n_steps=1, mc_samples=7)):
        for module in (ExternalModule(network(0.5)), Together()):
            fit(make_trainer, callback, module)
            results.append((module.state_dict(), torch.get_rng_state()))
    for (plain, plain_random), (watched, watched_random) in zip(results[:2], results[2:], strict=True):
        assert torch.equal(plain_random, watched_random)
        for name, value in plain.items():
            assert torch.equal(value, watched[name]), name


def test_after_an_exception_all_is_as_before(make_trainer: MakeTrainer) -> None:
    class Bomb(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                raise KeyError("bomb")
            return x

    net = nn.Sequential(*network(0.5), Bomb())
    random = []

    class Watch(FitCurves):
        def on_train_batch_start(self, *args: Any) -> None:
            random.append(torch.get_rng_state())
            super().on_train_batch_start(*args)

        def on_exception(self, *args: Any) -> None:
            random.append(torch.get_rng_state())

    with pytest.raises(KeyError, match="bomb"):
        fit(make_trainer, Watch(mc_samples=3), ExternalModule(net))
    assert all(layer.training for layer in net.modules())
    assert torch.equal(*random)
    assert torch.is_grad_enabled()


@pytest.mark.usefixtures("draws")
def test_the_pictures_show_the_recorded_values(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn = []
    original = FitCurves._picture
    monkeypatch.setattr(
        FitCurves, "_picture", lambda self, snapshots: drawn.append(original(self, snapshots)) or drawn[-1]
    )
    callback = FitCurves(mc_samples=4)
    fit(make_trainer, callback, ExternalModule(network(0.5)), max_epochs=5)
    spread = callback.snapshots[-1].fits[""].band
    last = drawn[0].curves[0]
    np.testing.assert_allclose(np.asarray(last.high) - np.asarray(last.low), 4 * spread[1][None], rtol=1e-4)
    np.testing.assert_allclose(np.asarray(last.high) + np.asarray(last.low), 2 * spread[0][None], atol=1e-5)
    train, held_out = drawn[0].points
    data = Points()
    np.testing.assert_allclose(np.stack([train.x, train.y]), torch.cat([data.x, data.y], 1).T, atol=1e-6)
    assert len(np.asarray(held_out.x)) == 12
    assert (tmp_path / "pictures/fit_curves.png").is_file()


def test_memory_is_bounded(make_trainer: MakeTrainer) -> None:
    callback = FitCurves(every_n_steps=1, max_snapshots=4)
    fit(make_trainer, callback, max_epochs=5)
    assert [snapshot.step for snapshot in callback.snapshots] == [0, 4, 8, 12, 15]


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists")
def test_a_resumed_run_continues(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    first, second = (FitCurves(every_n_steps=2, mc_samples=3) for _ in range(2))
    for callback, epochs, path in ((first, 2, None), (second, 3, tmp_path / "kept/last.ckpt")):
        saver = ModelCheckpoint(tmp_path / "kept", filename="last", enable_version_counter=False)
        trainer = make_trainer(callback, saver, max_epochs=epochs, enable_checkpointing=True)
        trainer.fit(Together(), Points(), Points(seed=1), ckpt_path=path, weights_only=True)
    assert [snapshot.step for snapshot in second.snapshots] == [0, 2, 4, 6, 8, 9]
    for before, after in zip(first.snapshots, second.snapshots, strict=False):
        assert repr(before) == repr(after)


@pytest.mark.usefixtures("draws")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists")
def test_a_band_that_begins_with_a_resumption(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    first, second = FitCurves(num_places=20), FitCurves(mc_samples=3, num_places=30)
    for callback, epochs, path in ((first, 1, None), (second, 2, tmp_path / "kept/last.ckpt")):
        saver = ModelCheckpoint(tmp_path / "kept", filename="last", enable_version_counter=False)
        trainer = make_trainer(callback, saver, max_epochs=epochs, enable_checkpointing=True)
        trainer.fit(Together(), Points(), Points(seed=1), ckpt_path=path, weights_only=True)
    bands = [snapshot.fits["dropped"].band for snapshot in second.snapshots]
    assert [None if band is None else band.shape for band in bands] == [None, (2, 20), (2, 20)]
    assert (tmp_path / "pictures/fit_curves.gif").is_file()


@pytest.mark.usefixtures("draws", "other_rank")
def test_another_rank_keeps_and_writes_nothing(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    callback = FitCurves()
    fit(make_trainer, callback)
    assert not callback.snapshots
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every_n_steps": 0}, r"every_n_steps \(=0\) must be at least 1"),
        ({"num_places": 1}, r"num_places \(=1\) must be at least 2"),
        ({"max_frames": 1}, r"max_frames \(=1\) must be at least 2"),
        ({"mc_samples": 1}, r"mc_samples \(=1\) must be 0 for none, or at least 2"),
        ({"mc_samples": -1}, "mc_samples"),
        ({"seconds_per_frame": 61.0}, r"seconds_per_frame \(=61.0\) must be 0.02 to 60"),
    ],
)
def test_values_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FitCurves(**arguments)


def test_data_other_than_a_curve_is_rejected(make_trainer: MakeTrainer) -> None:
    def attempt(module: LightningModule, train: Points, val: Points, **arguments: Any) -> None:
        make_trainer(FitCurves(**arguments)).fit(module, train, val)

    with pytest.raises(ValueError, match=r"x \(N, 1\) and y \(N, 1\), not \(12, 2\) and \(12, 2\)"):
        attempt(ExternalModule(), Points(), Points(width=2, batches=1))
    with pytest.raises(ValueError, match=r"not \(4, 2\) and \(4, 2\)"):
        attempt(ExternalModule(), Points(width=2), Points())
    with pytest.raises(ValueError, match=r"ExternalModule maps \(212, 1\) to \(212, 3\)"):
        attempt(ExternalModule(nn.Linear(1, 3)), Points(), Points())
    with pytest.raises(ValueError, match=r"mc_samples \(=9\) needs dropout, but no network has dropout"):
        attempt(ExternalModule(nn.Linear(1, 1)), Points(), Points(), mc_samples=9)
