"""Histograms count every value, areas are 1, and summaries of layers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_cifar.analysis.activations import (
    MAX_BINNED,
    BinAxis,
    Histogram,
    LayerSummary,
    bin_exponent,
    density,
    merged,
    shared_axis,
    summarise,
)
from lightning_cifar.analysis.layers import recorded
from lightning_cifar.analysis.modes import evaluation, undisturbed


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def area(heights: np.ndarray, axis: BinAxis) -> float:
    return float(heights.sum() * 2.0**axis.exponent)


@pytest.mark.parametrize("shape", [(500,), (60, 7), (6, 5, 4, 3)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_moments_are_those_of_numpy(shape: tuple[int, ...], channels_last: bool) -> None:
    values = drawn(*shape) * 3 - 1
    values[values.abs() < 0.3] = 0
    if channels_last and len(shape) == 4:
        values = values.to(memory_format=torch.channels_last)
    found, array = summarise(values), values.double().numpy()
    expected = (array.size, array.mean(), array.std(), array.min(), array.max(), (array == 0).mean())
    assert found[:6] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert found.histogram.total == array.size
    assert found.broken == 0


def test_moments_in_several_pieces() -> None:
    values = drawn(3 * MAX_BINNED // 2, 2) + 100
    found = summarise(values)
    assert found.mean == pytest.approx(float(values.double().mean()), rel=1e-6)
    assert found.std == pytest.approx(float(values.double().std(correction=0)), rel=1e-4)


def test_silent_units() -> None:
    values = -drawn(8, 4, 3, 3).abs()
    values[5, 1, 2, 0] = 0.1  # once above zero
    values[:, 2] = 0
    assert summarise(values).silent == 0.75
    assert summarise(values[:, :, 0, 0]).silent == 1
    assert summarise(torch.tensor([-1.0, 0.5])).silent == 0  # one unit
    assert summarise(torch.tensor([-1.0, -0.5])).silent == 1


@pytest.mark.parametrize("scale", [1e-6, 1.0, 37.0, 1e8])
@pytest.mark.parametrize("offset", [0.0, -5.0, 1000.0])
def test_counts_are_those_of_numpy(scale: float, offset: float) -> None:
    values = (drawn(4000) + offset) * scale
    values[::9] = 0
    histogram = summarise(values, bins=64).histogram
    array = values.double().numpy()
    edges = histogram.edges
    expected, _ = np.histogram(array[array != 0], edges)
    assert array.max() < edges[-1]  # NumPy includes the last edge
    np.testing.assert_array_equal(histogram.counts, expected)
    assert len(histogram.counts) <= 64
    assert (histogram.below, histogram.above, histogram.zeros) == (0, 0, (array == 0).sum())
    assert edges[0] <= array[array != 0].min() or offset


def test_a_few_far_values_are_counted_beyond_the_bins() -> None:
    values = torch.cat([drawn(10_000), torch.tensor([1e4, -2e4, 3e4])])
    histogram = summarise(values).histogram
    assert (histogram.below, histogram.above) == (1, 2)
    assert histogram.total == 10_003


def test_many_values_are_thinned_out_without_losing_a_channel() -> None:
    values = torch.arange(64.0)[None, :, None, None].expand(40, -1, 9, 9) + 0.5
    for layout in (torch.contiguous_format, torch.channels_last):
        histogram = summarise(values.contiguous(memory_format=layout), bins=64).histogram
        assert histogram.total <= MAX_BINNED
        assert len(histogram.counts) == 64
        assert histogram.counts.min() > 0.9 * histogram.counts.max() > 0


def test_values_that_are_not_finite_are_counted_and_left_out() -> None:
    values = torch.cat([drawn(100), torch.tensor([math.nan, math.inf, -math.inf])])
    found = summarise(values)
    assert found.broken == 3
    assert found[:5] == pytest.approx(summarise(drawn(100))[:5])
    nothing = summarise(torch.full((4, 3), math.nan))
    assert (nothing.num_values, nothing.broken, nothing.histogram.total) == (0, 12, 0)
    assert math.isnan(nothing.mean)
    axis = shared_axis([nothing.histogram])
    assert density(nothing.histogram, axis).heights.sum() == 0


@pytest.mark.parametrize("value", [0.0, -0.0, 3.0, -1e-30, 1e30, 3e38])
def test_one_value_only(value: float) -> None:
    histogram = summarise(torch.full((50, 2), value)).histogram
    assert histogram.total == 100
    if value:
        assert histogram.counts.max() == 100
        assert abs(float(histogram.edges[histogram.counts.argmax()]) - value) <= histogram.width
    else:
        assert histogram.zeros == 100


def test_extremes_of_float32() -> None:
    found = summarise(torch.tensor([-3e38, 3e38, 1.0]))
    assert found.histogram.total == 3
    assert found.broken == 0


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"values \(0, 3\) are empty"):
        summarise(torch.zeros(0, 3))
    with pytest.raises(ValueError, match=r"bins \(=7\) must be at least 8"):
        summarise(torch.zeros(3), bins=7)
    with pytest.raises(ValueError, match="histograms is empty"):
        shared_axis([])


@pytest.mark.parametrize("bins", [8, 100, 128])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 127.0), (5.0, 5.1), (-3e-7, 8e-9), (0.0, 1.0)])
def test_bins_are_as_narrow_as_possible(low: float, high: float, bins: int) -> None:
    exponent = bin_exponent(low, high, bins)

    def needed(exponent: int) -> int:
        return math.floor(high / 2.0**exponent) - math.floor(low / 2.0**exponent) + 1

    assert needed(exponent) <= bins
    assert (high - low) / 2.0 ** (exponent - 1) > bins - 1


def test_merging_is_exact() -> None:
    values = drawn(5000) * 2
    histogram = summarise(values, bins=128).histogram
    for shift in (0, 1, 3):
        exponent = histogram.exponent + shift
        first = math.floor(-4 / 2.0**exponent)
        axis = BinAxis(first, exponent, 8 >> max(exponent, 0) if exponent > 0 else 8 << -exponent)
        found = density(histogram, axis)
        counts, _ = np.histogram(values.double().numpy(), axis.edges)
        np.testing.assert_allclose(found.heights, counts / counts.sum() / 2.0**exponent, rtol=1e-12)
        assert area(found.heights, axis) == pytest.approx(1)
        assert found.outside == pytest.approx(1 - counts.sum() / 5000)


@pytest.mark.parametrize("first", [-7, -4, 0, 3])
@pytest.mark.parametrize("length", [1, 9, 16])
def test_merged_counts_are_those_of_wider_bins(first: int, length: int) -> None:
    counts = np.arange(1, length + 1)
    for most in (1, 3, 8):
        found = merged(Histogram(counts, first, -2, below=3, above=4, zeros=5), most)
        assert len(found.counts) <= max(most, 2)
        middles = (np.arange(first, first + length) + 0.5) / 4
        np.testing.assert_array_equal(found.counts, np.histogram(middles, found.edges, weights=counts)[0])
        assert found.total == counts.sum() + 12


def test_splitting_keeps_the_area() -> None:
    histogram = summarise(drawn(5000) * 100, bins=32).histogram
    axis = BinAxis(-8, histogram.exponent - 2, 17)
    found = density(histogram, axis)
    assert area(found.heights, axis) == pytest.approx(1)
    assert 0.3 < found.outside < 0.9
    assert found.heights[0] == found.heights[1] == found.heights[2] == found.heights[3]  # of one bin


def test_the_axis_of_one_histogram_leaves_little_outside() -> None:
    histogram = summarise(drawn(20_000)).histogram
    for share in (0.0, 0.01, 0.1):
        axis = shared_axis([histogram], share=share)
        found = density(histogram, axis)
        assert area(found.heights, axis) == pytest.approx(1)
        assert found.outside <= 2 * share
        assert 25 <= axis.num_bins <= 100
    assert found.outside > 0.1  # a larger share leaves more out


def test_the_density_leaves_out_zeros() -> None:
    values = drawn(1000, 10).relu()
    histogram = summarise(values).histogram
    found = density(histogram, shared_axis([histogram], share=0.0))
    assert found.zeros == pytest.approx(float((values == 0).float().mean()))
    assert found.outside < 0.001
    assert found.heights[0] < 1.0  # half a normal distribution, not the peak of the zeros


def test_one_diverged_histogram_does_not_set_the_axis() -> None:
    calm = [summarise(drawn(2000, seed=seed)).histogram for seed in range(9)]
    axis = shared_axis([*calm, summarise(drawn(2000) * 1e6).histogram])
    assert np.abs(axis.edges).max() < 50
    wild = density(summarise(drawn(2000) * 1e6).histogram, axis)
    assert wild.outside > 0.9
    moved = [summarise(drawn(2000) + shift).histogram for shift in (-5, 5)]
    assert shared_axis([*calm, *moved]).edges[0] < -7
    assert shared_axis([*calm, *moved]).edges[-1] > 7


class Net(nn.Module):
    """Works in place, uses a layer twice, and has a layer that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.3, inplace=True)
        self.idle = nn.Linear(2, 2)
        with torch.no_grad():
            self.norm.weight.copy_(torch.linspace(0.5, 3, 8))
            self.norm.bias.copy_(torch.linspace(-2, 1, 8))

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.norm(self.conv(self.relu(images)))
        return self.drop(self.relu(hidden))


