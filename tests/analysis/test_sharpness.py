"""Eigenvalues against the full Hessian, and the stability limits against the optimizers themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cifar.analysis.sharpness import flatten, hessian_product, largest_eigenvalue, stability, unflatten


def symmetric(values: Tensor, seed: int = 0) -> Tensor:
    """A matrix with these eigenvalues."""
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))
    return basis @ torch.diag(values.double()) @ basis.T


def start(count: int) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("largest", [40.0, 3.0])
def test_eigenvalue_of_a_quadratic(largest: float) -> None:
    """More values than the basis holds, and negative ones of larger magnitude."""
    values = torch.cat([torch.linspace(-60, 2.5, 79), torch.tensor([largest])])
    matrix = symmetric(values)
    weights = start(80).requires_grad_()
    product = hessian_product(weights @ matrix @ weights / 2, [weights])
    found = largest_eigenvalue(product, start(80), tolerance=1e-6, max_products=500)
    assert found.value == pytest.approx(largest, rel=1e-5)
    assert found.residual <= 1e-6
    torch.testing.assert_close(matrix @ found.vector, found.value * found.vector, rtol=0, atol=2e-5 * largest)
    assert found.vector.norm().item() == pytest.approx(1)


@pytest.mark.parametrize("scaled", [False, True])
def test_eigenvalue_of_a_network_agrees_with_the_full_hessian(scaled: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    inputs, labels = torch.randn(20, 4, dtype=torch.float64), torch.arange(20) % 3
    parameters = list(net.parameters())
    shapes = dict(net.named_parameters())

    def loss(vector: Tensor) -> Tensor:
        held = dict(zip(shapes, unflatten(vector, parameters), strict=True))
        return F.cross_entropy(torch.func.functional_call(net, held, (inputs,)), labels)

    hessian = torch.autograd.functional.hessian(loss, flatten([each.detach() for each in parameters]))
    scale = torch.rand(len(hessian), dtype=torch.float64) + 0.5 if scaled else None
    wanted = hessian if scale is None else scale[:, None] * hessian * scale
    product = hessian_product(F.cross_entropy(net(inputs), labels), parameters, scale)
    found = largest_eigenvalue(product, start(len(hessian)), tolerance=1e-5, max_products=300)
    assert found.value == pytest.approx(float(torch.linalg.eigvalsh(wanted)[-1]), rel=1e-4)
    assert all(each.grad is None for each in parameters)


def test_a_start_at_the_eigenvector_needs_one_product() -> None:
    matrix = symmetric(torch.tensor([1.0, 2.0, 5.0]))
    vector = torch.linalg.eigh(matrix)[1][:, -1]
    found = largest_eigenvalue(lambda v: matrix @ v, vector, tolerance=1e-3)
    assert (found.num_products, round(found.value, 9)) == (1, 5.0)


def test_the_number_of_products_is_bounded_and_the_residual_is_the_error() -> None:
    matrix = symmetric(torch.linspace(0, 1, 200))
    found = largest_eigenvalue(lambda v: matrix @ v, start(200), tolerance=1e-12, max_products=30)
    assert found.num_products == 30
    error = (matrix @ found.vector - found.value * found.vector).norm() / found.value
    assert found.residual == pytest.approx(float(error), rel=1e-6)
    assert abs(1 - found.value) < found.residual * found.value


def test_a_product_that_is_not_finite_gives_nan() -> None:
    found = largest_eigenvalue(lambda v: v * float("nan"), start(3))
    assert found.value != found.value
    assert torch.isfinite(found.vector).all()


def test_a_linear_loss_has_no_curvature() -> None:
    weights = torch.ones(3, requires_grad=True)
    assert largest_eigenvalue(hessian_product(weights.sum(), [weights]), torch.ones(3)).value == 0


Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
BETAS = (0.9, 1 - 1e-9)
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.5, alpha=1 - 1e-9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, betas=BETAS),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, betas=BETAS, weight_decay=0.0),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.1, betas=BETAS, amsgrad=True),
}


@pytest.mark.parametrize(("below", "grows"), [(0.95, False), (1.05, True)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_converges_below_its_limit_and_diverges_above(name: str, below: float, grows: bool) -> None:
    """On a quadratic whose preconditioned curvature is 5 % below or above the limit."""
    weight = nn.Parameter(torch.tensor([1e-3], dtype=torch.float64))
    optimizer = OPTIMIZERS[name]([weight])
    if not isinstance(optimizer, torch.optim.SGD):  # a preconditioner that hardly changes
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
        state = optimizer.state[weight]
        for key in {"square_avg", "exp_avg_sq", "max_exp_avg_sq"} & state.keys():
            state[key] = torch.full_like(state[key], 4.0)
        if "exp_avg" in state:
            state["step"] = torch.tensor(10_000_000_000.0, dtype=torch.float64)
    limits = stability(optimizer)
    scale = 1.0 if limits.scale is None else float(limits.scale)
    curvature = below * limits.limit / scale**2
    for _ in range(200):
        weight.grad = curvature * weight.detach()
        optimizer.step()
        if abs(weight.item()) > 0.1:  # before the gradients change the preconditioner
            break
    assert (abs(weight.item()) > 1e-3) == grows


def test_groups_with_other_learning_rates_share_a_limit() -> None:
    """Two groups: the curvature is scaled by the ratio of the rates."""
    first, second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(2))
    found = stability(torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": [second], "lr": 0.4}]))
    assert found.limit == pytest.approx(20)
    assert found.scale is not None
    torch.testing.assert_close(found.scale, torch.tensor([1.0, 2.0, 2.0]))


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5),
        lambda p: torch.optim.RMSprop(p, centered=True),
        torch.optim.Adagrad,
        lambda p: torch.optim.SGD(p, lr=0.0),
    ],
)
def test_an_unknown_limit_is_nan(optimizer: Make) -> None:
    found = stability(optimizer([nn.Parameter(torch.zeros(2))]))
    assert found.limit != found.limit
    assert found.formula == ""
