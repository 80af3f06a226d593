"""Hand-written layers: comparison with torch and central differences, and edge cases."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from lightning_cifar.ext import layers
from lightning_cifar.ext.gradients import numeric_backward, numeric_gradient

TOLERANCE: dict[Any, float] = {np.float32: 2e-5, np.float64: 1e-12}
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def draw(*shape: int, dtype: Any = np.float64, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def in_torch(f: Callable[..., torch.Tensor], grad_y: NDArray[Any], *arrays: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the value and the gradients by all arrays."""
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    y = f(*tensors)
    y.backward(torch.tensor(grad_y))  # type: ignore[no-untyped-call]
    return [y.detach().numpy(), *(tensor.grad.numpy() for tensor in tensors if tensor.grad is not None)]


def same(ours: Any, theirs: Any, dtype: Any) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@DTYPES
@pytest.mark.parametrize("shape", [(4, 6), (3, 2, 3), (1, 1), (0, 5)])
def test_fc(shape: tuple[int, ...], dtype: Any) -> None:
    size = int(np.prod(shape[1:]))
    x, w, b = draw(*shape, dtype=dtype), draw(size, 7, dtype=dtype, seed=1), draw(7, dtype=dtype, seed=2)
    grad_y = draw(shape[0], 7, dtype=dtype, seed=3)
    y, cache = layers.fc_forward(x, w, b)
    theirs = in_torch(lambda x, w, b: F.linear(x.flatten(1), w.T, b), grad_y, x, w, b)
    same([y, *layers.fc_backward(grad_y, cache)], theirs, dtype)


@DTYPES
def test_relu(dtype: Any) -> None:
    x, grad_y = draw(5, 4, dtype=dtype), draw(5, 4, dtype=dtype, seed=1)
    x[0, :2] = 0
    y, cache = layers.relu_forward(x)
    same([y, layers.relu_backward(grad_y, cache)], in_torch(F.relu, grad_y, x), dtype)
    assert np.isnan(layers.relu_forward(np.array([np.nan]))[0]).all()


@DTYPES
@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize(
    ("shape", "size", "stride"),
    [((2, 3, 6, 8), 2, None), ((2, 1, 7, 5), 3, 2), ((1, 2, 6, 7), 3, 1), ((2, 2, 5, 5), 2, 3), ((0, 2, 4, 4), 2, 2)],
)
def test_pooling(kind: str, shape: tuple[int, ...], size: int, stride: int | None, dtype: Any) -> None:
    forward = {"max": layers.max_pool_forward, "average": layers.average_pool_forward}[kind]
    backward = {"max": layers.max_pool_backward, "average": layers.average_pool_backward}[kind]
    pool: Any = {"max": F.max_pool2d, "average": F.avg_pool2d}[kind]
    x = draw(*shape, dtype=dtype).round(1)  # with ties
    y, cache = forward(x, size, stride)
    grad_y = draw(*y.shape, dtype=dtype, seed=1)
    if not len(x):
        assert backward(grad_y, cache).shape == x.shape
        return
    same([y, backward(grad_y, cache)], in_torch(lambda x: pool(x, size, stride), grad_y, x), dtype)


@DTYPES
def test_softmax_loss(dtype: Any) -> None:
    x, y = draw(6, 4, dtype=dtype), np.array([0, 3, 1, 1, 2, 0])
    loss, grad = layers.softmax_loss(x, y)
    theirs = in_torch(lambda x: F.cross_entropy(x, torch.tensor(y)), np.array(1, dtype), x)
    same([np.array(loss, dtype), grad], theirs, dtype)


def test_softmax_loss_of_large_scores_is_exact() -> None:
    scores = np.full((3, 3), -1000.0)
    np.fill_diagonal(scores, 1000)
    loss, grad = layers.softmax_loss(scores, np.arange(3))
    assert loss == 0
    assert np.copysign(1, loss) == 1  # not -0.0
    assert np.array_equal(grad, np.zeros((3, 3)))
    loss, _ = layers.softmax_loss(scores, np.array([1, 2, 0]))
    assert loss == 2000