IMAGES = drawn(64, 3, 12, 12)


def test_batch_norm_gives_beta_and_gamma_in_training_mode() -> None:
    model = Net()
    with undisturbed(model), recorded(model, ["norm"], summarise) as found:
        model.train()
        model(IMAGES)
    gamma, beta = model.norm.weight.detach(), model.norm.bias.detach()
    after = found["norm"][1]
    assert after.mean == pytest.approx(float(beta.mean()), abs=1e-5)
    # Of all channels together: the mean of their variances, and the variance of their means.
    assert after.std == pytest.approx(float((gamma.square().mean() + beta.var(correction=0)).sqrt()), rel=1e-3)
    for channel in range(8):
        tapped = summarise(model.norm(model.conv(IMAGES))[:, channel])
        assert tapped.mean == pytest.approx(float(beta[channel]), abs=1e-5)
        assert tapped.std == pytest.approx(float(gamma[channel]), rel=1e-3)


def test_dropout_keeps_its_share_in_training_mode_and_all_in_evaluation_mode() -> None:
    model = Net()
    with undisturbed(model), recorded(model, ["drop"], summarise) as found:
        model.train()
        model(IMAGES)
        assert LayerSummary(*found["drop"]).kept == pytest.approx(0.7, abs=0.01)
        with evaluation(model):
            model(IMAGES)
        assert LayerSummary(*found["drop"]).kept == 1
    assert math.isnan(LayerSummary(summarise(torch.zeros(3)), found["drop"][1]).kept)


def test_summaries_describe_the_inputs_and_outputs_of_a_forward_pass() -> None:
    model = Net().eval()
    with torch.no_grad(), recorded(model, ["conv", "relu"], summarise) as found:
        model(IMAGES.clone())
        passed = model.conv(IMAGES.relu())
    assert found["conv"][0].low == 0
    assert found["conv"][1][:5] == pytest.approx(summarise(passed)[:5])
    assert found["relu"][0][:5] == pytest.approx(summarise(model.norm(passed))[:5])  # its last call
    assert found["relu"][1].low == 0


def test_edges() -> None:
    histogram = Histogram(np.array([3, 0, 1]), first=-1, exponent=-1, below=2, above=1, zeros=4)
    assert histogram.edges.tolist() == [-0.5, 0.0, 0.5, 1.0]
    assert histogram.total == 11
