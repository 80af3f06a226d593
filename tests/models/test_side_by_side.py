"""Members of SideBySide end bit for bit like separate runs, and errors are one line."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from shared import quiet_trainer
from torch import Tensor, nn

from lightning_cifar import models
from lightning_cifar.callbacks import LRRangeFinder
from lightning_cifar.cli import main
from lightning_cifar.data import NoisyLineDataModule, SyntheticDataModule
from lightning_cifar.models import SideBySide

SEED = 3


def make_trainer(**kwargs: Any) -> pl.Trainer:
    return quiet_trainer(**{"max_epochs": 2, "log_every_n_steps": 2, **kwargs})


def line(**kwargs: Any) -> NoisyLineDataModule:
    return NoisyLineDataModule(num_points=20, **{"batch_size": 8, "passes": 2, **kwargs})


def images(**kwargs: Any) -> SyntheticDataModule:
    return SyntheticDataModule(num_train=48, num_val=20, num_test=20, batch_size=16, **kwargs)


def regressor(**init_args: Any) -> dict[str, Any]:
    return {"class_path": "MLPRegressor", "init_args": {"hidden_sizes": [6, 5], **init_args}}


def classifier(**init_args: Any) -> dict[str, Any]:
    return {"class_path": "MLP", "init_args": {"hidden_sizes": [6, 5], **init_args}}


def train(module: pl.LightningModule, data: pl.LightningDataModule, **kwargs: Any) -> pl.Trainer:
    trainer = make_trainer(**kwargs)
    trainer.fit(module, data)
    return trainer


def fit_together(members: dict[str, Any], make_data: Any, **kwargs: Any) -> tuple[SideBySide, pl.Trainer]:
    pl.seed_everything(SEED, verbose=False)
    module = SideBySide(members)
    return module, train(module, make_data(), **kwargs)


def fit_alone(settings: dict[str, Any], make_data: Any, **kwargs: Any) -> tuple[pl.LightningModule, pl.Trainer]:
    pl.seed_everything(settings.get("seed", SEED), verbose=False)
    module = getattr(models, settings["class_path"])(**settings["init_args"])
    return module, train(module, make_data(), **kwargs)


def assert_equal_state(one: nn.Module, other: nn.Module) -> None:
    left, right = one.state_dict(), other.state_dict()
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


REGRESSORS = {
    "momentum": regressor(momentum=0.9, nesterov=True, schedule="cosine", warmup=0.3),
    "dropped": regressor(dropout=0.4, optimizer="adam"),
    "norm": regressor(batch_norm=True, dropout=0.2, optimizer="adamw", weight_decay=0.1, decay_norm_and_bias=False),
    "muon": regressor(optimizer="muon", schedule="linear"),
    "rmsprop": regressor(optimizer="rmsprop", dropout=0.1),
}


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"accumulate_grad_batches": 3, "gradient_clip_val": 0.05},
        {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value", "num_sanity_val_steps": 0},
        {"precision": "bf16-mixed"},
        {"max_epochs": -1, "max_steps": 5},
    ],
    ids=["plain", "accumulated and clipped", "clipped by value", "bf16", "max_steps"],
)
def test_members_equal_separate_runs(kwargs: dict[str, Any]) -> None:
    together, trainer = fit_together(REGRESSORS, line, **kwargs)
    for name, settings in REGRESSORS.items():
        alone, own_trainer = fit_alone(settings, line, **kwargs)
        assert_equal_state(together.members[name], alone)
        assert trainer.global_step == own_trainer.global_step
        for metric in ("train/loss", "val/loss"):
            own = own_trainer.callback_metrics.get(metric)
            assert own is None or torch.equal(trainer.callback_metrics[f"{metric}/{name}"], own)


def test_classifiers_equal_separate_runs() -> None:
    members = {
        "mixed": classifier(mixup=0.4, cutmix=0.5),
        "norm": classifier(batch_norm=True, dropout=0.3, schedule="cosine"),
        "lenet": {"class_path": "LeNet", "init_args": {"dropout": 0.2, "hidden": [8]}},
    }
    together, trainer = fit_together(members, images)
    for name, settings in members.items():
        alone, own_trainer = fit_alone(settings, images)
        assert_equal_state(together.members[name], alone)
        for metric, value in own_trainer.callback_metrics.items():
            named = f"{metric}/{name}" if "/" in metric else f"{metric}_{name}"
            assert torch.equal(trainer.callback_metrics[named], value)
    assert len(trainer.callback_metrics) == 3 * len(own_trainer.callback_metrics)


def test_member_with_seed_equals_a_run_with_that_seed() -> None:
    members = {"first": regressor(dropout=0.3), "second": {**regressor(dropout=0.3), "seed": 11}}
    together, _ = fit_together(members, lambda: line(seed=0))
    for name, settings in members.items():
        assert_equal_state(together.members[name], fit_alone(settings, lambda: line(seed=0))[0])


def test_seed_set_before_fit_is_used() -> None:
    members = {"first": regressor(dropout=0.3), "second": {**regressor(dropout=0.3), "seed": 11}}
    pl.seed_everything(SEED, verbose=False)
    together = SideBySide(members)
    pl.seed_everything(5, verbose=False)
    train(together, line(seed=0))
    for name, settings in members.items():
        pl.seed_everything(settings.get("seed", SEED), verbose=False)
        alone = models.MLPRegressor(**settings["init_args"])
        pl.seed_everything(settings.get("seed", 5), verbose=False)
        train(alone, line(seed=0))
        assert_equal_state(together.members[name], alone)


class Guessing(models.MLPRegressor):
    """Also draws random numbers in validation."""

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        torch.rand(3)
        return super().validation_step(batch, batch_idx)


def test_random_numbers_drawn_in_validation_count_except_in_the_sanity_check() -> None:
    settings: dict[str, Any] = {
        "class_path": f"{__name__}.Guessing",
        "init_args": {"hidden_sizes": [5], "dropout": 0.4},
    }
    cases: tuple[dict[str, Any], ...] = ({}, {"num_sanity_val_steps": 0})
    for kwargs in cases:
        together, _ = fit_together({"a": regressor(dropout=0.1), "b": settings}, line, **kwargs)
        pl.seed_everything(SEED, verbose=False)
        alone = Guessing(**settings["init_args"])
        train(alone, line(), **kwargs)
        assert_equal_state(together.members["b"], alone)


def test_a_diverging_member_does_not_change_the_others() -> None:
    members = {"wild": regressor(lr=1e30), "calm": regressor(dropout=0.3)}
    together, _ = fit_together(members, line)
    assert not torch.isfinite(together.members["wild"].network.output.weight).all()  # type: ignore[union-attr, arg-type]
    assert_equal_state(together.members["calm"], fit_alone(members["calm"], line)[0])


def test_members_do_not_change_the_global_random_state() -> None:
    class Note(pl.Callback):
        def __init__(self) -> None:
            self.drawn: list[Tensor] = []

        def on_train_batch_end(self, *args: object) -> None:
            self.drawn.append(torch.rand(()))

    few, many = Note(), Note()
    one, several = {"a": regressor()}, {"a": regressor(), "b": regressor(dropout=0.5), "c": regressor(dropout=0.1)}
    fit_together(one, line, callbacks=[few])
    fit_together(several, line, callbacks=[many])
    assert few.drawn == many.drawn


def test_the_random_state_is_restored_after_an_exception() -> None:
    module = SideBySide({"a": regressor(dropout=0.5)})
    before = torch.get_rng_state()

    def fail() -> None:
        with module._turn("a"):
            torch.rand(())
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert torch.equal(torch.get_rng_state(), before)
    assert "log" not in vars(module.members["a"])


class StopAfter(pl.Callback):
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 == self.epochs


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    members = {name: REGRESSORS[name] for name in ("momentum", "dropped", "norm", "muon")}
    unbroken, _ = fit_together(members, line, max_epochs=4)
    half, trainer = fit_together(members, line, max_epochs=4, callbacks=[StopAfter(2)])
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    torch.manual_seed(99)  # the resumed run does not depend on it
    resumed = SideBySide(members)
    make_trainer(max_epochs=4).fit(resumed, line(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert_equal_state(unbroken, resumed)
    with pytest.raises(AssertionError):
        assert_equal_state(unbroken, half)


def test_settings_of_each_member_override_the_checkpoint(tmp_path: Path) -> None:
    _, trainer = fit_together({"a": regressor(lr=0.1), "b": regressor(lr=0.2)}, line)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    resumed = SideBySide({"a": regressor(lr=0.1), "b": regressor(lr=0.05)})
    again = make_trainer(max_epochs=3)
    again.fit(resumed, line(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert [group["lr"] for group in again.optimizers[0].param_groups] == [0.1, 0.05]


@pytest.mark.parametrize("change", [{"optimizer": "adam"}, {"decay_norm_and_bias": False}])
def test_resuming_with_another_optimizer_raises(tmp_path: Path, change: dict[str, Any]) -> None:
    _, trainer = fit_together({"a": regressor(), "b": regressor()}, line)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    changed = SideBySide({"a": regressor(), "b": regressor(**change)})
    with pytest.raises(ValueError, match=r"contains another optimizer of members.b than .*: keep optimizer"):
        make_trainer(max_epochs=3).fit(changed, line(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)


def test_a_checkpoint_restores_the_members_from_plain_values(tmp_path: Path) -> None:
    module, trainer = fit_together({"a": regressor(), "b": regressor(batch_norm=True)}, line)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert content["class_path"] == "lightning_cifar.models.side_by_side.module.SideBySide"
    assert content["hyper_parameters"]["members"] == {"a": regressor(), "b": regressor(batch_norm=True)}
    assert_equal_state(SideBySide.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True), module)
    assert dict(module.members["b"].hparams)["batch_norm"] is True  # type: ignore[arg-type]


CONFIG = """
seed_everything: 3
trainer:
  max_epochs: 1
  accelerator: cpu
  logger: false
  enable_progress_bar: false
  callbacks: [{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {filename: last}}]
