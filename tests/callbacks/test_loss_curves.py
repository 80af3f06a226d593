"""The points are the logged values, at the epochs in which they were logged."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from lightning_cifar.callbacks import LossCurves, loss_curves

MakeTrainer = Callable[..., Trainer]


class Logs(LightningModule):
    """Logs values that identify their origin: the epoch, and the number of the validation."""

    def __init__(self, accuracy: str = "train/accuracy", fail_at: int = -1, error: BaseException | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.accuracy = accuracy
        self.fail_at, self.error = fail_at, error
        self.validations = 0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.error is not None and self.current_epoch == self.fail_at:
            raise self.error
        # over the three batches of an epoch the mean is the epoch + 1
        self.log("train/loss", float(self.current_epoch + batch_idx), on_step=False, on_epoch=True, batch_size=1)
        return self.layer(torch.ones(1, 1)).sum()

    def on_train_epoch_end(self) -> None:
        self.log(self.accuracy, self.current_epoch / 10)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log_dict({"val/loss": float(self.validations), "val/accuracy": self.validations / 10}, batch_size=1)

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.validations += 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def approximately(history: dict[str, list[list[float]]]) -> dict[str, Any]:
    return {key: [pytest.approx(point) for point in points] for key, points in history.items()}


def expected_history(epochs: int) -> dict[str, Any]:
    return approximately(
        {
            "train/loss": [[e + 1, e + 1] for e in range(epochs)],
            "train/accuracy": [[e + 1, e / 10] for e in range(epochs)],
            "val/loss": [[e + 1, e] for e in range(epochs)],
            "val/accuracy": [[e + 1, e / 10] for e in range(epochs)],
        }
    )


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    drawn: list[Figure] = []
    monkeypatch.setattr(loss_curves, "save_figure", lambda trainer, name, figure, tag: drawn.append(figure))
    return drawn


@pytest.fixture
def sigint() -> Iterator[None]:
    """Lightning ignores further interrupts for good once it caught one."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def test_each_epoch_has_its_points(data: Any, make_trainer: MakeTrainer, figures: list[Figure]) -> None:
    curves = LossCurves()
    make_trainer(curves, max_epochs=4, num_sanity_val_steps=2).fit(Logs(), data)
    assert curves.history == expected_history(4)
    loss, accuracy = figures[-1].axes
    assert [line.get_xydata().tolist() for line in loss.lines] == [  # type: ignore[union-attr]
        [[1, 1], [2, 2], [3, 3], [4, 4]],
        [[1, 0], [2, 1], [3, 2], [4, 3]],
    ]
    assert accuracy.lines[2].get_label() == "best validation 30.00 % (epoch 4)"
    assert figures[-1].get_suptitle() == "Logs"


