"""The tape compared with torch's autograd, and the three functions with their derivatives by hand."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lightning_cifar.ext import tape
from lightning_cifar.ext.functions import FUNCTIONS, f1, f2, f3
from lightning_cifar.ext.tape import Node, broadcast, in_order, relu, total

RNG = np.random.default_rng(0)
CASES = [(name, function) for cases in FUNCTIONS.values() for name, function in cases.items()]


def compare(ours: Callable[..., Node], theirs: Callable[..., torch.Tensor], *arrays: np.ndarray) -> None:
    nodes = [Node(array) for array in arrays]
    out = ours(*nodes)
    out.backward()
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    expected = theirs(*tensors)
    expected.sum().backward()  # type: ignore[no-untyped-call]
    np.testing.assert_allclose(out.value, expected.detach().numpy(), rtol=1e-12)
    for node, tensor in zip(nodes, tensors, strict=True):
        assert node.grad.shape == node.shape
        np.testing.assert_allclose(node.grad, tensor.grad, rtol=1e-10, atol=1e-12)


A, B, ROW = RNG.uniform(0.5, 2, (3, 4)), RNG.uniform(0.5, 2, (3, 4)), RNG.uniform(0.5, 2, (4,))
M = RNG.normal(size=(4, 2))


@pytest.mark.parametrize(
    ("ours", "theirs", "arrays"),
    [
        (lambda a, b: a + b, lambda a, b: a + b, (A, B)),
        (lambda a, b: a + b, lambda a, b: a + b, (A, ROW)),
        (lambda a, b: a * b, lambda a, b: a * b, (ROW, A)),
        (lambda a, b: a - b, lambda a, b: a - b, (A, np.array(3.0))),
        (lambda a, b: a / b, lambda a, b: a / b, (A, B[:, :1])),
        (lambda a: 2.0 / a - 1.0 + a**3.0, lambda a: 2 / a - 1 + a**3, (A,)),
        (lambda a: 1.0 - a * 3.0 + 4.0, lambda a: 1 - a * 3 + 4, (A,)),
        (lambda a: -tape.exp(a) * tape.log(a), lambda a: -torch.exp(a) * torch.log(a), (A,)),
        (lambda a, m: relu(a @ m), lambda a, m: torch.relu(a @ m), (A - 1, M)),
        (lambda a: total(a, 0) ** 2.0, lambda a: a.sum(0) ** 2, (A,)),
        (lambda a: total(a * a, (0, 1)) * a, lambda a: (a * a).sum((0, 1)) * a, (A,)),
        (lambda a: total(a) * total(a, 1), lambda a: a.sum() * a.sum(1), (A,)),
        (lambda a: broadcast(a, (3, 4)) ** 2.0, lambda a: a.broadcast_to(3, 4) ** 2, (ROW,)),
        (lambda a: a * a + a, lambda a: a * a + a, (A,)),  # one value, used several times
        (lambda a: A + a, lambda a: torch.tensor(A) + a, (ROW,)),  # an array on the left
    ],
)
def test_equals_autograd(ours: Any, theirs: Any, arrays: Any) -> None:
    compare(ours, theirs, *arrays)


def test_a_whole_network() -> None:
    def ours(w1: Node, w2: Node) -> Node:
        scores = relu(Node(A) @ w1) @ w2
        return total(tape.log(total(tape.exp(scores), 1))) - total(scores)

    def theirs(w1: torch.Tensor, w2: torch.Tensor) -> torch.Tensor:
        scores = torch.relu(torch.tensor(A) @ w1) @ w2
        return torch.logsumexp(scores, 1).sum() - scores.sum()

    compare(ours, theirs, RNG.normal(size=(4, 8)), RNG.normal(size=(8, 2)))


def test_backward_overwrites_earlier_gradients() -> None:
    x = Node(3.0)
    y = x * x
    y.backward()
    y.backward()
    assert x.grad == 6


def test_deep_graphs_visit_each_node_once() -> None:
    """A node added to itself 2,000 times: visiting every path would not end, and recursion would be too deep."""
    x = y = Node(1e-300)
    for _ in range(2000):
        y = y * 0.5 + y * 0.5
    y.backward()
    assert x.grad == 1
    assert len(in_order(y)) == 1 + 2000 * 5


def test_invalid_arguments_raise() -> None:
    with pytest.raises(ValueError, match=r"@ needs shapes \(A, B\) and \(B, C\), not \(3, 4\) and \(3, 4\)"):
        Node(A) @ Node(B)
    with pytest.raises(ValueError, match=r"y \(=3\) must be 1 or 2"):
        f3(0, 0, 3)


@pytest.mark.parametrize(("name", "function"), CASES, ids=[name for name, _ in CASES])
def test_functions_by_tape_and_by_hand(name: str, function: Any) -> None:
    inputs = RNG.random((1000, len(function.inputs)))
    nodes = [Node(column) for column in inputs.T]
    out = function.graph(*nodes)
    out.backward()
    for i, values in enumerate(inputs.tolist()):
        value, grads = function.by_hand(*values)
        assert out.value[i] == pytest.approx(value, rel=1e-12)
        assert [node.grad[i] for node in nodes] == pytest.approx(list(grads), rel=1e-9, abs=1e-14)


def test_functions_at_known_points() -> None:
    assert f1(1, 2, 3, 4, 5, 6) == (169, (52, 26, 104, 78, 26, -26))  # (2 + 12 + 5 - 6)^2
    assert f2(0) == (0, (1,))
    assert f2(800)[0] == 1
    assert f3(0, 0, 1) == (pytest.approx(math.log(2)), (-0.5, 0.5))
    assert f3(1000, -1000, 1)[0] == 0
    assert f3(1000, -1000, 2) == (2000, (1, -1))
