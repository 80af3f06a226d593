"""Members trained as one stacked network are what they would be apart, within rounding."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

from lightning_cifar import models
from lightning_cifar.data import NoisyLineDataModule, SyntheticDataModule
from lightning_cifar.models import SideBySide
from lightning_cifar.models.side_by_side.flat_parameters import adam_step, sgd_step
from lightning_cifar.models.side_by_side.lockstep import Stream
from lightning_cifar.models.side_by_side.stackable import make_stacks
from lightning_cifar.models.side_by_side.stacked import Stack

CPU = torch.device("cpu")


def make_trainer(**kwargs: Any) -> pl.Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "precision": "64-true",
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 2,
    }
    return pl.Trainer(**{**defaults, **kwargs})


def line() -> NoisyLineDataModule:
    return NoisyLineDataModule(num_points=24, batch_size=8, passes=2, seed=0)


def images() -> SyntheticDataModule:
    return SyntheticDataModule(num_train=48, num_val=20, num_test=20, batch_size=16, seed=0)


def group(class_path: str, *settings: dict[str, Any], **shared: Any) -> dict[str, Any]:
    return {
        f"m{i}": {"class_path": class_path, "init_args": {**shared, **own}, "seed": i} for i, own in enumerate(settings)
    }


def regressors(*settings: dict[str, Any], **shared: Any) -> dict[str, Any]:
    return group("MLPRegressor", *settings, **{"hidden_sizes": [6, 5], **shared})


def fit(members: dict[str, Any], data: Any, *, stack: Any, **kwargs: Any) -> tuple[SideBySide, pl.Trainer]:
    torch.manual_seed(0)
    module, trainer = SideBySide(members, stack=stack), make_trainer(**kwargs)
    trainer.fit(module, data)
    return module, trainer


def assert_close_state(one: nn.Module, other: nn.Module, tolerance: float = 1e-10) -> None:
    """Compare all weights and buffers.

    The default is for float64. Training amplifies rounding, most of all with batch norm after a layer of few units: by
    about 2000 in these cases, so float64 states differ by 1e-13 and float32 states by 1e-4, on any processor.
    """
    left, right = one.state_dict(), other.state_dict()
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=tolerance, atol=tolerance)


SGD = ({"lr": 0.1, "momentum": 0.0}, {"lr": 0.01, "momentum": 0.9, "nesterov": True}, {"weight_decay": 0.1})
ADAM = ({"lr": 0.01, "schedule": "cosine"}, {"lr": 0.003, "weight_decay": 0.1}, {"lr": 0.002, "warmup": 0.5})
# No batch norm with Adam: the gradient of a bias before it is but rounding, which Adam scales up to whole steps.
CASES: dict[str, tuple[dict[str, Any], Any, dict[str, Any]]] = {
    "sgd": (regressors(*SGD), line, {}),
    "batch norm": (regressors(*SGD, batch_norm=True, dropout=0.2), line, {}),
    "adam": (regressors(*ADAM, optimizer="adam", dropout=0.2), line, {}),
    "adamw": (regressors(*ADAM, optimizer="adamw", decay_norm_and_bias=False), line, {}),
    "rates of dropout": (
        regressors({"dropout": 0.1}, {"dropout": 0.6}, {"dropout": 0.3}, dropout_place="before_activation"),
        line,
        {},
    ),
    "clipped, accumulated": (regressors(*SGD), line, {"gradient_clip_val": 0.05, "accumulate_grad_batches": 2}),
    "clipped by value": (regressors(*SGD), line, {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}),
    "lenet": (group("LeNet", {"lr": 0.1}, {"lr": 0.05, "dropout": 0.4}, hidden=[8], dropout=0.2), images, {}),
    "smoothed": (group("MLP", {"label_smoothing": 0.1}, {}, hidden_sizes=[5], batch_norm=True), images, {}),
}


def results(module: SideBySide, trainer: pl.Trainer) -> dict[str, Tensor]:
    metrics = {f"metric {name}": value for name, value in trainer.callback_metrics.items()}
    return {name: value.double() for name, value in (module.state_dict() | metrics).items()}


@pytest.mark.parametrize("case", CASES)
def test_stacked_is_unstacked_within_rounding(case: str) -> None:
    members, make_data, kwargs = CASES[case]
    stacked = results(*fit(members, make_data(), stack=True, **kwargs))
    module, trainer = fit(members, make_data(), stack=False, **kwargs)
    apart = results(module, trainer)
    torch.testing.assert_close(stacked, apart, rtol=1e-10, atol=1e-10)
    assert any(
        not torch.equal(one, other)
        for one, other in zip(module.members["m0"].parameters(), module.members["m1"].parameters(), strict=True)
    )

    # In float32 the stacked network errs as the members apart do: the errors against float64 have one size.
    single = {"precision": "32-true", **kwargs}
    stacked32 = results(*fit(members, make_data(), stack=True, **single))
    apart32 = results(*fit(members, make_data(), stack=False, **single))
    error = max(float((apart32[name] - value).abs().max()) for name, value in apart.items())
    torch.testing.assert_close(stacked32, apart, rtol=0, atol=10 * error + 1e-6)


def test_two_architectures_make_two_stacks() -> None:
    members = {
        **{f"plain_{i}": settings for i, settings in enumerate(regressors({}, {"lr": 0.1}).values())},
        **{f"norm_{i}": settings for i, settings in enumerate(regressors({}, {"lr": 0.1}, batch_norm=True).values())},
        "single": regressors({}, hidden_sizes=[3])["m0"],
    }
    seen: list[tuple[str, ...]] = []

    class Note(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
            seen.extend(stack.names for stack in pl_module._stacks)

    auto, _ = fit(members, line(), stack="auto", callbacks=[Note()])
    assert seen == [("plain_0", "plain_1"), ("norm_0", "norm_1")]
    assert_close_state(auto, fit(members, line(), stack=False)[0])


def test_checkpoints_do_not_tell_stacked_from_unstacked(tmp_path: Path) -> None:
    members = regressors(*ADAM, optimizer="adam", dropout=0.2)

    class StopAfterOne(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            trainer.should_stop = trainer.current_epoch == 0

    unbroken, _ = fit(members, line(), stack=False, max_epochs=3)
    for first, second in ((True, False), (False, True), (True, True)):
        _, half = fit(members, line(), stack=first, max_epochs=3, callbacks=[StopAfterOne()])
        half.save_checkpoint(tmp_path / "half.ckpt")
        resumed = SideBySide(members, stack=second).double()  # else the weights pass through float32
        make_trainer(max_epochs=3).fit(resumed, line(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
        assert_close_state(resumed, unbroken)


def test_a_member_is_itself_while_it_trains_and_has_memory_of_its_own_afterwards() -> None:
    moved: list[bool] = []

    class Watch(pl.Callback):
        before: Tensor

        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *args: object) -> None:
            self.before = pl_module.members["m1"].network.output.weight.detach().clone()

        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: object) -> None:
            moved.append(not torch.equal(self.before, pl_module.members["m1"].network.output.weight))

    module, _ = fit(regressors({}, {}), line(), stack=True, callbacks=[Watch()])
    assert moved
    assert all(moved)
    for tensor in (*module.parameters(), *module.buffers()):
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def build(members: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Stream]]:
    module = SideBySide(members)
    optimizers = {name: module.member(name).make_optimizer() for name in members}  # type: ignore[operator]
    return {name: module.member(name) for name in members}, optimizers, module._streams


def test_dropouts_of_a_stacked_member_are_those_it_draws_alone() -> None:
    members, optimizers, streams = build(group("LeNet", {"dropout": 0.5}, {"dropout": 0.2}, {"dropout": 0.3}))
    inputs = torch.randn(5, 3, 32, 32).to(memory_format=torch.channels_last)
    expected = []
    for name, member in members.items():
        with streams[name].flowing(CPU, keep=False):
            expected.append(member(inputs))
    stack = Stack(members, optimizers, streams)
    for answer, own in zip(stack(inputs), expected, strict=True):
        torch.testing.assert_close(answer, own, rtol=1e-4, atol=1e-5)
    for name, member in members.items():  # the second batch draws on
        with streams[name].flowing(CPU, keep=False):
            expected.append(member(inputs))
    for answer, own in zip(stack(inputs), expected[3:], strict=True):
        torch.testing.assert_close(answer, own, rtol=1e-4, atol=1e-5)


def test_the_gradients_are_those_of_each_member() -> None:
    members, optimizers, streams = build(group("LeNet", {}, {}, hidden=[7]))
    inputs = torch.randn(4, 3, 32, 32)
    losses = [member(inputs).square().mean() for member in members.values()]
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    expected = [torch.cat([p.grad.flatten() for p in member.parameters()]) for member in members.values()]
    stack = Stack(members, optimizers, streams)
    torch.stack([answer.square().mean() for answer in stack(inputs)]).sum().backward()  # type: ignore[no-untyped-call]
    for k, own in enumerate(expected):
        gradient = stack._rows[0].grad
        assert gradient is not None
        parts = [place.view(gradient[k]).flatten() for place in stack._places[0]]
        torch.testing.assert_close(torch.cat(parts), own, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("same", [False, True], ids=["own settings", "equal settings"])
def test_steps_are_those_of_torchs_optimizers(kind: type[torch.optim.Optimizer], same: bool) -> None:
    own: list[dict[str, Any]]
    if kind is torch.optim.SGD:
        own = [
            {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
            {"lr": 0.3, "momentum": 0.0},
            {"lr": 0.2, "momentum": 0.5, "weight_decay": 0.1},
        ]
    else:
        own = [
            {"lr": 0.1, "weight_decay": 0.3, "betas": (0.8, 0.9)},
            {"lr": 0.03, "eps": 1e-3},
            {"lr": 0.2, "betas": (0.5, 0.99), "weight_decay": 0.1},
        ]
    settings = [own[0]] * 3 if same else own
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 7, generator=generator)
    parameters = [nn.Parameter(row.clone()) for row in start]
    optimizers = [kind([parameter], **each) for parameter, each in zip(parameters, settings, strict=True)]
    groups = [optimizer.param_groups[0] for optimizer in optimizers]
    rows, step = start.clone(), sgd_step if kind is torch.optim.SGD else adam_step
    names = ("momentum_buffer",) if kind is torch.optim.SGD else ("exp_avg", "exp_avg_sq")
    state = {name: torch.zeros_like(rows) for name in names} | {"step": torch.zeros(())}
    for _ in range(5):
        gradient = torch.randn(3, 7, generator=generator)
        for parameter, row, optimizer in zip(parameters, gradient, optimizers, strict=True):
            parameter.grad = row.clone()
            optimizer.step()
        step(rows, gradient.clone(), state, groups)
        torch.testing.assert_close(rows, torch.stack([p.detach() for p in parameters]), rtol=1e-5, atol=1e-6)


def test_clipping_is_by_each_members_own_norm() -> None:
    members, optimizers, streams = build(regressors({}, {}, {}, decay_norm_and_bias=False))
    stack = Stack(members, optimizers, streams)
    for rows in stack._rows:
        rows.grad = torch.randn_like(rows) * torch.tensor([[0.001], [1.0], [10.0]])
    expected = []
    for k in range(3):
        tensors = [nn.Parameter(torch.zeros_like(rows[k])) for rows in stack._rows]
        for tensor, rows in zip(tensors, stack._rows, strict=True):
            assert rows.grad is not None
            tensor.grad = rows.grad[k].clone()
        nn.utils.clip_grad_norm_(tensors, 0.5)
        expected.append([tensor.grad for tensor in tensors])
    stack.clip(0.5, None)
    for k, gradients in enumerate(expected):
        for gradient, rows in zip(gradients, stack._rows, strict=True):
            assert rows.grad is not None
            torch.testing.assert_close(rows.grad[k], gradient)


class Scaled(models.MLPRegressor):
    """Its forward pass depends on what its layers do not show."""

    def __init__(self, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = scale

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) * self.scale


class Peeking(models.MLPRegressor):
    """Its forward pass looks at a number."""

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = super().forward(inputs)
        return outputs if float(outputs.detach().sum()) > 0 else -outputs


class Hooked(models.MLPRegressor):
    def on_after_backward(self) -> None:
        """Something."""


REFUSED = {
    "alone": (regressors({}, {"hidden_sizes": [3]}), "m0 cannot be stacked: no other member has its architecture"),
    "optimizer": (regressors({}, {}, optimizer="rmsprop"), "RMSprop is not one of sgd, adam and adamw"),
    "mixup": (group("MLP", {}, {}, hidden_sizes=[3], mixup=0.2), "mixup and cutmix give each member inputs of its own"),
    "other function": (
        group(f"{__name__}.Scaled", {"scale": 1.0}, {"scale": 2.0}),
        "m0 and m1 cannot be stacked: stacked, it computes something else",
    ),
    "value": (group(f"{__name__}.Peeking", {}, {}), "torch cannot map over it"),
    "hook": (group(f"{__name__}.Hooked", {}, {}), "it has on_after_backward, which looks at its own gradients"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_stacked_is_told_and_trained_apart(case: str) -> None:
    members, message = REFUSED[case]
    make_data = images if case == "mixup" else line
    with pytest.raises(ValueError, match=message):
        fit(members, make_data(), stack=True)
    assert_exactly_equal(fit(members, make_data(), stack="auto")[0], fit(members, make_data(), stack=False)[0])


def assert_exactly_equal(one: nn.Module, other: nn.Module) -> None:
    for left, right in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(left, right)


def test_a_failed_trial_leaves_no_trace() -> None:
    members, optimizers, streams = build(group(f"{__name__}.Peeking", {}, {}, batch_norm=True, dropout=0.3))
    before = {
        name: {key: value.clone() for key, value in member.state_dict().items()} for name, member in members.items()
    }
    states = {name: stream.state_dict()["cpu"].clone() for name, stream in streams.items()}
    drawn = torch.get_rng_state()
    assert make_stacks(members, optimizers, streams, stack="auto", device=CPU) == []
    for name, member in members.items():
        assert all(torch.equal(value, before[name][key]) for key, value in member.state_dict().items())
        assert all(module.training for module in member.modules())
        assert torch.equal(streams[name].state_dict()["cpu"], states[name])
    assert torch.equal(torch.get_rng_state(), drawn)


def test_what_was_decided_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        make_stacks(*build(group("LeNet", {}, {}, hidden=[3])), stack="auto", device=CPU)
        assert "m0, m1 are not stacked: convolutions of several networks at once are slower on a CPU" in caplog.text
        make_stacks(*build(regressors({}, {})), stack="auto", device=CPU)
        assert "m0, m1 train as one stacked network" in caplog.text
    assert make_stacks(*build(regressors({}, {})), stack="auto", device=CPU, world_size=2) == []


class Careless(models.MLPRegressor):
    """Its training step goes around its forward pass, or changes what goes in."""

    def __init__(self, way: str = "around", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.way = way

    def training_loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        inputs, targets = batch
        outputs = self.network(inputs) if self.way == "around" else self(inputs + 1)
        return self.loss(outputs, targets), outputs


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("around", "members.m0 made 0 forward passes in a step, not one: pass stack=false"),
        ("changed", "members.m0 changes its inputs before the forward pass: pass stack=false"),
    ],
)
def test_a_step_that_the_stack_cannot_serve_is_told(way: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        fit(group(f"{__name__}.Careless", {}, {}, way=way), line(), stack="auto")
