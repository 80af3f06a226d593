"""A sweep takes the given steps without side effects; the found value is set in optimizer and schedule."""

import hashlib
import json
import logging
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_cifar import plots
from lightning_cifar.analysis.lr_range import VERIFY_STEPS
from lightning_cifar.callbacks import LRRangeFinder
from lightning_cifar.callbacks.lr_sweep import find_optimizer, sweep
from lightning_cifar.data import SyntheticDataModule
from lightning_cifar.models import LeNet

STEPS: list[list[float]] = []  # learning rates of each optimizer step of any copy


@pytest.fixture(autouse=True)
def _no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disables pictures, which take seconds, except in one test."""
    if "files" not in request.node.name:
        monkeypatch.setattr(plots, "draw_lr_range", lambda *args, **kwargs: Figure((1, 1)), raising=False)
        monkeypatch.setattr(plots, "lr_range_html", lambda *args, **kwargs: "", raising=False)


class NotingSGD(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        STEPS.append([group["lr"] for group in self.param_groups])
        return super().step(closure)


class ExternalModule(pl.LightningModule):
    """Independent of the package: batch norm, dropout, two parameter groups."""

    def __init__(self, kind: str = "sgd", fail_at: int | None = None, nan_at: int | None = None) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.ReLU(), nn.Linear(16, 3))
        self.kind, self.fail_at, self.nan_at = kind, fail_at, nan_at
        self.learning_rate = 0.05
        self.calls = 0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.calls += 1
        if self.calls == self.fail_at:
            raise RuntimeError("a fault in the step")
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.log("train/loss", loss, prog_bar=True)
        return loss * math.nan if self.calls == self.nan_at else loss

    def configure_optimizers(self) -> Any:
        lr = self.learning_rate
        if self.kind == "adam":
            return torch.optim.Adam(self.parameters(), lr)
        if self.kind == "groups":
            groups = [
                {"params": self.net[0].parameters(), "lr": lr},
                {"params": self.net[4].parameters(), "lr": 10 * lr},
            ]
            return NotingSGD(groups, lr=lr)
        optimizer = NotingSGD(self.parameters(), lr, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=1000)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def loader(num: int = 48) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num, 6, generator=generator)
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).long() + (x[:, 0] > 1).long()), batch_size=8, shuffle=True)


def make_trainer(tmp_path: Path, *callbacks: pl.Callback, **kwargs: Any) -> pl.Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": tmp_path,
    }
    return pl.Trainer(callbacks=list(callbacks), **{**defaults, **kwargs})


def digest(trainer: pl.Trainer, model: pl.LightningModule) -> str:
    """A hash of everything that a sweep could change."""
    state: list[Any] = [
        {name: value.tolist() for name, value in model.state_dict().items()},
        [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        [p.requires_grad for p in model.parameters()],
        [(name, module.training, len(module._forward_hooks)) for name, module in model.named_modules()],
        [str(optimizer.state_dict()) for optimizer in trainer.optimizers],
        [str(config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs],
        torch.get_rng_state().tolist(),
        str(np.random.get_state()),  # noqa: NPY002  what a module may draw from
        random.getstate(),
        [trainer.global_step, trainer.current_epoch, trainer.should_stop, trainer.max_steps],
        sorted(trainer.callback_metrics),
        model.log.__func__.__qualname__,  # type: ignore[attr-defined]
        {name: str(value) for name, value in vars(model).items() if name in ("calls", "learning_rate")},
    ]
    return hashlib.sha256(repr(state).encode()).hexdigest()


class Guarded(LRRangeFinder):
    """Compares the state around each search."""

    num_checks = 0

    def find(self, trainer: pl.Trainer, pl_module: pl.LightningModule, suffix: str = "") -> Any:
        trainer.fit_loop.setup_data()  # what the fit does next
        before = digest(trainer, pl_module)
        try:
            return super().find(trainer, pl_module, suffix)
        finally:
            assert digest(trainer, pl_module) == before
            self.num_checks += 1


@pytest.mark.filterwarnings("ignore:the loss was not finite")
@pytest.mark.parametrize(
    ("kind", "kwargs"),
    [("sgd", {}), ("adam", {"accumulate_grad_batches": 4}), ("groups", {"precision": "bf16-mixed"}), ("adam", {})],
    ids=str,
)
def test_nothing_changes_before_and_in_the_middle_of_training(
    kind: str, kwargs: dict[str, Any], tmp_path: Path
) -> None:
    finder = Guarded(num_steps=12, num_sweeps=2, milestones=[2], verify=True)
    make_trainer(tmp_path, finder, **kwargs).fit(ExternalModule(kind), loader())
    assert finder.num_checks == 2
    assert (tmp_path / "lr_range_epoch_2.csv").exists()


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_fit_after_a_sweep_equals_a_fit_without(kind: str, tmp_path: Path) -> None:
    def weights(*callbacks: pl.Callback) -> Tensor:
        pl.seed_everything(3)
        model = ExternalModule(kind)
        make_trainer(tmp_path, *callbacks).fit(model, loader())
        return torch.cat([value.flatten().double() for value in model.state_dict().values()])

    assert torch.equal(weights(), weights(LRRangeFinder(num_steps=15, milestones=[2], verify=True)))


def test_an_exception_inside_leaves_everything_as_it_was(tmp_path: Path) -> None:
    finder = Guarded(num_steps=20)
    with pytest.raises(RuntimeError, match="a fault in the step"):
        make_trainer(tmp_path, finder).fit(ExternalModule(fail_at=5), loader())
    assert finder.num_checks == 1


def test_a_nan_ends_the_sweep_with_a_message(tmp_path: Path) -> None:
    finder = Guarded(num_steps=40, num_sweeps=1, stop_factor=None)
    model = ExternalModule(nan_at=35)
    with pytest.warns(UserWarning, match="the loss was not finite in 1 of 1 sweeps"):
        make_trainer(tmp_path, finder, max_epochs=0).fit(model, loader())
    assert len(finder.sweeps[0].losses) == 35
    assert finder.sweeps[0].diverged
    assert model.calls == 0


class Rising(ExternalModule):
    """Does not learn: its loss is 1 until the learning rate is 1, and grows after that."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.calls += 1
        zero = 0 * self.net(batch[0]).sum()
        return zero + 1 + 0.2 * max(0, self.calls - 32)


