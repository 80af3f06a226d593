"""The command ``lightning-cifar gradcheck``: compare analytic gradients with central differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lightning_cifar.commands.options import positive_int
from lightning_cifar.errors import CommandParser, UsageError
from lightning_cifar.ext import layers
from lightning_cifar.ext.convolution import conv2d, conv2d_backward
from lightning_cifar.ext.functions import FUNCTIONS, Function
from lightning_cifar.ext.gradients import numeric_backward, numeric_gradient
from lightning_cifar.ext.layers import Array
from lightning_cifar.ext.tape import Node, in_order
from lightning_cifar.files.output import choose_output

LAYER_TOLERANCE = 1e-7  # central differences with h = 1e-6 are good to about 1e-9


class Check(NamedTuple):
    """One comparison: the largest difference, and the tolerance."""

    name: str
    difference: float
    tolerance: float
    example: str = ""

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance  # not with NaN


def main(args: Sequence[str]) -> int:
    """Run the command; return 0 if all checks passed, 1 if one failed."""
    options = _parser().parse_args(args)
    if options.draw and not options.function:
        raise UsageError(f"--draw (={options.draw}) needs --function, such as f3.")
    picture = options.draw and choose_output(Path(options.draw), f"{options.function}.png", option="--draw")
    is_all = not (options.function or options.layers or options.classifiers or options.stability)
    checks: list[Check] = []
    for name in [options.function] if options.function else sorted(FUNCTIONS) if is_all else []:
        for case, function in FUNCTIONS[name].items():
            checks += check_function(case, function, options.num)
    if options.layers or is_all:
        checks += check_layers()
    if options.classifiers or is_all:
        checks += check_classifiers()
    if options.stability or is_all:
        checks += check_stability()
    if picture:
        draw(options.function, picture)
    width = max(len(check.name) for check in checks)
    for check in checks:
        verdict = "passed" if check.passed else "FAILED"
        print(f"{check.name:<{width}}  {check.difference:8.1e}  (allowed {check.tolerance:.0e})  {verdict}")
        if not check.passed and check.example:
            print(f"    {check.example}")
    failed = sum(not check.passed for check in checks)
    print(f"{len(checks) - failed} of {len(checks)} passed")
    return 1 if failed else 0


def _parser() -> CommandParser:
    parser = CommandParser(
        "gradcheck", description="Compare analytic gradients with central differences. Default: all."
    )
    add = parser.add_argument
    add("--function", choices=sorted(FUNCTIONS), help="one of the small functions")
    add("--layers", action="store_true", help="the hand-made layers")
    add("--classifiers", action="store_true", help="the losses of linear and two-layer classifiers")
    add("--stability", action="store_true", help="the softmax loss of scores of 1000")
    add("--draw", metavar="PATH", help="file or folder for a picture of the graph of --function")
    add("--num", type=positive_int, default=100_000, help="random inputs of a function (default %(default)s)")
    return parser


def draw(name: str, path: Path) -> None:
    """Draw the graph of a function for the inputs 1, 2, 3 ..., with values and gradients."""
    from lightning_cifar.artifacts import write_picture
    from lightning_cifar.plots import GraphNode, draw_graph

    case, function = next(iter(FUNCTIONS[name].items()))
    inputs = [Node(i + 1.0, name) for i, name in enumerate(function.inputs)]
    result = function.graph(*inputs)
    result.backward()
    order = in_order(result)
    places = {id(node): i for i, node in enumerate(order)}
    drawn = []
    for node in order:
        kind = "result" if node is result else "operation" if node.inputs else "variable" if node.name else "constant"
        label = node.name or node.operation or f"{float(node.value):g}"
        value = "" if kind == "constant" else f"{float(node.value):.4g}"
        grad = "" if kind == "constant" else f"{float(node.grad):.4g}"
        drawn.append(GraphNode(label, kind, value, grad, tuple(places[id(given)] for given in node.inputs)))
    write_picture(path, draw_graph(drawn, f"{case}: values (black) and gradients of the result (red)"))
    print(f"graph: {path}")


def check_function(name: str, function: Function, num: int, h: float = 1e-4) -> Iterator[Check]:
    """Compare values and gradients of a function at random inputs in [0, 1): by hand, by tape, by differences."""
    inputs = np.random.default_rng(0).random((num, len(function.inputs)))
    nodes = [Node(column) for column in inputs.T]
    out = function.graph(*nodes)
    out.backward()
    by_tape = np.stack([node.grad for node in nodes], axis=1)
    results = [function.by_hand(*values) for values in inputs.tolist()]
    values, by_hand = np.array([value for value, _ in results]), np.array([grads for _, grads in results])

    numeric = np.empty_like(by_hand)
    for i in range(len(function.inputs)):
        step = np.zeros(len(function.inputs))
        step[i] = h
        above, below = (function.graph(*map(Node, (inputs + sign * step).T)).value for sign in (1, -1))
        numeric[:, i] = (above - below) / (2 * h)
    yield _worst(
        f"{name}: value by hand and by tape", inputs, function.inputs, values[:, None], out.value[:, None], 1e-12
    )
    yield _worst(f"{name}: gradient by hand", inputs, function.inputs, by_hand, numeric, function.tolerance)
    yield _worst(f"{name}: gradient by tape", inputs, function.inputs, by_tape, numeric, function.tolerance)


def _worst(name: str, inputs: Array, names: Sequence[str], actual: Array, expected: Array, tolerance: float) -> Check:
    difference = np.abs(actual - expected)
    row, column = np.unravel_index(int(difference.argmax()), difference.shape)
    at = ", ".join(f"{key} = {value:.6g}" for key, value in zip(names, inputs[row], strict=True))
    example = f"at {at}: expected {expected[row, column]:.12g}, got {actual[row, column]:.12g}"
    return Check(name, float(difference[row, column]), tolerance, example)


def check_layers() -> Iterator[Check]:
    """Compare the backward function of each layer with central differences, in float64."""
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(4, 5)), rng.normal(size=(5, 3)), rng.normal(size=3)
    grad_y = rng.normal(size=(4, 3))
    grads = layers.fc_backward(grad_y, layers.fc_forward(x, w, b)[1])
    yield _layer("fc: x", lambda x: layers.fc_forward(x, w, b)[0], x, grad_y, grads[0])
    yield _layer("fc: w", lambda w: layers.fc_forward(x, w, b)[0], w, grad_y, grads[1])
    yield _layer("fc: b", lambda b: layers.fc_forward(x, w, b)[0], b, grad_y, grads[2])

    y, cache = layers.relu_forward(x)
    grad_y = rng.normal(size=y.shape)
    yield _layer("relu", lambda x: layers.relu_forward(x)[0], x, grad_y, layers.relu_backward(grad_y, cache))

    images = rng.normal(size=(2, 3, 6, 5))
    y, pool = layers.max_pool_forward(images, 3, 2)
    grad_y = rng.normal(size=y.shape)
    grad = layers.max_pool_backward(grad_y, pool)
    yield _layer("max pool", lambda x: layers.max_pool_forward(x, 3, 2)[0], images, grad_y, grad)
    y, pool = layers.average_pool_forward(images, 2, 1)
    grad_y = rng.normal(size=y.shape)
    grad = layers.average_pool_backward(grad_y, pool)
    yield _layer("average pool", lambda x: layers.average_pool_forward(x, 2, 1)[0], images, grad_y, grad)

    kernels, bias = rng.normal(size=(4, 3, 3, 2)), rng.normal(size=4)
    y = conv2d(images, kernels, bias, stride=2, padding=1)
    grad_y = rng.normal(size=y.shape)
    grads = conv2d_backward(grad_y, images, kernels, stride=2, padding=1)
    yield _layer("convolution: x", lambda x: conv2d(x, kernels, bias, stride=2, padding=1), images, grad_y, grads[0])
    yield _layer("convolution: w", lambda w: conv2d(images, w, bias, stride=2, padding=1), kernels, grad_y, grads[1])
    yield _layer("convolution: b", lambda b: conv2d(images, kernels, b, stride=2, padding=1), bias, grad_y, grads[2])

    labels = rng.integers(0, 5, 4)
    numeric = numeric_gradient(lambda x: layers.softmax_loss(x, labels)[0], x)
    yield _difference("softmax loss", layers.softmax_loss(x, labels)[1], numeric)
    target = rng.normal(size=x.shape)
    numeric = numeric_gradient(lambda x: layers.l2_loss(x, target)[0], x)
    yield _difference("l2 loss", layers.l2_loss(x, target)[1], numeric)
    numeric = numeric_gradient(lambda w: layers.l2_regularization(w, 0.3)[0], w)
    yield _difference("l2 regularization", layers.l2_regularization(w, 0.3)[1], numeric)


def check_classifiers() -> Iterator[Check]:
    """Compare the gradients of the whole loss of a linear and of a two-layer classifier, for each weight."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(5, 8)), rng.integers(0, 3, 5)
    for name, sizes in {"linear classifier": [8, 3], "two-layer net": [8, 6, 3]}.items():
        parameters: list[Array] = [0.1 * rng.normal(size=shape) for shape in pairwise(sizes)]
        parameters += [0.1 * rng.normal(size=size) for size in sizes[1:]]
        half = len(parameters) // 2
        for i, (parameter, grad) in enumerate(zip(parameters, _loss(x, labels, parameters)[1], strict=True)):

            def loss(value: Array, i: int = i, parameters: list[Array] = parameters) -> float:
                return _loss(x, labels, [*parameters[:i], value, *parameters[i + 1 :]])[0]

            numeric = numeric_gradient(loss, parameter)
            yield _difference(f"{name}: {'w' if i < half else 'b'}{i % half + 1}", grad, numeric)


