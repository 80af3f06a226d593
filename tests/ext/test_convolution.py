"""Every backend computes torch's convolution, and invalid arguments raise errors."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lightning_cifar.ext import convolution
from lightning_cifar.ext.convolution import (
    BACKENDS,
    conv2d,
    conv2d_backward,
    conv2d_grad_input,
    conv2d_grad_weight,
    get_num_threads,
    set_num_threads,
)

Array = NDArray[Any]
COMPILED = "cython" in BACKENDS
compiled = pytest.mark.skipif(not COMPILED, reason="the compiled backends are not built here")


class Case(NamedTuple):
    """A convolution. C and K are those of one group; pairs are (height, width)."""

    C: int = 3
    K: int = 4
    image: tuple[int, int] = (7, 6)
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    N: int = 2

    @property
    def settings(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}


SMALL = [
    Case(),
    Case(padding=(1, 1)),
    Case(kernel=(1, 1)),
    Case(kernel=(2, 3), stride=(2, 1)),
    Case(stride=(2, 3), padding=(1, 2)),
    Case(dilation=(2, 1), padding=(2, 0)),
    Case(C=1, K=2, groups=3, padding=(1, 1)),
    Case(C=2, K=1, groups=2, stride=(2, 2), dilation=(1, 2), padding=(0, 2)),
    Case(image=(1, 9), kernel=(1, 4)),
    Case(image=(9, 1), kernel=(5, 1), padding=(2, 0), stride=(3, 1)),
    Case(image=(2, 2), kernel=(3, 3), padding=(3, 3)),  # outputs of only padding
    Case(kernel=(2, 2), stride=(3, 4)),  # unused pixels
    Case(kernel=(7, 6)),  # one output
    Case(C=1, K=1, N=1, image=(1, 1), kernel=(1, 1)),
]
# Shapes for every branch of the blocked kernels: whole and partial vectors, tiles, chunks, bands.
LARGE = [
    Case(C=3, K=32, image=(32, 32), padding=(1, 1)),
    Case(C=33, K=47, image=(8, 8), padding=(1, 1), N=3),
    Case(C=64, K=64, image=(16, 16), padding=(1, 1), N=1),
    Case(C=20, K=10, image=(31, 17), kernel=(5, 5), padding=(2, 2), stride=(2, 2)),
    Case(C=40, K=40, image=(13, 14), kernel=(1, 1), stride=(2, 1)),
    Case(C=17, K=33, image=(5, 150), kernel=(1, 1)),
    Case(C=4, K=16, groups=8, image=(11, 11)),
    Case(C=1, K=1, groups=20, image=(12, 12), padding=(1, 1)),
    Case(C=9, K=5, image=(14, 29), kernel=(3, 7), dilation=(3, 2), padding=(2, 5)),
    Case(C=2, K=3, image=(300, 40), kernel=(3, 3), stride=(1, 2), N=1),
    Case(C=2, K=40, image=(2, 700), kernel=(2, 3), padding=(0, 1), N=1),
    Case(C=600, K=2, image=(4, 4), kernel=(2, 2), N=1),
]


def arrange(array: Array, layout: str) -> Array:
    """Return the same values in another memory layout."""
    if layout == "channels_last":
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    if layout == "strided":
        n, c, h, w = array.shape
        view = np.zeros((n, c + 1, 2 * h, 3 * w), array.dtype)[:, 1:, ::2, 2::3]
        view[:] = array
        return view
    if layout == "reversed":
        return np.ascontiguousarray(array[::-1, :, ::-1, ::-1])[::-1, :, ::-1, ::-1]
    if layout == "odd_address":
        raw = np.zeros(array.nbytes + 1, np.uint8)
        view = raw[1:].view(array.dtype).reshape(array.shape)
        view[:] = array
        return view
    return array


def draw(case: Case, dtype: str, seed: int = 0) -> tuple[Array, Array, Array, Array]:
    """Return x, w, b and a gradient by y."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((case.N, case.C * case.groups, *case.image)).astype(dtype)
    w = rng.standard_normal((case.K * case.groups, case.C, *case.kernel)).astype(dtype)
    b = rng.standard_normal(case.K * case.groups).astype(dtype)
    out = [
        (size + 2 * pad - gap * (kernel - 1) - 1) // step + 1
        for size, pad, gap, kernel, step in zip(
            case.image, case.padding, case.dilation, case.kernel, case.stride, strict=True
        )
    ]
    return x, w, b, rng.standard_normal((case.N, len(w), *out)).astype(dtype)


