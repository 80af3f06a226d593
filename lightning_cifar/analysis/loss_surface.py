"""Loss of a network on planes and lines through its weights (Li et al., 1712.09913).

Weights are vectors (P,): all parameters that are trained, in their order, see
:func:`~lightning_cifar.analysis.sharpness.flatten`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from lightning_cifar.analysis.modes import evaluation, undisturbed
from lightning_cifar.analysis.sharpness import flatten, unflatten

Batches = Sequence[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]
"""Mean loss of a batch, from the outputs and the targets."""

_CHUNK = 1 << 20  # values that are converted to float64 at once


class Plane(NamedTuple):
    """A plane in the space of the weights: ``center + x * directions[0] + y * directions[1]``."""

    center: Tensor
    """(P,)"""
    directions: Tensor
    """(2, P)"""
    explained: tuple[float, float] | None = None
    """Shares of the squared distances from the center that lie along each direction, for the plane of a trajectory."""
    num_zero_filters: int = 0
    """Filters of norm zero, which a random direction does not change."""

    def at(self, x: float, y: float) -> Tensor:
        """Return the weights (P,) at a point."""
        return self.center + x * self.directions[0] + y * self.directions[1]

    def project(self, weights: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return coordinates (T, 2) of weights (T, P), and their distances (T,) from the plane.

        The directions of the plane must be orthonormal, as those of :func:`trajectory_plane`.
        """
        offsets = weights - self.center
        points = _products(offsets, self.directions)
        # Not the root of a difference of squares, which loses half of the digits near the plane.
        rests = (row - point.to(row) @ self.directions for row, point in zip(offsets, points, strict=True))
        distances = torch.stack([torch.linalg.vector_norm(rest, dtype=torch.float64) for rest in rests])
        return points.numpy(), distances.numpy()


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are not frozen, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def trajectory_plane(snapshots: Tensor, center: Tensor) -> Plane:
    """Return the plane through ``center`` that is nearest to snapshots: principal components of their differences.

    As in Li et al., distances are measured from the center, which is the final weights, and not from the mean.

    Args:
        snapshots: (T, P), at least 3.
        center: (P,)

    Raises:
        ValueError: If there are fewer than 3 snapshots, or they lie on a line.

    Example:
        >>> points = torch.tensor([[3.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
        >>> plane = trajectory_plane(points, points[-1])
        >>> plane.directions.abs().round().tolist(), plane.explained
        ([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]], (0.9, 0.1))
    """
    if len(snapshots) < 3:
        raise ValueError(f"a plane needs at least 3 snapshots of the weights, not {len(snapshots)}")
    offsets = snapshots - center
    values, vectors = torch.linalg.eigh(_products(offsets, offsets))  # (T, T), much smaller than (P, P)
    values, vectors = values.flip(0)[:2], vectors.flip(1)[:, :2]
    if not values[1] > 1e-10 * values[0]:
        raise ValueError("the snapshots of the weights lie on a line" if values[0] > 0 else "the weights never change")
    directions = vectors.T.to(offsets) @ offsets
    directions /= directions.norm(dim=1, keepdim=True)
    directions[1] -= (directions[1] @ directions[0]) * directions[0]  # orthogonal up to rounding
    directions[1] /= directions[1].norm()
    directions *= torch.where(directions @ offsets[0] < 0, -1.0, 1.0)[:, None]  # the path starts at positive x and y
    total = sum(float(row.double().square().sum()) for row in offsets)
    first, second = (round(float(value) / total, 12) for value in values)
    return Plane(center, directions, (first, second))