def _loss(x: Array, labels: np.ndarray, parameters: Sequence[Array], reg: float = 0.1) -> tuple[float, list[Array]]:
    """Softmax loss of fully connected layers with ReLU between them and L2 regularization, and its gradients.

    The parameters and the gradients are the weights of all layers, then their biases.
    """
    depth = len(parameters) // 2
    caches: list[tuple[layers.FCCache, Array]] = []
    for w, b in zip(parameters[:depth], parameters[depth:], strict=True):
        scores, cache = layers.fc_forward(x, w, b)
        x, kept = layers.relu_forward(scores)
        caches.append((cache, kept))
    loss, grad = layers.softmax_loss(scores, labels)
    grads = [*parameters]  # replaced one by one
    for i in reversed(range(depth)):
        cache, kept = caches[i]
        if i < depth - 1:
            grad = layers.relu_backward(grad, kept)
        grad, grad_w, grads[depth + i] = layers.fc_backward(grad, cache)
        penalty, grad_penalty = layers.l2_regularization(parameters[i], reg)
        loss += penalty
        grads[i] = grad_w + grad_penalty
    return loss, grads


def check_stability() -> Iterator[Check]:
    """Check that loss and gradient are exactly 0, not -0.0 or NaN, for scores of +-1000."""
    scores = np.full((3, 3), -1000.0)
    np.fill_diagonal(scores, 1000.0)
    loss, grad = layers.softmax_loss(scores, np.arange(3))
    exact = float("inf") if np.signbit(loss) else abs(loss)
    yield Check("softmax loss of scores of 1000", exact, 0.0, f"expected 0, got {loss}")
    yield Check("its gradient", float(np.abs(grad).max()), 0.0)


def _layer(name: str, f: Callable[[Array], Array], x: Array, grad_y: Array, grad: Array) -> Check:
    return _difference(name, grad, numeric_backward(f, x, grad_y))


def _difference(name: str, actual: Array, expected: Array) -> Check:
    return Check(name, float(np.abs(actual - expected).max()), LAYER_TOLERANCE)