model:
  class_path: SideBySide
  init_args:
    shared: {hidden_sizes: [6, 5]}
    members:
      plain: {class_path: MLPRegressor}
      dropped: {class_path: MLPRegressor, init_args: {dropout: 0.4, lr: 1e-2}}
data: {class_path: NoisyLineDataModule, init_args: {num_points: 20, batch_size: 8, passes: 2}}
"""


def test_the_command_line_gives_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(CONFIG)
    assert main(["fit", "--config", "a.yaml", "--run_dir", "run", "--model.shared.momentum", "0.5"]) == 0
    path = next(Path("run").rglob("last.ckpt"))
    loaded = SideBySide.load_from_checkpoint(path, weights_only=True)
    members = {"plain": regressor(momentum=0.5), "dropped": regressor(momentum=0.5, dropout=0.4, lr=1e-2)}
    together, _ = fit_together(members, line, max_epochs=1)
    assert_equal_state(loaded, together)
    member: Any = loaded.members["dropped"]
    assert dict(member.hparams)["dropout"] == 0.4
    assert main(["test", "--ckpt_path", str(path), "--trainer.logger", "false", "--run_dir", "test"]) == 0


def test_learning_rates_are_named_after_members(tmp_path: Path) -> None:
    monitor = LearningRateMonitor()
    members = {"a": regressor(lr=0.1), "b": regressor(lr=0.2, decay_norm_and_bias=False)}
    fit_together(members, line, callbacks=[monitor], logger=CSVLogger(tmp_path))
    assert {name: values[0] for name, values in monitor.lrs.items()} == {
        "lr/a": 0.1,
        "lr/b-1": 0.2,
        "lr/b-2": 0.2,
    }


class Listener(models.MLPRegressor):
    """Records the arguments of its hooks."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seen: dict[str, Any] = {}

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        assert optimizer is self.trainer.optimizers[0]
        self.seen["own parameters"] = [p for group in optimizer.param_groups for p in group["params"]]

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen["outputs"] = outputs

    def on_train_end(self) -> None:
        self.seen["trainer's epochs"] = self.trainer.max_epochs
        self.trainer.should_stop = True


