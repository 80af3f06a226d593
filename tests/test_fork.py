"""A fork that changes nothing has the bits of its parent; one that changes a setting differs only by that."""

from __future__ import annotations

import csv
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cifar import ExactResume, LeNet, fork
from lightning_cifar.checkpoints.io import VerifiedCheckpointIO
from lightning_cifar.cli import main
from lightning_cifar.data import SyntheticDataModule
from lightning_cifar.errors import UsageError
from lightning_cifar.files.lock import FolderLock
from lightning_cifar.schedules import lr_factor

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Experiment logs directory.*"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory.*"),
]

ARGS = """fit --model LeNet --data SyntheticDataModule --data.num_train 96 --data.num_val 32 --data.batch_size 16
--trainer.max_epochs 4 --trainer.log_every_n_steps 1 --trainer.enable_progress_bar false --trainer.accelerator cpu
--keep_every_n_epochs 2""".split()  # noqa: SIM905
MOMENTUM = "--model.mixup 0.3 --model.schedule cosine --model.warmup 0.2 --model.cycles 2 --model.lr 0.05".split()  # noqa: SIM905
ADAM = ["--model.optimizer", "adam", "--model.lr", "0.003", "--model.schedule", "linear"]
ADAM += ["--trainer.callbacks+=EMA", "--trainer.callbacks.decay", "0.9"]
WORKERS = ["--data.num_workers", "2", "--trainer.accumulate_grad_batches", "2", *MOMENTUM]


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family") / "parent"
    assert main([*ARGS, *MOMENTUM, "--data.augment", "[]", "--run_dir", str(folder)]) == 0
    return folder


def weights(folder: Path) -> dict[str, Tensor]:
    held: dict[str, Tensor] = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return held


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if "throughput" not in key} for row in csv.DictReader(file)]


def check_equal(one: Path, other: Path) -> None:
    assert all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())
    assert rows(one) == rows(other)


@pytest.mark.parametrize("settings", [ADAM, WORKERS], ids=["adam, EMA", "workers, accumulation"])
def test_a_fork_that_changes_nothing_has_the_bits_of_its_parent(tmp_path: Path, settings: list[str]) -> None:
    if "--data.num_workers" in settings:
        (tmp_path / "flip.yaml").write_text("- HorizontalFlip: {p: 0.5}\n")
        settings = [*settings, "--data.albumentations", str(tmp_path / "flip.yaml")]
    assert main([*ARGS, *settings, "--run_dir", str(tmp_path / "parent")]) == 0
    assert main(["fork", str(tmp_path / "parent"), "--epoch", "2", "--run_dir", str(tmp_path / "fork")]) == 0
    check_equal(tmp_path / "parent", tmp_path / "fork")


def test_a_fork_of_a_fork_and_a_fork_of_the_end(parent: Path, tmp_path: Path) -> None:
    """A run that was planned shorter keeps its last state too, from which a fork trains on."""
    one, two, end = (tmp_path / name for name in ("one", "two", "end"))
    assert main(["fork", str(parent), "--epoch", "2", "--keep_every_n_epochs", "1", "--run_dir", str(one)]) == 0
    assert main(["fork", str(one), "--epoch", "3", "--run_dir", str(two)]) == 0
    check_equal(parent, one)
    check_equal(parent, two)
    more = ["--trainer.max_epochs", "5", "--model.lr", "0.01"]
    assert main(["fork", str(parent), "--epoch", "4", *more, "--run_dir", str(end)]) == 0
    assert rows(end)[: len(rows(parent))] == rows(parent)
    assert json.loads((end / "result.json").read_text())["epochs"] == 5
    assert not json.loads((end / "fork.json").read_text())["step"] - 24


def test_another_augmentation_sees_the_same_images_in_the_same_order(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Tensor] = []
    step = LeNet.training_step

    def training_step(self: LeNet, batch: Any, batch_idx: int) -> Any:
        seen.append(batch[0].clone())
        return step(self, batch, batch_idx)

    monkeypatch.setattr(LeNet, "training_step", training_step)
    start = ["fork", str(parent), "--epoch", "2", "--run_dir"]
    assert main([*start, str(tmp_path / "same")]) == 0
    plain = torch.cat(seen)
    seen.clear()
    assert main([*start, str(tmp_path / "flipped"), "--data.augment", "[{flip: {p: 1.0}}]"]) == 0
    assert torch.equal(torch.cat(seen).flip(-1), plain)
    said = capsys.readouterr().out
    assert "nothing differs: the fork repeats its parent" in said
    assert "  data.augment: [] -> " in said


def rates(folder: Path) -> dict[int, float]:
    return {int(row["step"]): float(row["lr"]) for row in rows(folder) if row.get("lr")}


def test_the_schedule_continues_or_starts_again(parent: Path, tmp_path: Path) -> None:
    """24 steps; the fork is at step 12."""
    regime: Any = {"schedule": "linear"}
    start = ["fork", str(parent), "--epoch", "2", "--model.schedule", "linear", "--model.warmup", "null"]
    start += ["--model.cycles", "null", "--run_dir"]
    cases: dict[str, tuple[list[str], Callable[[int], float]]] = {
        "continues": ([], lambda step: step / 24),
        "longer": (["--trainer.max_epochs", "6"], lambda step: 0.5 + 0.5 * (step - 12) / 24),
        "again": (["--restart_schedule", "true"], lambda step: (step - 12) / 12),
    }
    for name, (more, progress) in cases.items():
        assert main([*start, str(tmp_path / name), *more]) == 0
        found = {step: rate for step, rate in rates(tmp_path / name).items() if step >= 12}
        expected = {step: 0.05 * lr_factor(progress(step), **regime) for step in found}
        assert found == pytest.approx(expected), name
    assert (
        main(
            [
                "fork",
                str(tmp_path / "again"),
                "--epoch",
                "4",
                "--trainer.max_epochs",
                "5",
                "--run_dir",
                str(tmp_path / "on"),
            ]
        )
        == 0
    )
    assert max(list(rates(tmp_path / "on").values())[24:]) == 0, "the progress of the parent was 1"


