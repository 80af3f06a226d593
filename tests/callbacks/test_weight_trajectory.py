"""Snapshots on disk are those of an uninterrupted training, also after interruptions, and do not change it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cifar.analysis.sharpness import flatten
from lightning_cifar.callbacks import ExactResume, Sharpness, WeightTrajectory
from lightning_cifar.callbacks.weight_trajectory import layout_of, read_trajectory

pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:The .*dataloader.* does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*mid-epoch.*"),
]

MakeTrainer = Callable[..., Trainer]
STEPS = 4
"""Steps per epoch."""


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.2), nn.Linear(4, 2))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(self.net(x))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam((each for each in self.parameters() if each.requires_grad), lr=0.02)

    def train_dataloader(self) -> Any:
        inputs = torch.linspace(-1, 1, 8 * STEPS * 3).reshape(-1, 3).sin()
        return DataLoader(TensorDataset(inputs, torch.arange(8 * STEPS) % 2), batch_size=8)


def weights_of(net: LightningModule) -> Tensor:
    return flatten([each.detach() for each in net.parameters() if each.requires_grad])


def steps_in(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in (folder / "trajectory").glob("*.npz"))


class Weights(Callback):
    """The weights after each step."""

    def __init__(self) -> None:
        self.seen: dict[int, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen[trainer.global_step] = weights_of(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.seen[trainer.global_step] = weights_of(pl_module)


class Stop(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == self.step:
            raise ZeroDivisionError


@pytest.mark.parametrize(
    ("settings", "epochs", "steps"),
    [
        ({}, 3, [0, 4, 8, 12]),
        ({"every_n_epochs": 2}, 3, [0, 8, 12]),
        ({"every_n_steps": 5}, 3, [0, 5, 10, 12]),
        ({"every_n_steps": 1, "max_snapshots": 4}, 4, [0, 8, 16]),
        ({"every_n_steps": 1, "max_snapshots": 5}, 4, [0, 4, 8, 12, 16]),
        ({"max_snapshots": 3}, 5, [0, 8, 16, 20]),
    ],
)
def test_snapshots_are_the_weights_at_even_times(
    settings: dict[str, int], epochs: int, steps: list[int], make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    net, seen = Net(), Weights()
    make_trainer(seen, WeightTrajectory(**settings), max_epochs=epochs).fit(net)
    assert steps_in(tmp_path) == steps
    found = read_trajectory(tmp_path, layout_of(net))
    assert (found.steps, found.epochs) == (steps, [step / STEPS for step in steps])
    assert torch.equal(found.weights, torch.stack([seen.seen[step] for step in steps]))


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("settings", [{"every_n_steps": 2, "max_snapshots": 4}, {"every_n_epochs": 1}])
def test_an_interrupted_training_ends_with_the_same_snapshots(
    settings: dict[str, int], moved: bool, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """The checkpoint is older than the interruption; a fork resumes in another folder."""
    whole, part, new = tmp_path / "whole", tmp_path / "part", tmp_path / "new"
    make_trainer(WeightTrajectory(**settings), max_epochs=4, default_root_dir=whole).fit(Net())
    checkpoint = part / "checkpoints" / "resume.ckpt"
    trainer = make_trainer(ExactResume(), WeightTrajectory(**settings), Stop(11), max_epochs=4, default_root_dir=part)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(Net())
    assert steps_in(part)[-1] == 11
    folder = new if moved else part
    trainer = make_trainer(ExactResume(), WeightTrajectory(**settings), max_epochs=4, default_root_dir=folder)
    trainer.fit(Net(), ckpt_path=checkpoint, weights_only=True)
    assert steps_in(folder) == steps_in(whole)
    both = [read_trajectory(each, layout_of(Net())) for each in (folder, whole)]
    assert both[0].epochs == both[1].epochs
    assert torch.equal(both[0].weights, both[1].weights)


def test_missing_snapshots_are_reported_and_those_of_another_training_removed(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    trainer = make_trainer(WeightTrajectory(), max_epochs=1)
    trainer.fit(Net())
    trainer.save_checkpoint(tmp_path / "a" / "b.ckpt")
    shutil.rmtree(tmp_path / "trajectory")
    make_trainer(WeightTrajectory(), max_epochs=3).fit(Net())  # another training in the same folder
    with pytest.warns(UserWarning, match="has no snapshots of the run: they start here"):
        make_trainer(WeightTrajectory(), max_epochs=2).fit(Net(), ckpt_path=tmp_path / "a" / "b.ckpt")
    assert steps_in(tmp_path) == [4, 8]


def test_snapshots_that_cannot_be_used_are_left_out(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    net = Net()
    make_trainer(WeightTrajectory(every_n_steps=1), max_epochs=2).fit(net)
    layout = layout_of(net)
    with np.load(tmp_path / "trajectory" / "000003.npz") as held:
        np.savez(tmp_path / "trajectory" / "000003.npz", **{**held, "weights": held["weights"] * np.nan})
    (tmp_path / "trajectory" / "000005.npz").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=r"000005\.npz is damaged"):
        assert read_trajectory(tmp_path, layout).steps == [0, 1, 2, 4, 6, 7, 8]
    (tmp_path / "trajectory" / "000005.npz").unlink()
    with pytest.raises(ValueError, match="has the weights of another network"):
        read_trajectory(tmp_path, layout_of(nn.Linear(1, 1)))


def test_too_few_snapshots_are_refused_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has 0 snapshots .* needs 3: train with --config .*weight_trajectory\.yaml"):
        read_trajectory(tmp_path, "")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"every_n_epochs": 1, "every_n_steps": 1}, r"every_n_epochs \(=1\) and every_n_steps \(=1\)"),
        ({"every_n_steps": 0}, r"every_n_steps \(=0\) must be at least 1"),
        ({"max_snapshots": 2}, r"max_snapshots \(=2\) must be at least 3"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        WeightTrajectory(**settings)


def test_the_training_has_the_same_bits_with_both_callbacks(make_trainer: MakeTrainer) -> None:
    nets = [Net(), Net()]
    random = []
    for net, callbacks in zip(nets, ([], [WeightTrajectory(every_n_steps=1), Sharpness(every_n_steps=2)]), strict=True):
        torch.manual_seed(1)
        make_trainer(*callbacks, max_epochs=3).fit(net)
        random.append(torch.get_rng_state())
    assert all(
        torch.equal(a, b) for a, b in zip(nets[0].state_dict().values(), nets[1].state_dict().values(), strict=True)
    )
    assert torch.equal(*random)
    assert [each.training for each in nets[0].modules()] == [each.training for each in nets[1].modules()]