def test_a_value_that_depends_only_on_the_divergence_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finder = LRRangeFinder(num_steps=40, num_sweeps=1)
    with caplog.at_level(logging.INFO, logger="lightning.pytorch"):
        make_trainer(tmp_path, finder, max_epochs=0).fit(Rising(), loader())
    assert finder.suggestion is not None
    messages = [line for line in caplog.messages if line.startswith("found lr")]
    assert messages == [
        f"found lr: {finder.suggestion.value:.3g} ({finder.suggestion.low:.2g} to "
        f"{finder.suggestion.high:.2g}, 1 sweeps)",
        f"found lr: {finder.doubt}",
    ]
    assert "only the divergence supports" in finder.doubt


def test_a_verification_trains_from_the_same_weights_on_the_same_batches(tmp_path: Path) -> None:
    runs: list[tuple[list[float], list[float]]] = []

    class Noting(LRRangeFinder):
        def _train(self, trainer: pl.Trainer, pl_module: pl.LightningModule, lrs: list[float]) -> list[float]:
            tiny = [1e-12 * lr for lr in lrs]  # nothing is learnt: losses tell weights and batches
            runs.append((lrs, super()._train(trainer, pl_module, tiny)))
            return runs[-1][1]

    finder = Noting(num_steps=12, num_sweeps=1, verify=True)
    make_trainer(tmp_path, finder, max_epochs=0).fit(ExternalModule(), loader())
    assert finder.suggestion is not None
    assert [lrs[0] for lrs, _ in runs[:3]] == [finder.suggestion.rules["upturn_eighth"] * f for f in (1, 0.5, 0.25)]
    for lrs, losses in runs:
        assert len(lrs) == len(losses) == VERIFY_STEPS
        np.testing.assert_allclose(losses, runs[0][1], rtol=1e-5)
    assert len(set(np.round(runs[0][1][:6], 6))) > 1
    tested = json.loads((tmp_path / "lr_range.json").read_text())["tested"]
    assert tested == [list(pair) for pair in finder.suggestion.tested]