def test_hooks_of_a_member_get_its_optimizer_and_outputs() -> None:
    pl.seed_everything(SEED, verbose=False)
    listener = {"class_path": f"{__name__}.Listener", "init_args": {"hidden_sizes": [4]}}
    module = SideBySide({"plain": regressor(), "listener": listener})
    trainer = train(module, line())
    member: Any = module.members["listener"]
    assert {id(p) for p in member.seen["own parameters"]} == {id(p) for p in member.parameters()}
    assert member.seen["outputs"].keys() == {"loss"}
    assert not member.seen["outputs"]["loss"].requires_grad
    assert member.seen["trainer's epochs"] == 2
    assert trainer.should_stop


def test_deepcopy() -> None:
    module, _ = fit_together({"a": regressor(dropout=0.5), "b": regressor()}, line)
    twin = copy.deepcopy(module)
    assert_equal_state(module, twin)
    assert twin.members["a"] is not module.members["a"]
    train(twin, line())


def test_shared_arguments() -> None:
    members = {"a": {"class_path": "MLPRegressor"}, "b": regressor(lr=0.2)}
    module = SideBySide(members, shared={"lr": 0.05, "optimizer": "adam", "hidden_sizes": [3]})
    assert [module.member(name).hparams["lr"] for name in "ab"] == [0.05, 0.2]
    assert [module.member(name).hparams["hidden_sizes"] for name in "ab"] == [(3,), (6, 5)]