@cache  # used by every backend and layout
def by_torch(case: Case, dtype: str) -> list[Array]:
    """Return y, grad_x, grad_w, grad_b in double precision for the arrays of draw()."""
    x, w, b, grad_y = (torch.tensor(array, dtype=torch.float64) for array in draw(case, dtype))
    leaves = [array.requires_grad_() for array in (x, w, b)]
    y = torch.nn.functional.conv2d(*leaves, **case.settings)
    y.backward(grad_y)  # type: ignore[no-untyped-call]
    return [y.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves if leaf.grad is not None)]


@pytest.fixture(scope="module", autouse=True)
def one_thread_of_torch() -> Iterator[None]:
    """Use one thread, which is faster for tiny arrays."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def check(case: Case, dtype: str, layout: str, backend: Any) -> None:
    x, w, b, grad_y = draw(case, dtype)
    expected = by_torch(case, dtype)
    x, w, grad_y = arrange(x, layout), arrange(w, layout), arrange(grad_y, layout)
    before = [array.copy() for array in (x, w, b, grad_y)]
    y = conv2d(x, w, b, **case.settings, backend=backend)
    grads = conv2d_backward(grad_y, x, w, **case.settings, backend=backend)
    for name, got, wanted in zip(("y", "grad_x", "grad_w", "grad_b"), (y, *grads), expected, strict=True):
        assert got.dtype == dtype
        assert got.shape == wanted.shape, name
        error = np.abs(got - wanted).max() / np.abs(wanted).max()
        assert error < (1e-12 if dtype == "float64" else 3e-6), name
    for array, copy in zip((x, w, b, grad_y), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.fixture
def restore() -> Iterator[None]:
    """Restore threads and instruction set."""
    threads, name = get_num_threads(), convolution.instruction_set()
    yield
    set_num_threads(threads)
    if COMPILED:
        convolution.conv_cython.use_instruction_set(name)


def instruction_sets() -> list[str]:
    names = []
    for name in ("avx512", "avx2", "portable") if COMPILED else ():
        before = convolution.instruction_set()
        try:
            convolution.conv_cython.use_instruction_set(name)
        except ValueError:
            continue
        convolution.conv_cython.use_instruction_set(before)
        names.append(name)
    return names


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", SMALL, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_is_torchs_convolution(backend: str, case: Case, dtype: str, layout: str) -> None:
    check(case, dtype, layout, backend)


@pytest.mark.parametrize("backend", ["naive", "im2col", *(["cython_naive"] if COMPILED else [])])
@pytest.mark.parametrize("case", LARGE, ids=str)
def test_larger_shapes(backend: str, case: Case) -> None:
    check(case, "float64", "contiguous", backend)


@compiled
@pytest.mark.usefixtures("restore")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided", "reversed", "odd_address"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", instruction_sets())
def test_blocked_kernels_on_every_instruction_set(name: str, dtype: str, layout: str) -> None:
    convolution.conv_cython.use_instruction_set(name)
    for case in SMALL + LARGE:
        check(case, dtype, layout, "cython")


@compiled
@pytest.mark.usefixtures("restore")
@pytest.mark.parametrize("case", LARGE, ids=str)
def test_results_do_not_depend_on_the_number_of_threads(case: Case) -> None:
    x, w, b, grad_y = draw(case._replace(N=5), "float32")
    results = []
    for threads in (1, 2, 3, 7, 2):
        set_num_threads(threads)
        results.append([conv2d(x, w, b, **case.settings), *conv2d_backward(grad_y, x, w, **case.settings)])
    for other in results[1:]:
        for first, again in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(first, again)


@compiled
@pytest.mark.usefixtures("restore")
def test_concurrent_callers() -> None:
    set_num_threads(3)
    case = Case(C=20, K=40, image=(16, 16), padding=(1, 1), N=8)
    inputs = [draw(case, "float32", seed) for seed in range(4)]
    expected = [[conv2d(x, w, b, **case.settings), *conv2d_backward(g, x, w, **case.settings)] for x, w, b, g in inputs]
    wrong: list[int] = []

    def repeat(i: int) -> None:
        x, w, b, g = inputs[i]
        for _ in range(15):
            results = [conv2d(x, w, b, **case.settings), *conv2d_backward(g, x, w, **case.settings)]
            if not all(np.array_equal(got, want) for got, want in zip(results, expected[i], strict=True)):
                wrong.append(i)

    callers = [threading.Thread(target=repeat, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LIGHTNING_CIFAR_EXT")}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=clean | environment
    )


@compiled
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_can_convolve() -> None:
    code = """
