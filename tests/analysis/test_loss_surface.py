"""Surfaces of functions that are known exactly, and what must not change them."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cifar.analysis.loss_surface import (
    Plane,
    barrier,
    measure,
    random_plane,
    recompute_batch_norm,
    scan,
    trained_parameters,
    trajectory_plane,
)
from lightning_cifar.analysis.sharpness import flatten, unflatten


class Weights(nn.Module):
    """Outputs are the weights, whatever the input."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(count, dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.weight.expand(len(inputs), -1)


def grid(plane: Plane, axis: Tensor) -> Iterator[Tensor]:
    return (plane.at(float(x), float(y)) for y in axis for x in axis)


BATCHES = [(torch.zeros(2, 1), torch.zeros(2, dtype=torch.long))]
AXIS = torch.linspace(-1, 1, 3)


def test_the_surface_of_a_quadratic_is_exact() -> None:
    torch.manual_seed(0)
    half = torch.randn(5, 5, dtype=torch.float64)
    plane = Plane(torch.randn(5, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64))
    model = Weights(5)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs @ half).square().sum(1).mean()

    found = [value for value, _ in scan(model, grid(plane, AXIS), loss, BATCHES)]
    wanted = [float((weights @ half).square().sum()) for weights in grid(plane, AXIS)]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    assert not model.weight.any()


def test_principal_components_find_the_plane() -> None:
    """Of points in a plane, in float32 and with many parameters: all is explained, and coordinates are distances."""
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(3000, 2, generator=generator))
    coordinates = torch.randn(8, 2, generator=generator) * torch.tensor([5.0, 1.0])
    points = 3 + coordinates @ basis.T
    plane = trajectory_plane(points, points[-1])
    assert plane.explained is not None
    assert sum(plane.explained) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(plane.directions @ plane.directions.T, torch.eye(2), rtol=0, atol=1e-5)
    found, distances = plane.project(points)
    np.testing.assert_allclose(distances, 0, atol=1e-4)  # coordinates of float32 values near 3: 1e-7 * sqrt(3000)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), (points - points[-1]).norm(dim=1), rtol=1e-4, atol=1e-4)
    assert (found[0] > 0).all()
    torch.testing.assert_close(plane.at(*found[2]), points[2], rtol=0, atol=1e-3)


def test_a_point_beside_the_plane_has_its_distance() -> None:
    plane = Plane(torch.ones(4), torch.eye(4)[:2])
    found, distances = plane.project(torch.tensor([[4.0, 5.0, 1.0, 7.0]]))
    assert (found.tolist(), distances.tolist()) == ([[3.0, 4.0]], [6.0])


def test_the_explained_share_is_that_of_the_squared_distances() -> None:
    points = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.0]))
    plane = trajectory_plane(points, points[-1])
    assert plane.explained == pytest.approx((9 / 14, 4 / 14))


@pytest.mark.parametrize(
    ("points", "match"),
    [
        (torch.eye(4)[:2], "at least 3 snapshots of the weights, not 2"),
        (torch.arange(4.0)[:, None] * torch.ones(6), "lie on a line"),
        (torch.ones(4, 6), "never change"),
    ],
)
def test_snapshots_without_a_plane_are_refused(points: Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        trajectory_plane(points, points[-1])


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = (nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3))
    return nn.Sequential(*layers).double()


def images(count: int = 12) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return [(torch.randn(count, 3, 6, 6, generator=generator).double(), torch.arange(count) % 3)]


def test_each_filter_of_a_random_direction_has_the_norm_of_its_filter() -> None:
    model = network()
    with torch.no_grad():
        model[0].weight[1] = 0  # type: ignore[index]
    plane = random_plane(model)
    assert plane.num_zero_filters == 1
    parameters = trained_parameters(model)
    for direction in plane.directions:
        for part, parameter in zip(unflatten(direction, [*parameters.values()]), parameters.values(), strict=True):
            wanted = parameter.detach().flatten(1).norm(dim=1) if parameter.ndim > 1 else torch.zeros(len(parameter))
            torch.testing.assert_close(part.reshape(len(part), -1).norm(dim=1), wanted.double())
    assert not torch.allclose(*random_plane(model, 1).directions, atol=0.1)
    torch.testing.assert_close(plane.directions, random_plane(model).directions, rtol=0, atol=0)


