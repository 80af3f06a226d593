"""Throughput is images divided by seconds of training."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar

from lightning_cifar.callbacks import Throughput, throughput

MakeTrainer = Callable[..., Trainer]
BATCH = (torch.zeros(10, 3, 2, 2), torch.zeros(10, dtype=torch.int64))


class Clock:
    """A clock that is set by the test."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    return clock


class Loop:
    """Calls the hooks in the order of the trainer."""

    def __init__(self, callback: Throughput, clock: Clock, world_size: int = 1) -> None:
        self.callback, self.clock = callback, clock
        self.logged: list[float] = []
        bar = SimpleNamespace(is_enabled=True)
        self.shown: dict[str, object] = {}
        self.trainer = cast(
            Trainer,
            SimpleNamespace(
                world_size=world_size, progress_bar_callback=bar, progress_bar_metrics=self.shown, sanity_checking=False
            ),
        )
        log = lambda name, value, sync_dist: self.logged.append(value)  # noqa: E731
        self.module = cast(LightningModule, SimpleNamespace(device=torch.device("cpu"), log=log))
        callback.on_train_start(self.trainer, self.module)

    def steps(self, *seconds: float) -> None:
        for each in seconds:
            self.callback.on_train_batch_start(self.trainer, self.module, BATCH, 0)
            self.clock.now += each
            self.callback.on_train_batch_end(self.trainer, self.module, None, BATCH, 0)

    def validate(self, seconds: float) -> None:
        self.callback.on_validation_start(self.trainer, self.module)
        self.clock.now += seconds

    def epoch(self, *seconds: float, validation: float = 0.0, after: float = 0.0) -> None:
        self.callback.on_train_epoch_start(self.trainer, self.module)
        self.steps(*seconds)
        if validation:
            self.validate(validation)
        self.callback.on_train_epoch_end(self.trainer, self.module)
        self.clock.now += after


def test_only_training_is_timed(clock: Clock) -> None:
    loop = Loop(Throughput(), clock)
    loop.epoch(0.1, 0.1, 0.3, validation=50, after=20)
    loop.epoch(0.5, validation=50)
    assert loop.logged == pytest.approx([30 / 0.5, 10 / 0.5])
    loop.callback.on_train_epoch_start(loop.trainer, loop.module)
    loop.steps(0.1)
    loop.validate(7)  # in the middle of an epoch
    loop.steps(0.1)
    loop.callback.on_train_epoch_end(loop.trainer, loop.module)
    assert loop.logged[2] == pytest.approx(20 / 0.2)


def test_the_bar_shows_the_last_steps_at_most_twice_a_second(clock: Clock) -> None:
    loop = Loop(Throughput(window=2), clock)
    loop.callback.on_train_epoch_start(loop.trainer, loop.module)
    loop.steps(0.1, 0.1, 0.2)
    assert loop.shown == {}
    loop.steps(0.2)
    assert loop.shown == {"images/s": "50"}  # 20 images in 0.4 s
    loop.steps(0.01, 0.01)
    assert loop.shown == {"images/s": "50"}
    assert loop.callback.images_per_s == pytest.approx(1000)


def test_all_ranks_count(clock: Clock) -> None:
    loop = Loop(Throughput(), clock, world_size=4)
    loop.epoch(0.5)
    assert loop.logged == pytest.approx([80])


@pytest.mark.parametrize(
    ("batch", "images"),
    [
        (BATCH, 10),
        (BATCH[0], 10),
        ({"image": BATCH[0], "label": BATCH[1]}, 10),
        ([(BATCH[0], BATCH[0]), BATCH[1]], 10),
        ((torch.tensor(3), BATCH[0]), 10),
        ("text", 0),
    ],
)
def test_images_of_any_batch(batch: object, images: int) -> None:
    assert throughput._count_images(batch) == images


def test_a_step_costs_a_few_calls() -> None:
    """Counted, not timed: each Python call is of the order of 0.1 microseconds, a step of training of milliseconds."""
    loop = Loop(Throughput(), cast(Clock, SimpleNamespace(now=0.0)))
    loop.steps(0.0)
    calls: list[str] = []
    sys.setprofile(lambda frame, event, arg: calls.append(event) if event in ("call", "c_call") else None)
    try:
        loop.steps(*[0.0] * 100)
    finally:
        sys.setprofile(None)
    assert len(calls) / 100 < 40


@pytest.mark.parametrize("bar", [RichProgressBar, TQDMProgressBar])
def test_both_progress_bars_show_it(
    data: Any, make_module: Any, make_trainer: MakeTrainer, capsys: pytest.CaptureFixture[str], bar: type[ProgressBar]
) -> None:
    seen: list[object] = []

    class Look(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            assert trainer.progress_bar_callback is not None
            seen.append(trainer.progress_bar_callback.get_metrics(trainer, pl_module).get("images/s"))

    trainer = make_trainer(Throughput(refresh_seconds=0), Look(), bar(), enable_progress_bar=True, max_epochs=2)
    trainer.fit(make_module(), data)
    assert len(seen) == 6
    assert all(isinstance(value, str) and int(value.replace(",", "")) > 0 for value in seen)
    assert float(trainer.callback_metrics["throughput"]) > 0
    assert "images/s" in capsys.readouterr().out


def test_without_a_progress_bar_there_are_no_metrics(data: Any, make_module: Any, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(Throughput(refresh_seconds=0))
    trainer.fit(make_module(), data)
    assert "images/s" not in trainer.progress_bar_metrics
    assert float(trainer.callback_metrics["throughput"]) > 0
    with pytest.raises(ValueError, match=r"window \(=0\)"):
        Throughput(window=0)