def random_plane(model: nn.Module, seed: int = 0) -> Plane:
    """Return a plane through a network's weights with two random filter-normalised directions.

    Each filter of a direction, which is a row of a weight, has the norm of the filter of the network, so that scaling
    of a layer that the next one undoes does not change the surface. Biases and the parameters of norms, which have one
    axis, do not change, and filters of norm zero neither.

    Args:
        model: Its parameters that are not frozen are the weights.
        seed: Seed of the directions.

    Raises:
        ValueError: If all filters are zero, or there is no weight with two axes.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> weight = random_plane(layer).directions[0][:6].view(2, 3)
        >>> torch.allclose(weight.norm(dim=1), layer.weight.norm(dim=1)), random_plane(layer).directions[0][6:]
        (True, tensor([0., 0.]))
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = [parameter.detach() for parameter in trained_parameters(model).values()]
    zeros = sum(int((_norms(each) == 0).sum()) for each in parameters if each.ndim > 1)
    directions = []
    for _ in range(2):
        parts = []
        for parameter in parameters:
            drawn = torch.randn(parameter.shape, generator=generator).to(parameter)
            parts.append(drawn * _norms(parameter) / _norms(drawn) if parameter.ndim > 1 else torch.zeros_like(drawn))
        directions.append(flatten(parts))
    if not any(bool(direction.any()) for direction in directions):
        raise ValueError("all filters of the network have norm zero: there is no filter-normalised direction")
    return Plane(flatten(parameters), torch.stack(directions), num_zero_filters=zeros)


def _norms(weight: Tensor) -> Tensor:
    """Return the norm of each filter, with the axes of the weight."""
    return weight.square().sum(dim=tuple(range(1, weight.ndim)), keepdim=True).sqrt()


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Return float64 ``left @ right.T`` on the CPU, with sums in float64."""
    parts = zip(torch.split(left, _CHUNK, dim=1), torch.split(right, _CHUNK, dim=1), strict=True)
    return sum((a.double() @ b.double().T for a, b in parts), torch.zeros(())).cpu()


@contextmanager
def weights_restored(model: nn.Module) -> Iterator[Callable[[Tensor], None]]:
    """Yield a function that sets the weights to a vector (P,); restore weights, buffers and modes afterwards.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> with weights_restored(layer) as set_weights:
        ...     set_weights(torch.tensor([2.0, 3.0]))
        ...     layer(torch.ones(1)).item()
        5.0
    """
    parameters = list(trained_parameters(model).values())
    before = [parameter.detach().clone() for parameter in parameters]

    def write(values: Sequence[Tensor]) -> None:
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)

    with undisturbed(model):
        try:
            yield lambda vector: write(unflatten(vector, parameters))
        finally:
            write(before)


def batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the batch norms with statistics that are not frozen."""
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and module.track_running_stats
        and (module.weight is None or module.weight.requires_grad)
    ]


def recompute_batch_norm(model: nn.Module, batches: Batches) -> None:
    """Replace the statistics of the batch norms that are not frozen by their means over the batches; dropout is off."""
    norms = batch_norms(model)
    momenta = [norm.momentum for norm in norms]
    with evaluation(model):
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.training, norm.momentum = True, None  # a plain mean over all batches
            for inputs, _ in batches if norms else ():
                model(inputs)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


def measure(model: nn.Module, loss: Loss, batches: Batches) -> tuple[float, float]:
    """Return the mean loss and the accuracy of a classifier in evaluation mode; the loss is NaN if it is not finite."""
    total, correct, count = 0.0, 0, 0
    with evaluation(model):
        for inputs, targets in batches:
            outputs = model(inputs)
            total += float(loss(outputs, targets)) * len(targets)
            correct += int((outputs.argmax(1) == targets).sum())
            count += len(targets)
    return (total / count, correct / count) if math.isfinite(total) else (math.nan, math.nan)


def scan(
    model: nn.Module,
    points: Iterator[Tensor],
    loss: Loss,
    batches: Batches,
    statistics: Batches | None = None,
) -> Iterator[tuple[float, float]]:
    """Yield the loss and the accuracy at each vector of weights (P,). The model is unchanged afterwards.

    Args:
        model: Classifier (N, ...) -> logits (N, K).
        points: The weights, see ``Plane.at``.
        loss: Mean loss of a batch.
        batches: Inputs and labels (N,) on the device of the model.
        statistics: Batches from which the statistics of batch norms are computed at each point; None keeps those of
            the model.
    """
    with weights_restored(model) as set_weights:
        for weights in points:
            set_weights(weights)
            if statistics is not None:
                recompute_batch_norm(model, statistics)
            yield measure(model, loss, batches)


def barrier(values: ArrayLike) -> float:
    """Return the height of a curve above the straight line between its ends (Frankle et al., 1912.05671).

    Args:
        values: (T,): losses, or error rates, at equal distances between two networks. NaN is left out.

    Returns:
        At least 0; NaN if an end is NaN.

    Example:
        >>> barrier([1.0, 4.0, 2.0])
        2.5
        >>> barrier([1.0, 0.5, 2.0])
        0.0
    """
    heights = np.asarray(values, np.float64)
    if not np.isfinite(heights[[0, -1]]).all():
        return math.nan
    return float(np.nanmax(heights - np.linspace(heights[0], heights[-1], len(heights))))
