"""Filters are found by name, read and scaled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from lightning_cifar.analysis.filters import Filters, find_filters, largest_weight, scale_filters


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Conv2d(3, 5, (2, 4)), nn.ReLU(), nn.BatchNorm2d(5), nn.Conv2d(5, 7, 3))
        self.head = nn.Linear(7, 2)
        self.solid = nn.Conv3d(1, 2, 3)
        self.lazy = nn.LazyConv2d(4, 3)


def test_find_filters_returns_the_first_convolution_or_the_named_layer() -> None:
    net = Net()
    assert find_filters(net) == ("front.0", net.front[0], True)
    assert find_filters(net, "front.3") == ("front.3", net.front[3], False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("front.4", r"Net has no layer 'front\.4': did you mean front\.\d"),
        ("0", r"Net has no layer '0': did you mean front\.0\?"),
        ("front.1", r"layer front\.1 \(ReLU\) has no weights: choose a convolution, such as front\.0$"),
        ("front", r"layer front \(Sequential\) has no weights: choose"),
        ("front.2", r"layer front\.2 \(BatchNorm2d\) has weights \(5,\), which are not kernels: choose"),
        ("head", r"layer head \(Linear\) has weights \(2, 7\), which are not kernels: choose a convolution, such as"),
        ("solid", r"layer solid \(Conv3d\) has kernels of three dimensions: .* of one or two$"),
        ("lazy", r"layer lazy \(LazyConv2d\) has no weights yet: run one batch"),
    ],
)
def test_a_layer_without_filters_raises_one_line(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        find_filters(Net(), name)
    assert "\n" not in str(caught.value)


def test_a_model_without_convolutions() -> None:
    with pytest.raises(ValueError, match="Sequential has no convolution: there are no filters to draw"):
        find_filters(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match=r"which are not kernels: choose a convolution$"):
        find_filters(nn.Sequential(nn.Linear(2, 2)), "0")


def test_mode() -> None:
    three, five = nn.Sequential(nn.Conv2d(3, 2, 3)), nn.Sequential(nn.Conv2d(5, 2, 3))
    assert [find_filters(three, mode=mode).color for mode in ("auto", "rgb", "channels")] == [True, True, False]
    assert [find_filters(five, mode=mode).color for mode in ("auto", "channels")] == [False, False]
    with pytest.raises(ValueError, match="mode rgb needs filters of 3 input channels, not 5: choose"):
        find_filters(five, mode="rgb")


def test_read_filters_copies_the_first_that_fit() -> None:
    layer = nn.Conv2d(6, 4, (2, 3))
    weight = layer.weight.detach().clone()
    filters = Filters("0", layer, color=False)
    every = filters.read(24)
    assert every.dtype == np.float32
    assert np.array_equal(every, weight.numpy())
    every[:] = 0
    assert torch.equal(layer.weight, weight)
    assert np.array_equal(filters.read(13), weight[:, :3].numpy())
    assert np.array_equal(filters.read(2), weight[:2, :1].numpy())
    assert Filters("0", nn.Conv2d(64, 2, 1), color=False).read(256).shape == (2, 32, 1, 1)
    assert Filters("0", nn.Conv2d(3, 9, 2), color=True).read(8).shape == (8, 3, 2, 2)


def test_description() -> None:
    filters = Filters("0", nn.Conv2d(6, 4, (2, 3)), color=False)
    assert [filters.describe(filters.read(n)) for n in (24, 13, 2)] == [
        "4 filters of 6 x 2 x 3 weights",
        "4 filters of 6 x 2 x 3 weights, input channels 0 to 2",
        "4 filters of 6 x 2 x 3 weights, the first 2, input channel 0",
    ]


def test_other_kinds_of_layers() -> None:
    assert Filters("0", nn.Conv1d(3, 2, 5), color=False).kernels.shape == (2, 3, 1, 5)
    turned = nn.ConvTranspose2d(4, 2, 3)
    read = Filters("0", turned, color=False).read(99)
    assert np.array_equal(read, turned.weight.detach().transpose(0, 1).numpy())
    half = nn.Conv2d(1, 2, 3).to(torch.bfloat16).to(memory_format=torch.channels_last)
    assert Filters("0", half, color=False).read(99).dtype == np.float32
    normed = find_filters(nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 2, 3))))
    assert (normed.name, normed.kernels.shape) == ("0", (2, 3, 3, 3))


def test_separate_scales_go_from_the_lowest_to_the_highest_weight() -> None:
    filters = np.random.default_rng(0).normal(size=(5, 3, 2, 2)).astype(np.float32)
    scaled = scale_filters(filters)
    assert scaled.dtype == np.float32
    assert np.all(scaled.min(axis=(1, 2, 3)) == 0)
    assert np.all(scaled.max(axis=(1, 2, 3)) == 1)
    # Scale and offset of a filter do not change its picture, and differences between channels stay.
    other = filters * np.array([1, 2, 3, 4, 5], np.float32)[:, None, None, None] - 7
    np.testing.assert_allclose(scale_filters(other), scaled, atol=2e-6)
    span = np.ptp(filters.reshape(5, -1), axis=1)
    np.testing.assert_allclose(
        scaled[:, 0] - scaled[:, 1], (filters[:, 0] - filters[:, 1]) / span[:, None, None], atol=2e-7
    )


def test_a_shared_scale_is_centred_on_zero() -> None:
    filters = np.array([-4, -2, 0, 1, 9], np.float32).reshape(5, 1, 1, 1)
    np.testing.assert_allclose(scale_filters(filters, 4).ravel(), [0, 0.25, 0.5, 0.625, 1])
    np.testing.assert_allclose(scale_filters(-filters, 9), 1 - scale_filters(filters, 9))


def test_weights_that_are_constant_huge_or_not_finite() -> None:
    filters = np.array([[np.nan, 1, 3], [2, 2, 2], [np.nan, np.inf, -np.inf], [-3e38, 0, 3e38]], np.float32)
    filters = filters.reshape(4, 1, 1, 3)
    expected = [[np.nan, 0, 1], [0.5, 0.5, 0.5], [np.nan] * 3, [0, 0.5, 1]]
    np.testing.assert_allclose(scale_filters(filters)[:, 0, 0], expected)
    np.testing.assert_allclose(scale_filters(filters, 3e38)[2:, 0, 0], [[np.nan] * 3, [0, 0.5, 1]])
    np.testing.assert_allclose(scale_filters(np.zeros((1, 1, 1, 2), np.float32), 0.0), 0.5)
    assert largest_weight(filters[:3]) == 3
    assert largest_weight(filters[2:3]) == 0