def test_properties_of_the_data_are_passed_to_members() -> None:
    module = SideBySide({"a": classifier(), "b": classifier(num_classes=7)}, num_classes=7, in_channels=1, image_size=8)
    assert [tuple(output.shape) for output in module(torch.zeros(2, 1, 8, 8)).values()] == [(2, 7), (2, 7)]
    SideBySide({"a": regressor()}, num_classes=7, in_channels=1, image_size=8)


def test_predict_and_test_return_results_by_member() -> None:
    module = SideBySide({"a": regressor(), "b": regressor(batch_norm=True)})
    trainer = make_trainer()
    metrics = trainer.test(module, line(), verbose=False)[0]
    assert metrics.keys() == {"test/loss/a", "test/loss/b"}
    batches: Any = trainer.predict(module, line())
    assert batches[0].keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, r"members \(=\{\}\) must contain at least one: \{plain:"),
        ({"a.b": regressor()}, r"the name 'a.b' must consist of letters, digits and _"),
        ({"a/b": regressor()}, r"the name 'a/b' must consist of letters"),
        ({1: regressor()}, r"the name 1 must consist of letters"),
        ({"items": regressor()}, r"the name 'items' is an attribute of torch's ModuleDict: choose another"),
        ({"a": "MLP"}, r"members.a \(='MLP'\) must be a class with its arguments"),
        ({"a": {"init_args": {}}}, r"members.a.class_path \(=None\) must be the name of a class"),
        ({"a": {"class_path": "MPL"}}, r"members.a.class_path \(='MPL'\): .* Did you mean MLP\? There are MLP, "),
        (
            {"a": {"class_path": "no.such.Thing"}},
            r"members.a.class_path \(='no.such.Thing'\): there is no module no.such",
        ),
        (
            {"a": {"class_path": "torch.nn.Linear"}},
            r"members.a.class_path \(='torch.nn.Linear'\): there is no such Lig",
        ),
        ({"a": {"class_path": "Classifier"}}, r"members.a \(Classifier\) has no trainable parameters"),
        ({"a": {"class_path": "MLP", "init_arg": {}}}, r"members.a.init_arg is unknown. Did you mean init_args\?"),
        ({"a": {"class_path": "MLP", "init_args": [1]}}, r"members.a.init_args \(=\[1\]\) must be arguments by name"),
        ({"a": {"init_args.lr": 0.1}}, r"members.a.init_args.lr would replace the whole member"),
        ({"a": {"class_path": "MLP", "seed": "x"}}, r"members.a.seed \(='x'\) must be a whole number of at least 0"),
        (
            {"a": classifier(hiden_sizes=[3])},
            r"members.a.init_args.hiden_sizes: MLP has no .* Did you mean hidden_sizes\?",
        ),
        ({"a": classifier(lr="fast")}, r"members.a.init_args.lr \(=fast\) must be of type float"),
        ({"a": classifier(batch_norm=1)}, r"members.a.init_args.batch_norm \(=1\) must be of type bool"),
        (
            {"a": classifier(hidden_sizes=[3, "x"])},
            r"members.a.init_args.hidden_sizes \(=x\) must be of type int",
        ),
        (
            {"a": classifier(optimizer="adm")},
            r"members.a.init_args.optimizer \(=adm\) must be one of .* Did you mean adam",
        ),
        ({"a": classifier(activation=torch.relu)}, r"members.a.init_args.activation is a builtin.*: give plain values"),
        ({"a": classifier(lr=-1.0)}, r"members.a \(MLP\): lr \(=-1.0\) must be a positive number"),
        (
            {"a": classifier(), "b": classifier(in_channels=1)},
            r"but a needs inputs of shape \(3, 32, 32\) and b inputs of shape \(1, 32, 32\): use the same",
        ),
        ({"a": classifier(), "b": classifier(num_classes=3)}, r"but a needs num_classes 10 and b num_classes 3"),
        (
            {"a": {"class_path": "SideBySide", "init_args": {"members": {}}}},
            r"SideBySide cannot be a member of SideBySide",
        ),
    ],
)
def test_invalid_members_raise_one_line_errors(members: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        SideBySide(members)
    assert "\n" not in str(caught.value)


def test_an_unknown_shared_argument_raises() -> None:
    with pytest.raises(ValueError, match=r"shared.lrr: MLPRegressor has no such argument. Did you mean lr\?"):
        SideBySide({"a": regressor()}, shared={"lrr": 0.1})


def test_a_member_that_contradicts_the_data_raises() -> None:
    with pytest.raises(ValueError, match=r"members.a.init_args.in_channels \(=1\) differs from that of the data \(3\)"):
        SideBySide({"a": classifier(in_channels=1)}, in_channels=3)


def test_data_of_another_shape_raise() -> None:
    with pytest.raises(
        ValueError, match=r"members.a \(MLP\) expects inputs of shape \(3, 32, 32\), but the data have \(1,\)"
    ):
        train(SideBySide({"a": classifier()}), line())


def test_stack_of_earlier_versions_has_no_effect() -> None:
    torch.manual_seed(SEED)
    module = SideBySide({"a": regressor(), "b": regressor()}, stack="auto")
    torch.manual_seed(SEED)
    with pytest.warns(UserWarning, match=r"stack \(=True\) has no effect"):
        other = SideBySide({"a": regressor(), "b": regressor()}, stack=True)
    train(module, line())
    train(other, line())
    assert_equal_state(module, other)


def test_settings_that_members_cannot_share_raise() -> None:
    members = {"a": regressor(), "b": regressor(batch_norm=True)}
    with pytest.raises(ValueError, match="a learning rate for each member: find the learning rate of a member"):
        train(SideBySide(members), line(), callbacks=[LRRangeFinder(num_steps=10)])
    trainer = make_trainer()
    trainer.precision_plugin.scaler = object()  # type: ignore[attr-defined]  # as 16-mixed has on a GPU
    with pytest.raises(ValueError, match="choose bf16-mixed or 32-true"):
        trainer.fit(SideBySide(members), line())


class Stubborn(models.MLPRegressor):
    """Has optimizers and schedules of a given kind."""

    def __init__(self, way: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.way = way

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        other = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        step = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        ways = {
            "none": None,
            "one": [optimizer],
            "two": [optimizer, other],
            "lbfgs": torch.optim.LBFGS(self.parameters()),
            "plateau": {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val/loss"}},
            "epochs": ([optimizer], [step]),
        }
        return ways[self.way]


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("none", "members.b has no optimizer"),
        ("two", "members.b has 2 optimizers: a member of SideBySide needs one"),
        ("lbfgs", "members.b: LBFGS evaluates the loss repeatedly in a step"),
        ("plateau", "members.b: ReduceLROnPlateau cannot be combined with other schedules"),
        ("epochs", "members' schedules step at different times"),
    ],
)
def test_optimizers_that_cannot_step_together_raise(way: str, message: str) -> None:
    stubborn = {"class_path": f"{__name__}.Stubborn", "init_args": {"way": way}}
    with pytest.raises(ValueError, match=message):
        train(SideBySide({"a": regressor(), "b": stubborn}), line())


def test_schedules_by_epoch_step_together() -> None:
    stubborn = {"class_path": f"{__name__}.Stubborn", "init_args": {"way": "epochs"}}
    without = {"class_path": f"{__name__}.Stubborn", "init_args": {"way": "one"}}
    module = SideBySide({"a": stubborn, "b": without, "c": stubborn})
    trainer = train(module, line(), max_epochs=2)
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == pytest.approx([1e-3, 0.1, 1e-3])
