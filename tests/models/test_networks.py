"""Parameter counts, output sizes and receptive fields of the networks."""

from typing import Any

import pytest
import torch
from torch import nn

from lightning_cifar.models import Classifier, DilatedNet, LeNet


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (LeNet(), 62_006),
        (LeNet("tanh", "average"), 62_006),
        (LeNet(in_channels=1, image_size=28), 44_426),
        (LeNet(in_channels=1, image_size=28, hidden=[120]), 34_622),
        (DilatedNet(), 187_418),
        (DilatedNet("191k"), 191_514),
    ],
)
def test_number_of_parameters(model: Classifier, count: int) -> None:
    assert num_parameters(model) == count


def spatial_trace(model: DilatedNet) -> tuple[list[int], list[int]]:
    """Return the output size and the receptive field after each convolution and pooling, in pixels."""
    sides, fields = [], []
    field, jump, x = 1, 1, torch.zeros(1, 3, 32, 32)
    for layer in model.eval().network.modules():
        if isinstance(layer, nn.Sequential) or list(layer.children()):
            continue
        x = layer(x)
        if isinstance(layer, nn.Conv2d | nn.AvgPool2d):
            kernel, stride, dilation = (
                value[0] if isinstance(value, tuple) else value
                for value in (layer.kernel_size, layer.stride, getattr(layer, "dilation", 1))
            )
            field += (kernel - 1) * dilation * jump
            jump *= stride
            sides.append(x.shape[-1])
            fields.append(field)
    return sides, fields


def test_sizes_and_receptive_fields_of_dilated_net_187k() -> None:
    sides, fields = spatial_trace(DilatedNet())
    assert sides == [32, 30, 28, 24, 22, 11, 9, 9, 7, 5, 5, 3, 1]
    assert fields == [3, 5, 7, 11, 13, 15, 19, 19, 23, 27, 27, 31, 35]


def test_sizes_of_dilated_net_191k() -> None:
    sides, _ = spatial_trace(DilatedNet("191k"))
    assert sides[3:5] == [26, 22]
    assert sides[-1] == 1
    assert len(sides) == 12  # no pooling


def test_the_receptive_field_is_where_the_gradient_is_nonzero() -> None:
    model = DilatedNet().eval()
    for layer in model.modules():  # so that no gradient is zero by chance
        if isinstance(layer, nn.ReLU):
            layer.forward = lambda x: x  # type: ignore[method-assign]
    image = torch.randn(1, 3, 32, 32, requires_grad=True)
    first_block = model.network[0](image)
    first_block[0, :, 14, 14].sum().backward()
    assert image.grad is not None
    reached = image.grad.abs().sum((0, 1)).nonzero()
    assert (reached.max(0).values - reached.min(0).values + 1).tolist() == [7, 7]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LeNet(image_size=8), r"image_size \(=8\)"),
        (lambda: LeNet(hidden=[0]), r"hidden \(=\[0\]\)"),
        (lambda: DilatedNet(image_size=28), r"image_size \(=28\) must be 32"),
        (lambda: LeNet(lr=-1.0), r"lr \(=-1.0\) must be a positive"),
        (lambda: LeNet(lr=float("nan")), r"lr \(=nan\)"),
        (lambda: LeNet(momentum=1.0), r"momentum \(=1.0\)"),
        (lambda: LeNet(weight_decay=-1.0), r"weight_decay \(=-1.0\)"),
        (lambda: LeNet(num_classes=1), r"num_classes \(=1\)"),
        (lambda: LeNet(label_smoothing=1.0), r"label_smoothing \(=1.0\)"),
        (lambda: LeNet(schedule="cosin"), r"schedule \(='cosin'\)"),  # type: ignore[arg-type]
    ],
)
def test_invalid_settings_raise(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_activation_commutes_with_max_pooling() -> None:
    x = torch.randn(2, 6, 8, 8)
    for act in (nn.ReLU(), nn.Tanh()):
        assert torch.equal(act(nn.MaxPool2d(2)(x)), nn.MaxPool2d(2)(act(x)))
