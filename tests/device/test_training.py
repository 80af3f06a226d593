"""Steps of all models stay on their device and do not wait for it, except where values are logged."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_cifar import models
from lightning_cifar.callbacks import EMA, NonFiniteGuard
from lightning_cifar.callbacks.non_finite_guard import NonFiniteError
from lightning_cifar.models import Classifier

OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "muon")
MODELS: dict[str, Callable[..., Any]] = {
    "LeNet": models.LeNet,
    "DilatedNet": models.DilatedNet,
    "ResNetCIFAR": lambda **kwargs: models.ResNetCIFAR(depth=20, **kwargs),
    "MLP": lambda **kwargs: models.MLP(in_channels=3, image_size=32, dropout=0.2, **kwargs),
    "ConvNet": models.ConvNet,
    "PretrainedResNet": lambda **kwargs: models.PretrainedResNet("resnet18", weights=None, input_size=64, **kwargs),
    "PretrainedVGG": lambda **kwargs: models.PretrainedVGG(weights=None, input_size=64, **kwargs),
    "PretrainedSqueezeNet": lambda **kwargs: models.PretrainedSqueezeNet(weights=None, input_size=64, **kwargs),
    "PretrainedAlexNet": lambda **kwargs: models.PretrainedAlexNet(weights=None, input_size=64, **kwargs),
    "PretrainedInception": lambda **kwargs: models.PretrainedInception(weights=None, train="all", **kwargs),
    "SpeedNet": models.SpeedNet,
}
SETTINGS: list[dict[str, Any]] = [{"optimizer": name} for name in OPTIMIZERS]
SETTINGS += [{"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0, "label_smoothing": 0.1}]
SETTINGS += [{"loss": "multi_margin", "decay_norm_and_bias": False}]


def build(make: Callable[..., Any], device: Any, *, large: bool = False, **settings: Any) -> Any:
    return device.build(lambda: make(lr=0.1, **settings), large=large)


def backward(loss: Tensor, model: Any, device: Any) -> None:
    """On ``cuda``, gradients of the right shape: a backward pass would need a driver. ``meta`` has a real one."""
    if device.device.type == "meta":
        loss.backward()
    else:
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None


def batch(device: Any, num: int = 4, channels: int = 3) -> tuple[Tensor, Tensor]:
    images = torch.zeros(num, channels, 32, 32, device=device.device).contiguous(memory_format=torch.channels_last)
    return images, torch.zeros(num, dtype=torch.int64, device=device.device)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # by MuonAdamW: both are 0
@pytest.mark.parametrize(
    ("name", "settings"),
    [*(("LeNet", settings) for settings in SETTINGS), *((name, {}) for name in MODELS if name != "LeNet")],
    ids=str,
)
def test_steps(name: str, settings: dict[str, Any], device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if device.device.type == "meta" and "loss" in settings:
        pytest.skip("torch cannot trace the backward pass of the hinge loss")
    model = build(MODELS[name], device, large=name.startswith("Pretrained"), **settings)
    optimizer = model.make_optimizer()
    scheduler = model.make_scheduler(optimizer, 10)
    logged: dict[str, Any] = {}
    monkeypatch.setattr(model, "log", lambda name, value, **_: logged.update({name: value}))
    monkeypatch.setattr(model, "log_dict", lambda values, **_: logged.update(values))
    model.on_train_epoch_start()
    for step in range(2):
        model._log_every_n_steps = step  # the first is not logged, the second is
        images = batch(device)
        device.clear()
        loss = model.training_step(images, 0)["loss"]
        backward(loss, model, device)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        assert device.waits == device.doubles == []
        assert loss.device.type == device.device.type
    assert {"train/loss_step", "loss"} <= logged.keys()
    device.clear()
    with torch.no_grad():
        model.eval()
        model.validation_step(images, 0)
        model.test_step(images, 0)
        model.predict_step(images, 0)
    assert device.waits == device.doubles == []
    assert {"val/loss", "test/accuracy"} <= logged.keys()


@pytest.mark.parametrize("device", ["meta"], indirect=True)
def test_side_by_side(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    member = {"class_path": "LeNet", "init_args": {"lr": 0.1}}
    model = build(lambda lr: models.SideBySide({"a": member, "b": member}), device)
    device.clear()
    for each in model.members.values():
        each.on_train_epoch_start()
        loss = each.training_step(batch(device), 0)["loss"]
        backward(loss, each, device)
        each.make_optimizer().step()
    assert device.waits == device.doubles == []


def trainer_of(**settings: Any) -> Any:
    defaults = {"log_every_n_steps": 3, "world_size": 1, "global_step": 0, "current_epoch": 0}
    return SimpleNamespace(**{**defaults, "precision_plugin": None, **settings})


@pytest.mark.parametrize("device", ["cuda"], indirect=True)
def test_the_guard_reads_at_logging_points(device: Any) -> None:
    model = build(models.LeNet, device)
    guard, optimizer, loss = NonFiniteGuard(), model.make_optimizer(), torch.zeros((), device=device.device)
    backward(loss, model, device)
    num_reads = []
    for step in range(7):
        trainer = trainer_of(global_step=step)
        guard.on_train_batch_start(trainer, model, None, step)
        guard.on_before_backward(trainer, model, loss)
        device.clear()
        guard.on_before_optimizer_step(trainer, model, optimizer)
        num_reads.append(len(device.waits))
    assert [number > 0 for number in num_reads] == [False, False, True, False, False, True, False]
    device.clear()
    guard.on_save_checkpoint(trainer, model, {})
    assert device.waits, "the steps since the last check"
    device.clear()
    guard.on_train_epoch_end(trainer, model)
    assert not device.waits


@pytest.mark.parametrize("hook", ["on_save_checkpoint", "on_train_epoch_end", "on_train_end"])
def test_the_guard_names_the_first_step_that_is_not_finite(hook: str) -> None:
    guard = NonFiniteGuard()
    model = models.LeNet()
    for step, value in enumerate([1.0, float("nan"), float("inf")]):
        guard._unread.append((torch.tensor(value), guard._message(trainer_of(global_step=step, current_epoch=4))))
    arguments = {"checkpoint": {}} if hook == "on_save_checkpoint" else {}
    with pytest.raises(NonFiniteError, match=r"step 1 \(epoch 4"):
        getattr(guard, hook)(trainer_of(), model, **arguments)
    guard.on_train_end(trainer_of(), model)  # reported once


def fit_average(callback: Any, model: Classifier, steps: int = 4) -> list[Tensor]:
    """Weights of the average after updates with changing weights."""
    callback.setup(trainer_of(), model, "fit")
    for step in range(1, steps):
        with torch.no_grad():
            for number, value in enumerate([*model.parameters(), *model.buffers()]):
                value.add_(step * number)
        callback.on_train_batch_end(trainer_of(global_step=step), model, None, None, 0)
    average = callback._average_model
    return [*average.parameters(), *average.buffers()]


@pytest.mark.parametrize("every", [1, 2])
def test_the_average_has_the_bits_of_lightnings(every: int) -> None:
    from lightning.pytorch.callbacks import EMAWeightAveraging

    torch.manual_seed(0)
    model = models.ResNetCIFAR(depth=8)
    settings = {"decay": 0.15, "update_every_n_steps": every}  # so small that it does not need to grow
    ours, theirs = (fit_average(kind(**settings), copy_of(model)) for kind in (EMA, EMAWeightAveraging))
    assert len(ours) == len(theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("device", [None, "cpu"], ids=["fast", "of Lightning"])
def test_the_initial_weights_do_not_dominate_the_average_of_a_short_training(device: str | None) -> None:
    model, callback = models.LeNet(), EMA(decay=0.999, device=device)
    with torch.no_grad():
        model.network[0].bias.fill_(0)
    for step in range(41):
        trainer = trainer_of(global_step=step)
        if step == 0:
            callback.setup(trainer, model, "fit")
        else:
            callback.on_train_batch_end(trainer, model, None, None, 0)
        with torch.no_grad():
            model.network[0].bias.fill_(1)
    average = callback._average_model.module.network[0].bias
    assert average.min() > 0.99, "a constant decay gives 0.04"


def copy_of(model: Classifier) -> Classifier:
    copied = models.ResNetCIFAR(depth=8)
    copied.load_state_dict(model.state_dict())
    return copied


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # when the network is copied
@pytest.mark.parametrize("device", ["cuda"], indirect=True)
def test_the_average_is_updated_without_a_read(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Classifier, "to", lambda self, device: self)  # fake tensors are not moved
    model = build(lambda lr: models.ResNetCIFAR(depth=8, lr=lr), device)
    callback = EMA()
    callback.setup(trainer_of(), model, "fit")
    for step in (1, 2):
        device.clear()
        callback.on_train_batch_end(trainer_of(global_step=step), model, None, None, 0)
    assert device.waits == device.doubles == []