@DTYPES
def test_l2(dtype: Any) -> None:
    x, target = draw(5, 3, dtype=dtype), draw(5, 3, dtype=dtype, seed=1)
    loss, grad = layers.l2_loss(x, target)
    theirs = in_torch(lambda x: F.mse_loss(x, torch.tensor(target), reduction="sum") / 10, np.array(1, dtype), x)
    same([np.array(loss, dtype), grad], theirs, dtype)
    loss, grad = layers.l2_regularization(x, 0.5)
    same([np.array(loss, dtype), grad], in_torch(lambda x: 0.25 * (x**2).sum(), np.array(1, dtype), x), dtype)


def test_against_central_differences() -> None:
    x, w, b, grad_y = draw(3, 5), draw(5, 4, seed=1), draw(4, seed=2), draw(3, 4, seed=3)
    _, cache = layers.fc_forward(x, w, b)
    grads = layers.fc_backward(grad_y, cache)
    slow = (
        numeric_backward(lambda x: layers.fc_forward(x, w, b)[0], x, grad_y),
        numeric_backward(lambda w: layers.fc_forward(x, w, b)[0], w, grad_y),
        numeric_backward(lambda b: layers.fc_forward(x, w, b)[0], b, grad_y),
    )
    for ours, numeric in zip(grads, slow, strict=True):
        assert np.abs(ours - numeric).max() < 1e-8
    labels = np.array([0, 2, 1])
    numeric = numeric_gradient(lambda x: layers.softmax_loss(x, labels)[0], x)
    assert np.abs(layers.softmax_loss(x, labels)[1] - numeric).max() < 1e-8


def test_numeric_gradient_does_not_change_its_input() -> None:
    x = draw(3)
    before = x.copy()
    numeric_gradient(lambda x: float((x**2).sum()), x)
    assert np.array_equal(x, before)
    with pytest.raises(TypeError, match="numeric gradients need float64, not float32"):
        numeric_gradient(lambda x: 0.0, x.astype(np.float32))
    with pytest.raises(ValueError, match=r"h \(=0\) must be positive"):
        numeric_gradient(lambda x: 0.0, x, 0)
    with pytest.raises(ValueError, match=r"grad_y \(2,\) must have the output's shape \(3,\)"):
        numeric_backward(lambda x: x, x, np.zeros(2))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: layers.fc_forward(draw(2, 3), draw(4, 5), draw(5)),
            ValueError,
            "has 3 values per sample, but w .* needs 4",
        ),
        (lambda: layers.fc_forward(draw(2, 3), draw(3, 5), draw(4)), ValueError, r"b \(M,\)"),
        (lambda: layers.fc_forward(np.ones((2, 3), int), draw(3, 5), draw(5)), TypeError, "not int64"),
        (
            lambda: layers.fc_backward(draw(2, 3), layers.fc_forward(draw(2, 3), draw(3, 5), draw(5))[1]),
            ValueError,
            "must have the output's shape",
        ),
        (lambda: layers.max_pool_forward(draw(2, 3, 4), 2), ValueError, r"images \(N, C, H, W\)"),
        (
            lambda: layers.max_pool_forward(draw(1, 1, 4, 3), 4),
            ValueError,
            r"size \(=4\) must be at most the size of the images 4 x 3",
        ),
        (lambda: layers.average_pool_forward(draw(1, 1, 4, 3), 2, 0), ValueError, r"stride \(=0\)"),
        (
            lambda: layers.softmax_loss(draw(2, 3), np.array([0, 3])),
            ValueError,
            r"labels \(0 to 3\) must be 0 to 2",
        ),
        (lambda: layers.softmax_loss(draw(2, 3), np.array([0])), ValueError, r"y \(N,\)"),
        (lambda: layers.softmax_loss(draw(2, 3), np.array([0.0, 1.0])), TypeError, "integer labels"),
        (lambda: layers.l2_loss(draw(2, 3), draw(3, 2)), ValueError, "must have the same shape"),
        (lambda: layers.l2_regularization(draw(2), -1), ValueError, r"reg \(=-1\)"),
    ],
)
def test_invalid_arguments_raise(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_empty_batches() -> None:
    assert layers.softmax_loss(draw(0, 3), np.zeros(0, int))[0] == 0
    assert layers.l2_loss(draw(0, 3), draw(0, 3))[0] == 0
