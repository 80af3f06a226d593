"""Plain convolutional networks: published sizes and shapes, settings for one and for all convolutions."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_cifar.models import ConvNet

OWN: dict[str, Any] = {
    "channels": [96, 96, 192, 192],
    "strides": [1, 2, 1, 2],
    "pooling": "none",
    "flat_norm": True,
    "hidden": [256],
}
SMALL: dict[str, Any] = {
    "channels": [3, 6],
    "kernels": [5, 3],
    "pooling": "average",
    "hidden": [25],
    "in_channels": 1,
    "image_size": 28,
}


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({**OWN, "dropout": [0, 0.2, 0, 0.5]}, 1_825_002),
        ({**OWN, "dropout": [0.5, 0.5, 0, 0.5], "batch_norm": True}, 1_826_154),
        (SMALL, 4_281),
        ({**SMALL, "batch_norm": [False, True]}, 4_281 + 12),
    ],
)
def test_number_of_parameters(settings: dict[str, Any], count: int) -> None:
    assert sum(parameter.numel() for parameter in ConvNet(**settings).parameters()) == count


def shapes(model: ConvNet) -> dict[str, tuple[int, ...]]:
    """Return the output shape of each layer, without the batch axis."""
    x, found = torch.zeros(1, model.in_channels, model.image_size, model.image_size), {}
    for name, layer in model.eval().network.named_children():
        x = layer(x)
        found[name] = tuple(x.shape[1:])
    return found


@pytest.mark.parametrize(
    ("settings", "last", "shape"),
    [
        ({"channels": [16], "kernels": 5, "paddings": 1, "strides": 2, "pooling": "none"}, "conv_1", (16, 15, 15)),
        ({"channels": [8, 16], "pooling": "none"}, "conv_2", (16, 28, 28)),
        ({"channels": [8, 16], "kernels": 5, "pooling": "average"}, "pool_2", (16, 5, 5)),
        ({**OWN}, "flatten", (4800,)),
        ({**SMALL}, "flatten", (150,)),
        ({"channels": [4], "paddings": 1, "pooling": "max"}, "pool_1", (4, 16, 16)),
    ],
)
def test_shapes_as_published(settings: dict[str, Any], last: str, shape: tuple[int, ...]) -> None:
    assert shapes(ConvNet(**settings))[last] == shape


def test_the_order_of_the_layers() -> None:
    model = ConvNet([2, 3, 4], batch_norm=[True, False, True], pooling=["average", "none", "max"], dropout=[0, 0.5, 0])
    assert list(shapes(model)) == [
        *("conv_1", "norm_1", "activation_1", "pool_1"),
        *("conv_2", "activation_2", "dropout_2"),
        *("conv_3", "norm_3", "pool_3", "activation_3"),
        *("flatten", "linear_1", "activation_flat_1", "output"),
    ]
    assert list(shapes(ConvNet([2], hidden=[], flat_norm=True)))[-3:] == ["flatten", "norm_flat", "output"]


def test_forward_pass_of_the_small_network() -> None:
    model = ConvNet(**SMALL, activation="tanh", batch_norm=[False, True])
    layers = model.network
    x = torch.randn(5, 1, 28, 28)

    def layer(name: str) -> Any:
        return layers.get_submodule(name)

    y: Tensor = nn.functional.avg_pool2d(torch.tanh(layer("conv_1")(x)), 2)
    y = nn.functional.avg_pool2d(torch.tanh(layer("norm_2")(layer("conv_2")(y))), 2)
    expected = layer("output")(torch.tanh(layer("linear_1")(y.flatten(1))))
    torch.testing.assert_close(model(x), expected)


def test_dropout_is_off_in_evaluation_mode() -> None:
    model = ConvNet([4], dropout=0.5)
    images = torch.randn(2, 3, 32, 32)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": []}, r"channels \(=\[\]\) must contain at least one convolution"),
        ({"channels": [4, 0]}, r"channels \(=0\) must be at least 1"),
        ({"kernels": 0}, r"kernels \(=0\) must be at least 1"),
        ({"kernels": [3]}, r"kernels \(=\[3\]\) must be one value, or 2 entries, one for each of channels"),
        ({"strides": [1, 2, 3]}, r"strides \(=\[1, 2, 3\]\) must be one value, or 2 entries"),
        ({"strides": 0}, r"strides \(=0\) must be at least 1"),
        ({"paddings": -1}, r"paddings \(=-1\) must be at least 0"),
        ({"batch_norm": [True]}, r"batch_norm \(=\[True\]\) must be one value, or 2"),
        ({"pooling": ["max"]}, r"pooling \(=\['max'\]\) must be one value, or 2"),
        ({"dropout": 1.0}, r"dropout \(=1.0\) must be at least 0 and below 1"),
        ({"dropout": [0.1, -0.1]}, r"dropout \(=-0.1\)"),
        ({"hidden": [0]}, r"hidden \(=\[0\]\) must contain sizes of at least 1"),
        ({"kernels": 33}, r"image_size \(=32\) is too small for convolution 1 and its pooling"),
        ({"kernels": [3, 15]}, r"image_size \(=32\) is too small for convolution 2"),
        ({"kernels": [3, 16]}, r"too small for convolution 2"),
    ],
)
def test_invalid_settings_raise(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConvNet(**settings)
