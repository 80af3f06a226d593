"""Snapshots show the activations, and the training does not change."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cifar import artifacts
from lightning_cifar.callbacks import ActivationSnapshots

MakeTrainer = Callable[..., Trainer]


class Vectors:
    """A loader of vectors (N, 4) whose order depends on torch's generator."""

    def __init__(self, size: int = 24, *, targets: Callable[[Tensor], Tensor] = lambda x: (x[:, 0] > 0).long()) -> None:
        self.x = torch.randn(size, 4, generator=torch.Generator().manual_seed(1))
        self.y = targets(self.x)

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in torch.randperm(len(self.x)).chunk(4):
            yield self.x[chosen], self.y[chosen]


def network(*, norm: bool = True, dropout: float = 0.25) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(4, 40)]
    layers += [nn.BatchNorm1d(40)] if norm else []
    layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.ReLU(inplace=True), nn.Linear(40, 2))


class ExternalModule(LightningModule):
    def __init__(self, net: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = network() if net is None else net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Together(LightningModule):
    """Two members, each with its optimizer."""

    def __init__(self, *networks: nn.Module) -> None:
        super().__init__()
        self.automatic_optimization = False
        networks = networks or (network(norm=False, dropout=0), network(dropout=0))
        self.members = nn.ModuleDict(
            {name: ExternalModule(net) for name, net in zip(("plain", "normed"), networks, strict=True)}
        )

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        for member, optimizer in zip(self.members.values(), self.optimizers(), strict=True):
            optimizer.zero_grad()
            self.manual_backward(member.training_step(batch, batch_idx))
            optimizer.step()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
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
        monkeypatch.setattr(ActivationSnapshots, "_write", lambda *_: None)


def fit(make_trainer: MakeTrainer, callback: Any, module: LightningModule | None = None, **kwargs: Any) -> Trainer:
    callbacks = [callback] if callback is not None else []
    trainer = make_trainer(*callbacks, **({"max_epochs": 2} | kwargs))
    torch.manual_seed(5)
    trainer.fit(ExternalModule() if module is None else module, Vectors(), Vectors())
    return trainer


def steps(callback: ActivationSnapshots) -> list[int]:
    return [snapshot.step for snapshot in callback.snapshots]


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("draws")
def test_pictures_and_table(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    fit(make_trainer, ActivationSnapshots(every_n_steps=3, modes=("eval", "train"), seconds_per_frame=0.1))
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {f"activations{end}" for end in (".png", "_ridge.png", "_moments.png", ".gif", ".webp")}
    with Image.open(tmp_path / "pictures/activations.gif") as gif:
        durations = []
        for index in range(gif.n_frames):
            gif.seek(index)
            durations.append(gif.info["duration"])
    assert sum(durations) == 100 * (4 + 4)  # steps 0, 3, 6 and 8, the last one five times
    rows = table(tmp_path / "activations.csv")
    assert len(rows) == 4 * 2 * 2 * 2  # steps, modes, layers, sides
    assert sorted({int(row["step"]) for row in rows}) == [0, 3, 6, 8]
    assert {row["values"] for row in rows} == {str(24 * 40)}  # all validation samples, since there are only 24
    dropped = {row["mode"]: float(row["kept_share"]) for row in rows if row["kept_share"]}
    assert dropped["eval"] == 1
    assert dropped["train"] == pytest.approx(0.75, abs=0.05)


def test_batch_norm_normalises_the_probe_in_training_mode(make_trainer: MakeTrainer) -> None:
    module = ExternalModule()
    callback = ActivationSnapshots("net.1", every_n_steps=4, modes=["train"])
    fit(make_trainer, callback, module)
    norm = module.net[1]
    gamma, beta = norm.weight.detach(), norm.bias.detach()
    assert beta.abs().max() > 0.01
    after = callback.snapshots[-1].layers["train", "", "net.1"].after
    assert after.mean == pytest.approx(float(beta.mean()), abs=1e-5)
    assert after.std == pytest.approx(float((gamma.square().mean() + beta.var(correction=0)).sqrt()), rel=1e-3)
    first = callback.snapshots[0].layers["train", "", "net.1"].after
    assert (first.mean, first.std) == pytest.approx((0, 1), abs=1e-3)


@pytest.mark.parametrize("modes", [("train", "eval"), ("eval", "train")])
def test_the_loss_of_the_probe_is_that_of_evaluation_mode(make_trainer: MakeTrainer, modes: Any) -> None:
    module = ExternalModule()
    callback = ActivationSnapshots(modes=modes, num_samples=24)
    fit(make_trainer, callback, module)
    data = Vectors()
    module.eval()
    with torch.no_grad():
        expected = float(F.cross_entropy(module(data.x), data.y))
    assert callback.snapshots[-1].losses[""] == pytest.approx(expected, rel=1e-5)


def test_the_training_does_not_notice(make_trainer: MakeTrainer) -> None:
    results = []
    for callback in (None, ActivationSnapshots(every_n_steps=1, modes=("eval", "train"), num_samples=7)):
        for module in (ExternalModule(), Together(network(norm=False), network())):
            fit(make_trainer, callback, module)
            results.append((module.state_dict(), torch.get_rng_state()))
    for (plain, plain_random), (watched, watched_random) in zip(results[:2], results[2:], strict=True):
        assert torch.equal(plain_random, watched_random)
        for name, value in plain.items():
            assert torch.equal(value, watched[name]), name


def test_members_are_watched_together(make_trainer: MakeTrainer) -> None:
    module = Together()
    callback = ActivationSnapshots(every_n_steps=3)
    fit(make_trainer, callback, module)
    assert steps(callback) == [0, 3, 6, 8]  # batches, though two optimizers step in each
    assert set(callback.snapshots[0].layers) == {("eval", "plain", "net.1"), ("eval", "normed", "net.2")}
    assert set(callback.snapshots[0].losses) == {"plain", "normed"}
    last = callback.snapshots[-1].layers["eval", "plain", "net.1"]
    with torch.no_grad():
        expected = module.members["plain"].net[0](Vectors().x)
    assert last.before.mean == pytest.approx(float(expected.mean()), rel=1e-4, abs=1e-6)


@pytest.mark.usefixtures("draws")
def test_pairs_by_name_and_other_targets(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    pairs = {"plain": "net.0", "normed": ["net.1"]}
    trainer = make_trainer(ActivationSnapshots(pairs, name="norms"), max_epochs=1)
    numbers = Vectors(targets=lambda x: x[:, :2])  # no classes, so no training here: only the snapshot's loss
    module = Together()
    module.training_step = lambda batch, batch_idx: None  # type: ignore[method-assign]
    trainer.fit(module, numbers, numbers)
    rows = table(tmp_path / "norms.csv")
    assert [(row["network"], row["layer"], row["side"]) for row in rows[:4]] == [
        ("plain", "net.0", "input"),
        ("plain", "net.0", "output"),
        ("normed", "net.1", "input"),
        ("normed", "net.1", "output"),
    ]
    module.eval()
    with torch.no_grad():
        expected = float(F.mse_loss(module.members["plain"](numbers.x), numbers.y))
    assert float(rows[0]["probe_loss"]) == pytest.approx(expected, rel=1e-4)


def test_accumulated_batches_are_not_steps(make_trainer: MakeTrainer) -> None:
    module, callback = ExternalModule(), ActivationSnapshots(every_n_steps=1, num_samples=23)
    looks = []
    module.net.register_forward_hook(lambda _, given, __: looks.append(len(given[0])))
    fit(make_trainer, callback, module, accumulate_grad_batches=2)
    assert steps(callback) == [0, 1, 2, 3, 4]
    assert looks.count(23) == 5


@pytest.mark.parametrize(("most", "left"), [(3, [0, 8, 16, 19]), (4, [0, 8, 16, 19]), (5, [0, 4, 8, 12, 16, 19])])
def test_memory_is_bounded(make_trainer: MakeTrainer, most: int, left: list[int]) -> None:
    callback = ActivationSnapshots(every_n_steps=1, max_snapshots=most)
    fit(make_trainer, callback, max_epochs=None, max_steps=19)
    assert steps(callback) == left


def resume(make_trainer: MakeTrainer, folder: Path, first: ActivationSnapshots, second: ActivationSnapshots) -> None:
    """Two epochs with the first callback, then a third one from the checkpoint with the second."""

    def trainer(callback: ActivationSnapshots, epochs: int) -> Trainer:
        saver = ModelCheckpoint(folder, filename="last", enable_version_counter=False)
        return make_trainer(callback, saver, max_epochs=epochs, enable_checkpointing=True)

    trainer(first, 2).fit(ExternalModule(), Vectors(), Vectors())
    trainer(second, 3).fit(ExternalModule(), Vectors(), Vectors(), ckpt_path=folder / "last.ckpt", weights_only=True)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists")
def test_a_resumed_run_continues(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    first, second = ActivationSnapshots(every_n_steps=3), ActivationSnapshots(every_n_steps=3)
    resume(make_trainer, tmp_path / "kept", first, second)
    assert steps(first) == [0, 3, 6, 8]
    assert steps(second) == [0, 3, 6, 8, 9, 12]
    for before, after in zip(first.snapshots, second.snapshots, strict=False):
        assert repr(before) == repr(after)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists")
def test_other_layers_than_those_of_the_checkpoint_begin_anew(
    make_trainer: MakeTrainer, tmp_path: Path, own_warnings: Any
) -> None:
    second = ActivationSnapshots("net.1")
    with pytest.warns(UserWarning, match="of other layers") as caught:
        resume(make_trainer, tmp_path / "kept", ActivationSnapshots("net.0"), second)
    assert len(own_warnings(caught, "ActivationSnapshots")) == 1
    assert steps(second) == [8, 12]


def test_a_second_training_begins_anew(make_trainer: MakeTrainer) -> None:
    callback = ActivationSnapshots(every_n_steps=1, max_snapshots=4)
    fit(make_trainer, callback)
    fit(make_trainer, callback, max_epochs=1)
    assert steps(callback) == [0, 2, 4]


def state_of(module: nn.Module) -> tuple[list[bool], dict[str, Tensor], Tensor, bool]:
    modes = [layer.training for layer in module.modules()]
    values = {name: value.clone() for name, value in module.state_dict().items()}
    return modes, values, torch.get_rng_state(), any(layer._forward_hooks for layer in module.modules())


@pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_after_an_exception_all_is_as_before(make_trainer: MakeTrainer, mode: Any) -> None:
    class Bomb(nn.Module):
        lit = False

        def forward(self, x: Tensor) -> Tensor:
            if self.lit and len(x) == 24:
                raise KeyError("bomb")
            return x

    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(), Bomb(), nn.Linear(3, 2))
    net[2].eval()  # an own choice of the user
    module = ExternalModule(net)
    seen: list[Any] = []

    class Watch(ActivationSnapshots):
        def on_train_batch_end(self, *args: Any) -> None:
            net[3].lit = True
            seen.append(state_of(module))
            super().on_train_batch_end(*args)

        def on_exception(self, *args: Any) -> None:
            seen.append(state_of(module))

    with pytest.raises(KeyError, match="bomb"):
        fit(make_trainer, Watch(every_n_steps=1, modes=[mode]), module)
    (before, after) = seen
    assert before[0] == after[0]
    assert torch.equal(before[2], after[2])
    assert not after[3]
    for name, value in before[1].items():
        assert torch.equal(value, after[1][name]), name
    assert torch.is_grad_enabled()


@pytest.mark.usefixtures("draws")
def test_an_interrupted_training_leaves_its_pictures(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    class Stops(ExternalModule):
        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            if self.global_step == 5:
                raise RuntimeError("stop")
            return super().training_step(batch, batch_idx)

    with pytest.raises(RuntimeError, match="stop"):
        fit(make_trainer, ActivationSnapshots(every_n_steps=2), Stops())
    assert sorted({int(row["step"]) for row in table(tmp_path / "activations.csv")}) == [0, 2, 4]
    assert (tmp_path / "pictures/activations.gif").is_file()


def test_histograms_for_tensorboard_but_not_for_other_loggers(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    loggers = [TensorBoardLogger(tmp_path, name="", version=""), CSVLogger(tmp_path / "csv")]
    callback = ActivationSnapshots(every_n_steps=4)
    fit(make_trainer, callback, logger=loggers)
    events = EventAccumulator(str(tmp_path), size_guidance={"histograms": 0}).Reload()
    assert set(events.Tags()["histograms"]) == {
        f"activations/net.{layer}/{side}" for layer in (1, 2) for side in ("input", "output")
    }
    found = events.Histograms("activations/net.1/output")
    assert [event.step for event in found] == [0, 4, 8]
    assert found[0].histogram_value.num == 24 * 40
    summary = callback.snapshots[0].layers["eval", "", "net.1"].after
    assert found[0].histogram_value.max == pytest.approx(summary.high)
    quiet = ActivationSnapshots(histograms=False, name="quiet")
    fit(make_trainer, quiet, logger=TensorBoardLogger(tmp_path / "quiet", name="", version=""))
    assert not EventAccumulator(str(tmp_path / "quiet")).Reload().Tags()["histograms"]


@pytest.mark.usefixtures("draws", "other_rank")
def test_another_rank_looks_with_the_others_and_draws_nothing(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(artifacts, "save_table")
    callback = ActivationSnapshots(every_n_steps=1, max_snapshots=4)
    fit(make_trainer, callback, max_epochs=None, max_steps=7)
    assert steps(callback) == [0, 2, 4, 6, 7]
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.usefixtures("draws")
def test_nothing_in_fast_dev_run(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    callback = ActivationSnapshots("no such layer")
    make_trainer(callback, fast_dev_run=True).fit(ExternalModule(), Vectors(), Vectors())
    assert not callback.snapshots
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.usefixtures("draws")
def test_a_broken_network_is_drawn_too(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    module = ExternalModule()
    with torch.no_grad():
        module.net[0].weight.fill_(torch.nan)
    fit(make_trainer, ActivationSnapshots(), module, max_epochs=1)
    rows = table(tmp_path / "activations.csv")
    assert rows[0]["not_finite"] == str(24 * 40)
    assert rows[0]["mean"] == ""
    assert (tmp_path / "pictures/activations.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every_n_steps": 0}, r"every_n_steps \(=0\) must be at least 1"),
        ({"num_samples": 0}, r"num_samples \(=0\) must be at least 1"),
        ({"bins": 4}, r"bins \(=4\) must be at least 8"),
        ({"max_snapshots": 1}, r"max_snapshots \(=1\) must be at least 2"),
        ({"modes": []}, r"modes \(=\[\]\) must be eval, train or both"),
        ({"modes": ["eval", "eval"]}, "modes"),
        ({"modes": ["test"]}, "modes"),
        ({"side": "inside"}, r"side \(=inside\) must be input, output or both"),
        ({"seconds_per_frame": 0.01}, r"seconds_per_frame \(=0.01\) must be"),
    ],
)
def test_values_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ActivationSnapshots(**arguments)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["net.9"], r"ExternalModule has no layer 'net.9': did you mean net\."),
        ({"plain": "net.0"}, "there is one network: pass a plain list"),
        (["idle"], "layer idle of ExternalModule does not run on the probe"),
    ],
)
def test_layers_that_cannot_be_watched(make_trainer: MakeTrainer, layers: str | Sequence[str], message: str) -> None:
    module = ExternalModule()
    module.idle = nn.ReLU()
    with pytest.raises(ValueError, match=message):
        fit(make_trainer, ActivationSnapshots(layers), module)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_without_validation_data(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(ActivationSnapshots())
    with pytest.raises(ValueError, match="the validation loader is missing: add one"):
        trainer.fit(ExternalModule(), Vectors())


def test_a_probe_larger_than_the_data(make_trainer: MakeTrainer) -> None:
    with pytest.raises(ValueError, match=r"num_samples \(=25\) must be at most 24, the validation samples"):
        fit(make_trainer, ActivationSnapshots(num_samples=25))


@pytest.mark.parametrize("layers", [None, "net.1", "net._orig_mod.1"])
def test_a_network_that_was_compiled_is_watched_like_before(make_trainer: MakeTrainer, layers: str | None) -> None:
    class Compiled(ExternalModule):
        def __init__(self, compiles: bool) -> None:
            super().__init__()
            self.net = torch.compile(self.net, backend="eager") if compiles else self.net

    looks = []
    for compiles in (False, True):
        callback = ActivationSnapshots(layers=layers if compiles or layers is None else "net.1", every_n_steps=1)
        fit(make_trainer, callback, Compiled(compiles), max_steps=3)
        looks.append([list(each.layers.values()) for each in callback.snapshots])
    assert len(looks[0]) == 4
    for plain, compiled in zip(*looks, strict=True):
        assert [each.after.mean for each in plain] == pytest.approx([each.after.mean for each in compiled])