@pytest.mark.parametrize(
    ("accumulate", "limits"), [(1, {"max_epochs": -1, "max_steps": 3}), (4, {"max_epochs": 1})], ids=str
)
def test_exactly_the_asked_steps_at_exactly_the_asked_rates(
    accumulate: int, limits: dict[str, Any], tmp_path: Path
) -> None:
    STEPS.clear()
    finder = LRRangeFinder(1e-3, 1.0, num_steps=25, num_sweeps=1, stop_factor=None)
    trainer = make_trainer(tmp_path, finder, accumulate_grad_batches=accumulate, **limits)
    trainer.fit(ExternalModule(), loader(24))  # three batches: many short epochs
    rates = [step[0] for step in STEPS[:25]]
    assert rates[0] == 1e-3
    assert rates[-1] == 1.0
    assert rates == pytest.approx(np.geomspace(1e-3, 1, 25).tolist(), rel=1e-12)
    assert finder.sweeps[0].lrs.tolist() == rates


def test_groups_keep_their_ratio(tmp_path: Path) -> None:
    STEPS.clear()
    make_trainer(tmp_path, LRRangeFinder(num_steps=12, num_sweeps=1, stop_factor=None)).fit(
        ExternalModule("groups"), loader()
    )
    assert all(second == pytest.approx(10 * first) for first, second in STEPS[:12])


def test_sweeps_start_from_the_same_weights_on_other_batches(tmp_path: Path) -> None:
    finder = LRRangeFinder(1e-12, 1e-11, num_steps=12, num_sweeps=2)  # nothing is learnt: losses tell the batches
    data = SyntheticDataModule(num_train=64, num_val=10, num_test=10, batch_size=16, augment=[], seed=0)
    make_trainer(tmp_path, finder, max_epochs=0).fit(LeNet(), data)
    first, second = (set(np.round(sweep.losses, 6)) for sweep in finder.sweeps)
    assert first != second
    assert np.mean(finder.sweeps[0].losses) == pytest.approx(np.mean(finder.sweeps[1].losses), abs=0.02)


def test_the_loss_of_a_step_is_the_mean_over_its_batches(tmp_path: Path) -> None:
    def losses(accumulate: int, num: int) -> list[float]:
        finder = LRRangeFinder(1e-12, 1e-11, num_steps=num, num_sweeps=1)
        data = SyntheticDataModule(num_train=640, num_val=10, num_test=10, batch_size=16, augment=[], seed=0)
        pl.seed_everything(0)
        make_trainer(tmp_path, finder, max_epochs=0, accumulate_grad_batches=accumulate).fit(LeNet(), data)
        return finder.sweeps[0].losses.tolist()

    single = np.array(losses(1, 40)).reshape(10, 4).mean(1)
    assert losses(4, 10) == pytest.approx(single.tolist(), abs=1e-4)


@pytest.mark.parametrize("model", [LeNet(lr=0.3, schedule="linear"), ExternalModule()], ids=["ours", "external"])
def test_the_found_rate_is_the_peak(model: pl.LightningModule, tmp_path: Path) -> None:
    finder = LRRangeFinder(1e-3, 1.0, num_steps=20, apply=True)
    data: Any = loader()
    if isinstance(model, LeNet):
        data = SyntheticDataModule(num_train=64, num_val=10, num_test=10, batch_size=16, seed=0)
    trainer = make_trainer(tmp_path, finder, limit_val_batches=0)
    trainer.fit(model, data)
    assert finder.suggestion is not None
    found = finder.suggestion.value
    peaks = trainer.lr_scheduler_configs[0].scheduler
    if isinstance(model, LeNet):
        assert model.lr == found == model.hparams["lr"]
        assert peaks.base_lrs == [found]
    else:
        assert peaks.optimizer.param_groups[0]["max_lr"] == found
    assert finder.own_lr in (0.3, 0.05)
    recorded = json.loads((tmp_path / "lr_range.json").read_text())
    assert recorded["value"] == found
    assert recorded["low"] <= found <= recorded["high"]