def test_validations_stand_where_they_happened(data: Any, make_trainer: MakeTrainer, figures: list[Figure]) -> None:
    data.batch_size = 3  # four batches
    curves = LossCurves()
    make_trainer(curves, max_epochs=2, val_check_interval=0.5).fit(Logs(), data)
    assert curves.history["val/loss"] == [[0.5, 0], [1, 1], [1.5, 2], [2, 3]]
    curves = LossCurves()
    make_trainer(curves, max_epochs=4, check_val_every_n_epoch=2).fit(Logs(), data)
    assert curves.history["val/loss"] == [[2, 0], [4, 1]]  # and no stale ones between
    assert [epoch for epoch, _ in curves.history["train/loss"]] == [1, 2, 3, 4]


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning")  # Lightning's, on purpose here
def test_a_resumed_run_continues_its_curves(data: Any, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    make_trainer(LossCurves(), keep, max_epochs=3, enable_checkpointing=True).fit(Logs(), data)
    path = tmp_path / "epoch=1.ckpt"
    checkpoint = torch.load(path, weights_only=True)  # plain types
    first = LossCurves()
    assert checkpoint["callbacks"][first.state_key]["history"] == expected_history(2)

    module = Logs()
    module.validations = 2
    resumed = LossCurves()
    keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    trainer = make_trainer(resumed, keep, max_epochs=4, enable_checkpointing=True)
    trainer.fit(module, data, ckpt_path=path, weights_only=True)
    assert resumed.history == expected_history(4)


def test_state_is_a_copy() -> None:
    curves = LossCurves()
    curves.history = {"val/loss": [[1.0, 2.0]]}
    other = LossCurves()
    other.load_state_dict(curves.state_dict())  # type: ignore[arg-type]
    curves.history["val/loss"][0][1] = 9.0
    assert other.history == {"val/loss": [[1.0, 2.0]]}
    assert LossCurves(name="other").state_key != curves.state_key


def test_a_new_training_starts_new_curves(data: Any, make_trainer: MakeTrainer, figures: list[Figure]) -> None:
    curves = LossCurves()
    make_trainer(curves, max_epochs=3).fit(Logs(), data)
    make_trainer(curves, max_epochs=1).fit(Logs(), data)
    assert curves.history == expected_history(1)


@pytest.mark.parametrize(
    ("error", "raised"), [(RuntimeError("out of memory"), RuntimeError), (KeyboardInterrupt(), SystemExit)]
)
@pytest.mark.usefixtures("sigint")
def test_an_interrupted_run_leaves_its_curves(
    data: Any, make_trainer: MakeTrainer, tmp_path: Path, error: BaseException, raised: type[BaseException]
) -> None:
    board = TensorBoardLogger(tmp_path, name="", version="")
    curves = LossCurves(max_time_share=0)
    with pytest.raises(raised):
        make_trainer(curves, max_epochs=4, logger=board).fit(Logs(fail_at=2, error=error), data)
    assert curves.history == expected_history(2)
    assert (tmp_path / "pictures/loss_curves.png").is_file()
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    assert [image.step for image in events.Images("curves/loss_curves")] == [5]


def test_a_full_disk_does_not_hide_why_it_stopped(
    data: Any, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, tag: str) -> None:
        raise OSError(28, "could not write x: No space left on device")

    monkeypatch.setattr(loss_curves, "save_figure", fail)
    trainer = make_trainer(LossCurves(), max_epochs=3)
    with (
        pytest.raises(RuntimeError, match="out of memory"),
        pytest.warns(UserWarning, match="LossCurves: .*could not write x"),
    ):
        trainer.fit(Logs(fail_at=1, error=RuntimeError("out of memory")), data)


@pytest.mark.parametrize(
    ("kwargs", "drawings"),
    [
        ({"max_time_share": 0.0}, 1),
        ({"max_time_share": float("inf")}, 6),  # the last of them with what the module logged late
        ({"max_time_share": float("inf"), "every_n_epochs": 2}, 3),
    ],
)
def test_drawing_keeps_to_its_share_of_the_time(
    data: Any, make_trainer: MakeTrainer, figures: list[Figure], kwargs: dict[str, Any], drawings: int
) -> None:
    make_trainer(LossCurves(**kwargs), max_epochs=5).fit(Logs(), data)
    assert len(figures) == drawings


def test_metric_names_are_arguments_and_only_logged_metrics_are_drawn(
    data: Any, make_trainer: MakeTrainer, figures: list[Figure]
) -> None:
    curves = LossCurves(train_loss="no", val_loss="val/accuracy", val_accuracy="no", train_accuracy="acc", title="a")
    make_trainer(curves).fit(Logs(accuracy="acc"), data)
    assert curves.history == approximately({"val/accuracy": [[1, 0]], "acc": [[1, 0]]})
    assert figures[-1].get_suptitle() == "a"


def test_a_module_that_logs_other_names_causes_one_warning(
    data: Any, make_module: Any, make_trainer: MakeTrainer, tmp_path: Path, own_warnings: Any
) -> None:
    class Other(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            pl_module.log("my_loss", 1.0)

    trainer = make_trainer(Other(), LossCurves(), max_epochs=3)
    with pytest.warns(UserWarning, match=r"found none of train/loss.*the module logged my_loss\.") as caught:
        trainer.fit(make_module(), data)
    assert len(own_warnings(caught, "LossCurves")) == 1
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.usefixtures("other_rank")
def test_another_rank_collects_and_does_not_draw(data: Any, make_trainer: MakeTrainer, figures: list[Figure]) -> None:
    curves = LossCurves()
    make_trainer(curves, max_epochs=2).fit(Logs(), data)
    assert curves.history == expected_history(2)
    assert not figures


def test_outside_of_fit_nothing_happens(data: Any, make_trainer: MakeTrainer, figures: list[Figure]) -> None:
    curves = LossCurves()
    make_trainer(curves).validate(Logs(), data, verbose=False)
    assert curves.history == {}
    with pytest.raises(ValueError, match=r"every_n_epochs \(=0\)"):
        LossCurves(every_n_epochs=0)


class Pair(LightningModule):
    """Logs for two networks, and the accuracy of a class."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.log("train/loss/plain", 1.0, on_step=False, on_epoch=True, batch_size=1)
        self.log("train/loss/norm", 2.0, on_step=False, on_epoch=True, batch_size=1)
        return self.layer(torch.ones(1, 1)).sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log_dict({"val/loss/plain": 3.0, "val/accuracy/plain": 0.5, "val/accuracy/cat": 0.25}, batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def test_several_networks_in_one_figure(data: Any, make_trainer: MakeTrainer, figures: list[Figure]) -> None:
    curves = LossCurves()
    make_trainer(curves, max_epochs=2).fit(Pair(), data)
    assert set(curves.history) == {"train/loss/plain", "train/loss/norm", "val/loss/plain", "val/accuracy/plain"}
    assert curves.history["train/loss/norm"] == [[1, 2.0], [2, 2.0]]
    assert [text.get_text() for text in figures[-1].legends[0].get_texts()][:2] == ["plain", "norm"]