import os, numpy as np
from lightning_cifar.ext.convolution import conv2d, set_num_threads
set_num_threads(2)
x, w = np.ones((8, 16, 16, 16), "f4"), np.ones((32, 16, 3, 3), "f4")
y = conv2d(x, w)
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(conv2d(x, w), y) else 3)
assert os.waitpid(child, 0)[1] == 0
assert np.array_equal(conv2d(x, w), y)
"""
    result = run(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_empty_batch_works(backend: Any, layout: str) -> None:
    x, w, b, grad_y = draw(Case(N=0, padding=(1, 1)), "float32")
    x, grad_y = arrange(x, layout), arrange(grad_y, layout)
    assert conv2d(x, w, b, padding=1, backend=backend).shape == (0, 4, 7, 6)
    grad_x, grad_w, grad_b = conv2d_backward(grad_y, x, w, padding=1, backend=backend)
    assert grad_x.shape == x.shape
    assert not grad_w.any()
    assert not grad_b.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_and_infinity_propagate_only_to_their_outputs(backend: Any) -> None:
    x, w, b, grad_y = draw(Case(padding=(1, 1)), "float32")
    clean = conv2d(x, w, b, padding=1, backend=backend)
    x[1, 2, 0, 3], x[0, 0, 6, 5] = np.nan, np.inf
    y = conv2d(x, w, b, padding=1, backend=backend)
    touched = np.zeros(y.shape, bool)
    touched[1, :, :2, 2:5] = True
    touched[0, :, 5:, 4:] = True
    assert np.isnan(y[1, :, :2, 2:5]).all()
    assert np.isinf(y[0, :, 5:, 4:]).all()
    np.testing.assert_allclose(y[~touched], clean[~touched], rtol=1e-6)
    grad_y[0, 1, 2, 3] = np.nan
    _, grad_w, grad_b = conv2d_backward(grad_y, x, w, padding=1, backend=backend)
    assert np.isnan(grad_w[1]).all()
    np.testing.assert_array_equal(np.isnan(grad_b), [False, True, False, False])


@pytest.mark.parametrize("backend", BACKENDS)
def test_grad_input_and_grad_weight_equal_backward(backend: Any) -> None:
    case = Case(stride=(2, 1), padding=(1, 1))
    x, w, _, grad_y = draw(case, "float64")
    grad_x, grad_w, grad_b = conv2d_backward(grad_y, x, w, **case.settings, backend=backend)
    np.testing.assert_array_equal(grad_x, conv2d_grad_input(grad_y, w, x.shape, **case.settings, backend=backend))
    half_w, half_b = conv2d_grad_weight(grad_y, x, w.shape, **case.settings, backend=backend)
    np.testing.assert_array_equal(grad_w, half_w)
    np.testing.assert_array_equal(grad_b, half_b)


@compiled
def test_memory_format_is_preserved() -> None:
    x, w, _, grad_y = draw(Case(C=5, K=6, padding=(1, 1)), "float32")
    assert conv2d(x, w, padding=1).flags.c_contiguous
    last = conv2d(arrange(x, "channels_last"), w, padding=1)
    assert last.transpose(0, 2, 3, 1).flags.c_contiguous
    grad_x, _, _ = conv2d_backward(arrange(grad_y, "channels_last"), arrange(x, "channels_last"), w, padding=1)
    assert grad_x.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_strides_paddings_and_dilations(backend: Any) -> None:
    x, w, b, _ = draw(Case(), "float64")
    first = conv2d(x, w, b, backend=backend)[:, :, :1, :1]
    np.testing.assert_allclose(conv2d(x, w, b, stride=10**30, backend=backend), first)
    y = conv2d(x, w, b, stride=50, padding=100, backend=backend)
    np.testing.assert_array_equal(y[:, :, 0, 0], np.broadcast_to(b, (2, 4)))
    w1 = w[:, :, :1, :1]
    np.testing.assert_array_equal(
        conv2d(x, w1, dilation=10**30, backend=backend), conv2d(x, w1, dilation=1, backend=backend)
    )


def test_other_byte_order_and_lists_of_sizes() -> None:
    x, w, b, _ = draw(Case(), "float32")
    swapped = conv2d(x.astype(">f4"), w, b, padding=[1, 0], stride=np.array([1, 2]))  # type: ignore[arg-type]
    assert swapped.dtype == np.dtype("float32")
    np.testing.assert_array_equal(swapped, conv2d(x, w, b, padding=(1, 0), stride=(1, 2)))


X, W, B, G = draw(Case(), "float32")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": X.astype(int)}, TypeError, r"x is int64.*x\.astype"),
        ({"w": W > 0}, TypeError, "w is bool"),
        ({"x": X.astype(np.float16)}, TypeError, "x is float16"),
        ({"w": W.astype(np.float64)}, TypeError, "x is float32, w is float64"),
        ({"b": B.astype(np.float64)}, TypeError, "x is float32, b is float64"),
        ({"x": X[0]}, ValueError, r"x has shape \(3, 7, 6\): expected 4 axes \(N, C, H, W\)"),
        ({"w": W[None]}, ValueError, r"w has shape \(1, 4, 3, 3, 3\).*\(K, C, R, S\)"),
        ({"b": B[:2]}, ValueError, r"b has shape \(2,\).*4 out-channels"),
        ({"x": X[:, :, :0]}, ValueError, r"x has shape \(2, 3, 0, 6\): only the batch"),
        ({"w": W[:, :, :, :0]}, ValueError, "only the batch axis may be empty"),
        ({"x": X[:, :2]}, ValueError, r"x \(2, 2, 7, 6\) has 2 channels, but w \(4, 3, 3, 3\) with groups=1 expects 3"),
        ({"groups": 2}, ValueError, r"in-channels \(=3\) and out-channels \(=4\) must be divisible by groups \(=2\)"),
        ({"groups": 0}, ValueError, r"groups \(=0\) must be at least 1"),
        ({"groups": 1.0}, TypeError, r"groups \(=1\.0\) must be an integer"),
        ({"stride": 0}, ValueError, r"stride \(=0\) must be at least 1"),
        ({"stride": (1, -1)}, ValueError, r"stride \(=\(1, -1\)\)"),
        ({"stride": (1, 1, 1)}, ValueError, r"stride .* has 3 entries"),
        ({"stride": 1.5}, TypeError, r"stride \(=1\.5\) must be an integer"),
        ({"padding": -1}, ValueError, r"padding \(=-1\) must be at least 0"),
        ({"padding": "same"}, TypeError, r"padding \(='same'\)"),
        ({"dilation": 0}, ValueError, r"dilation \(=0\)"),
        ({"dilation": 4}, ValueError, r"covers 9 pixels, more than the image \(7, 6\) with padding \(0, 0\) has \(7\)"),
        ({"backend": "cuda"}, ValueError, r"backend \(='cuda'\) must be one of loops, naive, im2col"),
    ],
)
def test_invalid_arguments_raise(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"x": X, "w": W, "b": B} | changes
    x, w, b = arguments.pop("x"), arguments.pop("w"), arguments.pop("b")
    with pytest.raises(error, match=message) as caught:
        conv2d(x, w, b, **arguments)
    assert "\n" not in str(caught.value)
    if "b" not in changes and not isinstance(caught.value, TypeError):
        with pytest.raises(error, match=message):
            conv2d_backward(G, x, w, **arguments)


def test_invalid_gradients_raise() -> None:
    with pytest.raises(ValueError, match=r"grad_y has shape \(2, 4, 5, 4\), but y has \(2, 4, 7, 6\)"):
        conv2d_backward(G, X, W, padding=1)
    with pytest.raises(TypeError, match="grad_y is int64"):
        conv2d_grad_input(G.astype(int), W, X.shape)
    with pytest.raises(ValueError, match="grad_y has shape"):
        conv2d_grad_weight(G[:, :3], X, W.shape)
    with pytest.raises(ValueError, match="at least 1"):
        set_num_threads(0)


@compiled
def test_compiled_functions_reject_wrong_shapes() -> None:
    """Even with unchecked arguments, they must not read out of bounds."""
    direct = convolution.conv_cython._conv_direct
    y = np.empty((2, 4, 5, 4), np.float32)
    unit = (1, 1, 0, 0, 1, 1, 1)
    direct.forward(X, W, B, y, unit, 1)
    np.testing.assert_array_equal(y, conv2d(X, W, B))
    for args in [
        (X, W, B, y, (*unit[:6], 0)),
        (X, W, B, y[:1], unit),
        (X, W, B[:3].copy(), y, unit),
        (X, W, B, y, (0, *unit[1:])),
    ]:
        with pytest.raises(ValueError, match="do not belong to one convolution"):
            direct.forward(*args, 1)
    with pytest.raises(ValueError, match="do not belong"):
        direct.grad_input(y[:, :3], W, np.empty_like(X), unit, 1)
    with pytest.raises(ValueError, match="do not belong"):
        direct.grad_weight(y, X, np.empty_like(W), np.empty(3, np.float32), unit, 1)


STATE = """
from lightning_cifar.ext.convolution import active_backend, get_num_threads, instruction_set
print(active_backend(), get_num_threads(), instruction_set())
"""


def test_environment_variables() -> None:
    assert run(STATE, LIGHTNING_CIFAR_EXT_DISABLE="1").stdout.split() == ["im2col", "1"]
    code = "import numpy as np; from lightning_cifar.ext.convolution import conv2d; x = np.ones((1, 1, 2, 2)); "
    code += "conv2d(x, x, backend='cython')"
    assert (
        "backend 'cython' is not available: LIGHTNING_CIFAR_EXT_DISABLE is set"
        in run(code, LIGHTNING_CIFAR_EXT_DISABLE="1").stderr
    )
    missing = "import sys; sys.modules['lightning_cifar.ext._conv_direct'] = None\n" + STATE
    assert run(missing).stdout.split() == ["im2col", "1"]
    refused = run(missing, LIGHTNING_CIFAR_EXT_REQUIRE="1")
    assert refused.returncode != 0
    assert "LIGHTNING_CIFAR_EXT_REQUIRE is set, but they were not compiled" in refused.stderr


@compiled
def test_environment_variables_of_the_compiled_backend() -> None:
    both = run(STATE, LIGHTNING_CIFAR_EXT_DISABLE="1", LIGHTNING_CIFAR_EXT_REQUIRE="1", LIGHTNING_CIFAR_EXT_THREADS="3")
    assert both.stdout.split()[:2] == ["cython", "3"]
    assert run(STATE, LIGHTNING_CIFAR_EXT_ISA="portable").stdout.split()[2] == "portable"
    assert (
        "LIGHTNING_CIFAR_EXT_THREADS (='many') must be a positive integer"
        in run(STATE, LIGHTNING_CIFAR_EXT_THREADS="many").stderr
    )
    assert "'mmx': this processor" in run(STATE, LIGHTNING_CIFAR_EXT_ISA="mmx").stderr
    assert convolution.instruction_set() in ("avx512", "avx2", "portable")


def test_import_loads_only_numpy() -> None:
    code = "import sys, lightning_cifar.ext.convolution; print(*sys.modules)"
    loaded = set(run(code).stdout.split())
    assert "numpy" in loaded
    assert not loaded & {"torch", "lightning", "matplotlib", "scipy", "Cython"}
