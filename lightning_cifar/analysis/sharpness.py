"""Largest eigenvalue of the Hessian of a loss, and the largest one at which an optimizer is stable.

For gradient descent with the learning rate ``lr``, a direction of curvature above ``2 / lr`` diverges in a quadratic
model of the loss. Training at large rates often rises to this limit and stays there, the edge of stability (Cohen et
al., 2103.00065; for Adam, 2207.14484).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""Product of a symmetric matrix (P, P) and a vector (P,)."""

_BASIS = 24  # vectors in memory; a longer iteration starts again from the best one


class Eigenpair(NamedTuple):
    """An eigenvalue and its vector."""

    value: float
    vector: Tensor
    """(P,), of length 1."""
    residual: float
    """``|H v - value v| / |value|``: an eigenvalue is within this relative distance."""
    num_products: int


class Stability(NamedTuple):
    """Stability limit of an optimizer."""

    limit: float
    """Largest stable curvature; NaN for optimizers without a known limit."""
    scale: Tensor | None
    """(P,): the curvature is that of ``S H S`` with this diagonal S; None is 1."""
    formula: str


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """Join tensors of any shape and memory format to one vector (P,), in their order.

    Example:
        >>> flatten([torch.ones(2, 2), torch.zeros(1)])
        tensor([1., 1., 1., 1., 0.])
    """
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def unflatten(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Split a vector (P,) into tensors of given shapes: the reverse of :func:`flatten`."""
    parts = torch.split(vector, [tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]


def hessian_product(loss: Tensor, parameters: Sequence[Tensor], scale: Tensor | None = None) -> Product:
    """Return the function ``v -> S H v S`` for the Hessian H of a loss; the gradients of the parameters are unchanged.

    The graph of the gradient is made once, so that a product costs one backward pass through it.

    Args:
        loss: Scalar with a graph.
        parameters: P values in total.
        scale: (P,): diagonal of S; None is 1.

    Raises:
        RuntimeError: If an operation has no second derivative, or is a custom ``torch.autograd.Function``: torch would
            silently leave out the derivative of a backward pass that it cannot differentiate.

    Example:
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> hessian_product((x**3).sum(), [x])(torch.ones(2))
        tensor([ 6., 12.])
    """
    _refuse_custom_functions(loss)
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    curved = [index for index, gradient in enumerate(gradients) if gradient.requires_grad]

    def product(vector: Tensor) -> Tensor:
        vector = vector if scale is None else scale * vector
        if not curved:  # a linear loss
            return torch.zeros_like(vector)
        parts = unflatten(vector, parameters)
        found = torch.autograd.grad(
            [gradients[index] for index in curved],
            parameters,
            [parts[index] for index in curved],
            retain_graph=True,
            materialize_grads=True,
        )
        return flatten(found) if scale is None else scale * flatten(found)

    return product


def _refuse_custom_functions(loss: Tensor) -> None:
    pending, seen = [loss.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is not None and node not in seen:
            seen.add(node)
            if issubclass(type(node), torch.autograd.function.BackwardCFunction):
                name = type(node).__name__.removesuffix("Backward")
                raise RuntimeError(f"{name} is a custom function, which may have no second derivative")
            pending += [each for each, _ in node.next_functions]


@torch.no_grad()
def largest_eigenvalue(
    product: Product, start: Tensor, *, tolerance: float = 1e-2, max_products: int = 100
) -> Eigenpair:
    """Return the algebraically largest eigenvalue of a symmetric matrix by the Lanczos iteration.

    Args:
        product: The matrix, as a function.
        start: (P,): any vector that is not orthogonal to the eigenvector, such as that of a similar matrix.
        tolerance: The iteration ends when the residual is at most this fraction of the eigenvalue.
        max_products: The iteration ends after this number of products; its residual tells the error.

    Returns:
        The eigenvalue, which is NaN if a product is not finite.

    Example:
        >>> matrix = torch.diag(torch.tensor([1.0, -5.0, 3.0]))
        >>> round(largest_eigenvalue(lambda v: matrix @ v, torch.ones(3)).value, 4)
        3.0
    """
    best = Eigenpair(math.nan, start / start.norm(), math.inf, 0)
    while best.num_products < max_products and best.residual > tolerance:
        best = _lanczos(product, best, min(_BASIS, max_products - best.num_products), tolerance)
        if not math.isfinite(best.value):
            break
    return best


def _lanczos(product: Product, before: Eigenpair, size: int, tolerance: float) -> Eigenpair:
    """Extend a basis from the vector of an eigenpair, at most to ``size`` vectors."""
    basis, alphas, betas = [before.vector], [], []
    for count in range(1, size + 1):
        image = product(basis[-1])
        alphas.append(float(image @ basis[-1]))
        if not math.isfinite(alphas[-1]):
            return before._replace(value=math.nan, num_products=before.num_products + count)
        for _ in range(2):  # twice is enough against the loss of orthogonality by rounding
            for vector in basis:
                image = image - (image @ vector) * vector
        betas.append(float(image.norm()))
        matrix = torch.diag(torch.tensor(alphas, dtype=torch.float64))
        inner = torch.tensor(betas[:-1], dtype=torch.float64)
        values, vectors = torch.linalg.eigh(matrix + torch.diag(inner, 1) + torch.diag(inner, -1))
        value, weights = float(values[-1]), vectors[:, -1]
        error = betas[-1] * abs(float(weights[-1]))
        scale = max(abs(value), torch.finfo(torch.float64).tiny)
        # An invariant subspace, which contains the eigenvector unless the start is orthogonal to it.
        closed = betas[-1] <= 1e-6 * float(values.abs().max())
        if error <= tolerance * scale or closed or count == size:
            vector = torch.stack(basis, 1) @ weights.to(basis[0])
            return Eigenpair(
                value, vector / vector.norm(), 0.0 if closed else error / scale, before.num_products + count
            )
        basis.append(image / betas[-1])
    raise AssertionError("size is at least 1")


def stability(optimizer: torch.optim.Optimizer) -> Stability:
    """Return the stability limit of an optimizer with its current state and learning rates.

    ========== ================================ ================================================================
    optimizer  limit                            S
    ========== ================================ ================================================================
    SGD        2 (1 + momentum) / lr            1
    Nesterov   2 (1 + m) / ((1 + 2 m) lr)       1
    RMSprop    2 (1 + momentum) / lr            (sqrt(v) + eps) ** -1/2
    Adam(W)    2 (1 + beta1) / ((1 - beta1) lr) ((1 - beta1 ** t) (sqrt(v / (1 - beta2 ** t)) + eps)) ** -1/2
    ========== ================================ ================================================================

    The limits are those of a quadratic loss and the full gradient. Weight decay, which adds its value to the curvature,
    is neglected. Parameter groups with other learning rates are scaled to that of the first group. Other optimizers,
    centered RMSprop, dampening, and groups with different momentum have the limit NaN.

    Args:
        optimizer: Its parameters, in the order of its groups, are the P values of S. With Adam and RMSprop, it has made
            at least one step.

    Example:
        >>> parameter = torch.nn.Parameter(torch.zeros(1))
        >>> stability(torch.optim.SGD([parameter], lr=0.5, momentum=0.5)).limit
        6.0
    """
    groups = optimizer.param_groups
    parts, factors, formulas = [], [], []
    for group in groups:
        factor, formula = _factor(optimizer, group)
        factors.append(factor)
        formulas.append(formula)
        relative = math.sqrt(group["lr"] / groups[0]["lr"]) if groups[0]["lr"] > 0 else 1.0
        for parameter in trained(group):
            root = _preconditioner(optimizer, group, parameter)
            parts.append(torch.full_like(parameter, relative) if root is None else relative / root.sqrt())
    lr = groups[0]["lr"]
    limit = factors[0] / lr if len(set(factors)) == 1 and lr > 0 else math.nan
    scale = flatten(parts)
    return Stability(limit, None if bool((scale == 1).all()) else scale, formulas[0] if limit == limit else "")


def trained(group: dict[str, list[Tensor]]) -> list[Tensor]:
    """Return the parameters of a group of an optimizer that are not frozen."""
    return [parameter for parameter in group["params"] if parameter.requires_grad]


def _factor(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> tuple[float, str]:
    """Return the limit times the learning rate, and its formula."""
    kind, momentum = type(optimizer), group.get("momentum", 0.0)
    if kind in (torch.optim.Adam, torch.optim.AdamW):
        beta = group["betas"][0]
        return 2 * (1 + beta) / (1 - beta), "2 (1 + β₁) / ((1 - β₁) lr)"
    if kind is torch.optim.RMSprop and not group["centered"]:
        return 2 * (1 + momentum), "2 (1 + momentum) / lr" if momentum else "2 / lr"
    if kind is not torch.optim.SGD or group["dampening"]:
        return math.nan, ""
    if group["nesterov"]:
        return 2 * (1 + momentum) / (1 + 2 * momentum), "2 (1 + m) / ((1 + 2 m) lr), m = Nesterov momentum"
    return 2 * (1 + momentum), "2 (1 + momentum) / lr" if momentum else "2 / lr"


def _preconditioner(optimizer: torch.optim.Optimizer, group: dict[str, Any], parameter: Tensor) -> Tensor | None:
    """Return the divisor of the learning rate for each value of a parameter; None is 1."""
    state: dict[str, Tensor] = optimizer.state.get(parameter, {})
    eps: float = group.get("eps", 0.0)
    if type(optimizer) is torch.optim.RMSprop and "square_avg" in state:
        return state["square_avg"].sqrt() + eps
    if type(optimizer) in (torch.optim.Adam, torch.optim.AdamW) and "exp_avg_sq" in state:
        corrections: list[float] = [1 - beta ** float(state["step"]) for beta in group["betas"]]
        root = (state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"] / corrections[1]).sqrt()
        return torch.add(root, eps) * corrections[0]
    return None
