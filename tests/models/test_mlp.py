"""Fully connected networks: published sizes, order of the layers, place of dropout."""

from pathlib import Path
from typing import Any

import pytest
import torch
from shared import quiet_trainer
from torch import Tensor, nn

from lightning_cifar.data import NoisyLineDataModule, SyntheticDataModule
from lightning_cifar.models import MLP, Classifier, MLPRegressor, Regressor, Trainable

GREY: dict[str, Any] = {"in_channels": 1, "image_size": 28}


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (MLP([48, 24], **GREY), 39_106),
        (MLP([48, 24], batch_norm=True, **GREY), 39_250),
        (MLP([]), 3072 * 10 + 10),  # the linear classifier
        (MLP([64]), 3072 * 64 + 64 + 64 * 10 + 10),  # the two-layer network
        (MLPRegressor([100, 100]), 10_401),
        (MLPRegressor([100, 100], dropout=0.2), 10_401),
        (MLPRegressor([], in_features=3, out_features=2), 8),
    ],
)
def test_number_of_parameters(model: Trainable, count: int) -> None:
    assert num_parameters(model) == count


def names(model: Trainable) -> list[str]:
    return [name for name, _ in model.network.named_children()]


def test_the_order_of_the_layers() -> None:
    assert names(MLP([])) == ["flatten", "output"]
    assert names(MLP([8, 4], batch_norm=True, dropout=0.5)) == [
        *("flatten", "linear_1", "norm_1", "activation_1", "dropout_1"),
        *("linear_2", "norm_2", "activation_2", "dropout_2", "output"),
    ]
    assert names(MLPRegressor([8], batch_norm=True, dropout=0.5, dropout_place="before_activation")) == [
        *("linear_1", "norm_1", "dropout_1", "activation_1", "output")
    ]
    assert [module.p for module in MLPRegressor(dropout=0.2).modules() if isinstance(module, nn.Dropout)] == [0.2] * 2


@pytest.mark.parametrize(
    ("name", "function"), [("relu", torch.relu), ("tanh", torch.tanh), ("sigmoid", torch.sigmoid), ("gelu", None)]
)
def test_forward_pass_equals_matrix_products(name: Any, function: Any) -> None:
    model = MLP([6, 5], name, image_size=4)
    images = torch.randn(7, 3, 4, 4).to(memory_format=torch.channels_last)
    x = images.reshape(7, -1)
    for layer in ("linear_1", "linear_2"):
        linear = model.network.get_submodule(layer)
        x = (function or nn.functional.gelu)(x @ linear.weight.T + linear.bias)  # type: ignore[operator]
    output = model.network.get_submodule("output")
    torch.testing.assert_close(model(images), x @ output.weight.T + output.bias)  # type: ignore[operator]


def test_place_of_dropout_matters_for_tanh_but_not_for_relu() -> None:
    x = torch.randn(64, 1)

    def trained(**settings: Any) -> Tensor:
        torch.manual_seed(0)
        model = MLPRegressor([50], dropout=0.5, **settings)
        torch.manual_seed(1)
        result: Tensor = model(x)
        return result

    before, after = (trained(dropout_place=place) for place in ("before_activation", "after_activation"))
    torch.testing.assert_close(before, after)
    before, after = (trained(activation="tanh", dropout_place=p) for p in ("before_activation", "after_activation"))
    assert not torch.allclose(before, after)


def test_batch_norm_is_before_the_activation() -> None:
    model = MLP([16], batch_norm=True, image_size=4)
    seen: list[Tensor] = []
    model.network.get_submodule("norm_1").register_forward_hook(lambda module, given, result: seen.append(result))
    model(10 * torch.randn(200, 3, 4, 4) + 5)
    torch.testing.assert_close(seen[0].mean(0), torch.zeros(16), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[0].std(0, correction=0), torch.ones(16), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP([0]), r"hidden_sizes \(=\[0\]\) must contain sizes of at least 1"),
        (lambda: MLP(dropout=1.0), r"dropout \(=1.0\) must be at least 0 and below 1"),
        (lambda: MLP(dropout=-0.1), r"dropout \(=-0.1\)"),
        (lambda: MLPRegressor(in_features=0), r"in_features \(=0\) must be at least 1"),
        (lambda: MLPRegressor(out_features=0), r"out_features \(=0\) must be at least 1"),
        (lambda: MLPRegressor([5, -1]), r"hidden_sizes \(=\[5, -1\]\)"),
        (lambda: MLPRegressor(lr=0.0), r"lr \(=0.0\) must be a positive number"),
    ],
)
def test_invalid_settings_raise(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("model", "data", "base"),
    [
        (
            MLP([8], batch_norm=True, dropout=0.1, activation="tanh"),
            SyntheticDataModule(num_train=40, num_val=20, num_test=10, batch_size=20, augment=[]),
            Classifier,
        ),
        (MLPRegressor([8], dropout=0.1, optimizer="adam", schedule="cosine"), NoisyLineDataModule(passes=3), Regressor),
    ],
)
def test_training_and_restoring_from_a_checkpoint(model: Any, data: Any, base: type, tmp_path: Path) -> None:
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    before = [weight.detach().clone() for weight in weights]
    trainer = quiet_trainer(max_epochs=2, default_root_dir=tmp_path)
    trainer.fit(model, data)
    assert isinstance(model, base)
    assert not any(torch.equal(old, new) for old, new in zip(before, weights, strict=True))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert content["class_path"].endswith(f"mlp.{type(model).__name__}")
    again = type(model).load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert dict(again.hparams) == dict(model.hparams)
    x = torch.randn(5, *model.example_input_array.shape[1:])
    assert torch.equal(model.eval()(x), again.eval()(x))