def test_tensorboard_of_a_branch_has_the_history_of_the_trunk(parent: Path, tmp_path: Path) -> None:
    assert main(["fork", str(parent), "--epoch", "2", "--run_dir", str(tmp_path / "fork"), "--model.lr", "0.01"]) == 0
    events = [EventAccumulator(str(folder)).Reload().Scalars("val/loss") for folder in (parent, tmp_path / "fork")]
    assert [[each.step for each in scalars] for scalars in events] == [[5, 11, 17, 23]] * 2
    assert [each.value for each in events[0]][:2] == [each.value for each in events[1]][:2]


def test_refused(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "fork"

    def error(*args: str, epoch: int = 2, run: Path = parent) -> str:
        capsys.readouterr()
        assert main(["fork", str(run), "--epoch", str(epoch), "--run_dir", str(target), *args]) == 2
        said = capsys.readouterr().err.splitlines()
        assert not target.exists()
        return next(line for line in said if "error: " in line)

    assert "has no state of the end of epoch 3: it kept 2, 4" in error(epoch=3)
    assert "the checkpoint has completed 4 of 4 epochs" in error(epoch=4)
    assert "is not the folder of a run" in error(run=tmp_path / "none")
    assert "leave --model.optimizer out, or start a new run with fit" in error("--model.optimizer", "adam")
    assert "contains LeNet, not MLP" in error("--model", "MLP")
    assert "does not fit LeNet as configured" in error("--model.hidden", "[60, 84]")
    assert "was trained on" in error("--data", "MNISTDataModule")
    assert "the images differ" in error("--data.num_train", "80")
    assert "leave --seed_everything out" in error("--seed_everything", "3")
    with FolderLock(parent):
        assert "is still running: wait until it ends" in error()
    path = parent / "checkpoints/epoch-002.ckpt"
    content = path.read_bytes()
    path.write_bytes(content[:-100] + bytes(100))
    assert f"{path} is damaged" in error()
    path.write_bytes(content)
    with monkeypatch.context() as patch:
        full = OSError(errno.ENOSPC, "No space left on device")

        def save(*args: object) -> None:
            raise full

        patch.setattr(VerifiedCheckpointIO, "save_checkpoint", save)
        assert "no space is left" in error()
    load = SyntheticDataModule.load
    with monkeypatch.context() as patch:

        def changed(self: SyntheticDataModule, part: Any) -> Any:
            found = load(self, part)
            found.images[5, 0, 0, 0] ^= 1
            return found

        patch.setattr(SyntheticDataModule, "load", changed)
        assert "the images differ from those of" in error()
    assert main(["fork", "--epoch", "2", str(parent)]) == 2
    assert "comes first" in capsys.readouterr().err


# ---------------------------------------------------------------- a Trainer of the user


class Net(pl.LightningModule):
    def __init__(self, lr: float = 0.01, optimizer: type[torch.optim.Optimizer] = torch.optim.SGD) -> None:
        super().__init__()
        self.network, self.lr, self.optimizer = (
            nn.Sequential(nn.Linear(6, 8), nn.Dropout(), nn.Linear(8, 3)),
            lr,
            optimizer,
        )

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        momentum = {"momentum": 0.9} if self.optimizer is torch.optim.SGD else {}
        optimizer = self.optimizer(self.parameters(), lr=self.lr, **momentum)  # type: ignore[call-arg]
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]


def trainer(folder: Path) -> pl.Trainer:
    pl.seed_everything(7, verbose=False)
    return pl.Trainer(
        max_epochs=4,
        default_root_dir=folder,
        logger=CSVLogger(folder, "", ""),
        callbacks=[ExactResume(keep_every_n_epochs=2)],
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )


def loader() -> DataLoader[Any]:
    data = TensorDataset(torch.arange(96.0).reshape(16, 6) / 96, torch.arange(16) % 3)
    return DataLoader(data, batch_size=4, shuffle=True)


def test_a_trainer_of_the_user(tmp_path: Path) -> None:
    first = trainer(tmp_path / "first")
    first.fit(model := Net(), loader())
    fork(trainer(tmp_path / "same"), same := Net(), tmp_path / "first", 2, train_dataloaders=loader())
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in model.state_dict().items())
    for restart, rate in ((False, 0.1 * 0.5**4), (True, 0.1 * 0.5**2)):
        other = trainer(tmp_path / f"other {restart}")
        fork(other, Net(lr=0.1), tmp_path / "first", 2, restart_schedule=restart, train_dataloaders=loader())
        assert other.optimizers[0].param_groups[0]["lr"] == pytest.approx(rate)
    for wrong, message in (
        (Net(optimizer=torch.optim.Adam), "use the same optimizer"),
        (LeNet(), "pass the same network"),
    ):
        with pytest.raises(UsageError, match=message):
            fork(trainer(tmp_path / "wrong"), wrong, tmp_path / "first", 2, train_dataloaders=loader())
    with pytest.raises(UsageError, match="set another default_root_dir"):
        fork(trainer(tmp_path / "first"), Net(), tmp_path / "first", 2, train_dataloaders=loader())