def test_rescaled_layers_of_a_relu_network_have_the_same_surface() -> None:
    model = network()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for layer, factor in ((other[0], 8.0), (other[2], 0.125)):  # type: ignore[index]
            layer.weight *= factor  # type: ignore[operator]
        other[0].bias *= 8  # type: ignore[index,operator]
    first, second = (
        list(scan(each, grid(random_plane(each), AXIS), F.cross_entropy, images())) for each in (model, other)
    )
    np.testing.assert_allclose(first, second, rtol=1e-9)
    assert np.ptp(np.array(first)[:, 0]) > 0.1


def test_a_network_of_zeros_has_no_random_direction() -> None:
    with pytest.raises(ValueError, match="all filters of the network have norm zero"):
        random_plane(Weights(3))


def normed() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 3)
    ).double()


def test_the_center_has_the_loss_of_the_run_with_statistics_of_the_same_batches() -> None:
    """The statistics of the run are means over the batches, as recomputed ones are: only rounding differs."""
    model, batches = normed(), [(x[:6], y[:6]) for x, y in images(6)] + images(12)
    recompute_batch_norm(model, batches)
    own = measure(model, F.cross_entropy, images())
    center = random_plane(model).center
    assert next(scan(model, iter([center]), F.cross_entropy, images(), batches)) == pytest.approx(own, rel=1e-12)


def test_recomputed_statistics_undo_the_scale_of_a_layer_and_kept_ones_do_not() -> None:
    model = normed()
    recompute_batch_norm(model, images())
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight *= 3  # type: ignore[index,operator]
        other[0].bias *= 3  # type: ignore[index,operator]
    weights = [flatten([each.detach() for each in net.parameters()]) for net in (model, other)]
    recomputed, kept = (
        [value for value, _ in scan(model, iter(weights), F.cross_entropy, images(), statistics)]
        for statistics in (images(), None)
    )
    assert recomputed[1] == pytest.approx(recomputed[0], rel=1e-4)  # not exactly: eps of the batch norm
    assert abs(kept[1] - kept[0]) > 1e-2


def test_a_frozen_batch_norm_keeps_its_statistics() -> None:
    model = normed()
    model[1].requires_grad_(False)
    before = model[1].running_mean.clone()  # type: ignore[operator,union-attr]
    recompute_batch_norm(model, images())
    torch.testing.assert_close(model[1].running_mean, before, rtol=0, atol=0)


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_unchanged_afterwards(fails: bool) -> None:
    model = normed()
    model[1].eval()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    plane = random_plane(model)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if fails:
            raise ZeroDivisionError
        return F.cross_entropy(outputs, targets)

    try:
        list(scan(model, grid(plane, AXIS), loss, images(), images()))
    except ZeroDivisionError:
        assert fails
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [each.training for each in model] == [True, False, True, True, True, True]
    assert (model[1].momentum, torch.equal(torch.get_rng_state(), random)) == (0.1, True)
    assert all(each.grad is None for each in model.parameters())


def test_a_loss_that_is_not_finite_is_missing() -> None:
    model = Weights(2)
    points = [torch.tensor([value, 0.0]) for value in (1.0, np.inf)]
    found = list(scan(model, iter(points), lambda outputs, _: outputs.sum(), BATCHES))
    assert found[0] == (2.0, 1.0)
    assert np.isnan(found[1]).all()


def test_the_barrier_is_measured_from_the_line_between_the_ends() -> None:
    assert barrier([0, 3, np.nan, 2]) == pytest.approx(3 - 2 / 3)
    assert np.isnan(barrier([np.nan, 1, 1]))