def test_files_are_written(tmp_path: Path) -> None:
    make_trainer(tmp_path, LRRangeFinder(num_steps=20, zoom=[1e-3, 1e-1]), max_epochs=1).fit(ExternalModule(), loader())
    for name in ("lr_range.csv", "lr_range.html", "pictures/lr_range.png", "pictures/lr_range_zoom.png"):
        assert (tmp_path / name).stat().st_size > 0
    lines = (tmp_path / "lr_range.csv").read_text().splitlines()
    assert lines[0] == "seed,step,lr,loss,smoothed"
    assert {line.split(",")[0] for line in lines[1:]} == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"min_lr": 0.0}, r"min_lr \(=0.0\)"),
        ({"min_lr": 1.0, "max_lr": 0.5}, r"max_lr \(=0.5\) must be above min_lr \(=1.0\)"),
        ({"num_steps": 9}, r"num_steps \(=9\)"),
        ({"num_sweeps": 0}, r"num_sweeps \(=0\)"),
        ({"stop_factor": 1.0}, r"stop_factor \(=1.0\)"),
        (
            {"zoom": [1e-6, 1.0]},
            r"zoom \(=\[1e-06, 1.0\]\) must be two increasing learning rates between 0.0001 and 10",
        ),
        ({"zoom": [1.0, 0.1]}, r"zoom"),
        ({"milestones": [0]}, r"milestones \(=\[0\]\)"),
    ],
)
def test_bad_settings_are_named(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LRRangeFinder(**kwargs)


class Manual(ExternalModule):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


def test_manual_optimization_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="this module uses manual"):
        make_trainer(tmp_path, LRRangeFinder()).fit(Manual(), loader())


def test_an_optimizer_is_found_in_every_form() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    for form in (
        optimizer,
        [optimizer],
        {"optimizer": optimizer},
        ([optimizer], [scheduler]),
        [{"optimizer": optimizer}],
    ):
        assert find_optimizer(form) is optimizer
    with pytest.raises(ValueError, match="has 2"):
        find_optimizer([optimizer, optimizer])
    with pytest.raises(ValueError, match="has none"):
        find_optimizer(None)


def test_an_empty_loader_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.fit(ExternalModule(), loader())

    class Empty:
        def __iter__(self) -> Any:
            return iter(())

    trainer.fit_loop._combined_loader.flattened = [Empty()]  # type: ignore[union-attr]
    trainer.fit_loop._combined_loader._iterables = Empty()  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="returns no batches"):
        sweep(trainer, trainer.lightning_module, [0.1] * 10, seed=0, stop=lambda losses: False)


DDP = """
import json, sys, warnings
warnings.simplefilter("ignore")
import lightning.pytorch as pl
from lightning_cifar.callbacks import LRRangeFinder
from lightning_cifar.data import SyntheticDataModule
from lightning_cifar.models import LeNet
pl.seed_everything(0)
finder = LRRangeFinder(num_steps=12, num_sweeps=2, apply=True)
trainer = pl.Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_steps=2, logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, default_root_dir=sys.argv[1], callbacks=[finder],
    limit_val_batches=0,
)
model = LeNet()
trainer.fit(model, SyntheticDataModule(num_train=64, num_val=10, num_test=10, batch_size=8, seed=0))
found = {"lr": model.lr, "losses": [sweep.losses.tolist() for sweep in finder.sweeps]}
open(f"{sys.argv[1]}/rank{trainer.global_rank}.json", "w").write(json.dumps(found))
"""


def test_two_processes_agree(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(DDP)
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, capture_output=True)
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert len(first["losses"]) == 2
