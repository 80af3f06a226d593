"""The command ``lightning-cifar bench conv``: time the convolutions of this package and those of torch."""

from __future__ import annotations

import math
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lightning_cifar.commands.options import positive_int
from lightning_cifar.errors import CommandParser, UsageError
from lightning_cifar.ext.convolution import BACKENDS, conv2d, conv2d_backward, instruction_set, set_num_threads
from lightning_cifar.files.output import choose_output

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float32]
Shape = tuple[int, int, int, int, int, int, int]

REFERENCE: Shape = (10, 3, 20, 20, 6, 2, 2)
CIFAR: tuple[Shape, ...] = (
    (128, 3, 32, 32, 32, 3, 3),
    (128, 32, 32, 32, 32, 3, 3),
    (128, 64, 16, 16, 64, 3, 3),
    (32, 128, 8, 8, 128, 3, 3),
    (1, 3, 32, 32, 32, 3, 3),
    (1, 64, 16, 16, 64, 3, 3),
)
TORCH, TORCH_LAST = "torch NCHW", "torch channels_last"
MAX_OPERATIONS = {"loops": 2e6, "cython_naive": 2e10}  # a slow implementation is left out above this number


@dataclass
class Row:
    """Result of one implementation for one shape, forward or backward.

    Attributes:
        seconds: Median time of a call.
        gflops: 1e9 operations per second; a multiplication and an addition count as two.
        error: Largest difference from torch in float64, divided by the largest value there.
    """

    shape: Shape
    way: str
    name: str
    seconds: float
    gflops: float
    error: float
    times: list[float] = field(repr=False, default_factory=list)


def main(args: Sequence[str]) -> None:
    """Run the command."""
    options = _parser().parse_args(args)
    shapes = read_shapes(options.shape)
    path = choose_output(Path(options.out), "conv_bench.png")

    import torch

    torch.set_num_threads(options.threads)
    set_num_threads(options.threads)
    built = instruction_set() or "not built"
    print(f"{options.threads} thread(s), n = {options.rounds} interleaved rounds, medians, float32")
    print(f"torch {torch.__version__}, numpy {np.__version__}, cython kernel: {built}\n")
    rows: list[Row] = []
    for shape in shapes:
        for way in ("forward", "backward"):
            rows += race(shape, way, options.rounds)
            print(format_rows([row for row in rows if row.shape == shape and row.way == way]))
    from lightning_cifar.artifacts import write_picture
    from lightning_cifar.plots import draw_conv_bench

    write_picture(path, draw_conv_bench([(title(row.shape), row.way, row.name, row.gflops) for row in rows]))
    print(f"picture: {path}")


def _parser() -> CommandParser:
    parser = CommandParser("bench", description="Time the hand-made convolutions and those of torch, interleaved.")
    add = parser.add_argument
    add("what", choices=("conv",), help="what to time")
    add("--shape", default="reference", help="reference, cifar, or NxCxHxWxKxRxS such as 32x16x32x32x16x3x3")
    add("--threads", type=positive_int, default=1, help="threads of each implementation (default %(default)s)")
    add("--rounds", type=positive_int, default=15, help="measurements of each implementation (default %(default)s)")
    add("--out", default=".", metavar="PATH", help="file or folder for the picture (default: current folder)")
    return parser


def read_shapes(text: str) -> tuple[Shape, ...]:
    """Parse the value of ``--shape``.

    Raises:
        UsageError: If the value is not valid.
    """
    if text == "reference":
        return (REFERENCE,)
    if text == "cifar":
        return CIFAR
    numbers = [int(number) for number in text.split("x")] if re.fullmatch(r"\d+(x\d+){6}", text) else []
    if len(numbers) != 7 or min(numbers) < 1:
        raise UsageError(f"--shape (={text}) must be reference, cifar, or seven numbers NxCxHxWxKxRxS.")
    n, c, h, w, k, r, s = numbers
    if r > h + 2 * _padding(r) or s > w + 2 * _padding(s):
        raise UsageError(
            f"--shape (={text}): the {r} x {s} kernel is larger than the {h} x {w} image: use a smaller kernel."
        )
    return ((n, c, h, w, k, r, s),)


def _padding(kernel: int) -> int:
    """Padding that keeps the size of the image for odd kernels; even kernels have no padding."""
    return kernel // 2 if kernel % 2 else 0


def race(shape: Shape, way: str, rounds: int) -> list[Row]:
    """Time all implementations for one shape alternately, so that a disturbance affects all of them."""
    import torch

    n, c, h, w, k, r, s = shape
    padding = (_padding(r), _padding(s))
    height, width = h + 2 * padding[0] - r + 1, w + 2 * padding[1] - s + 1
    operations = 2.0 * n * k * height * width * c * r * s * (1 if way == "forward" else 2)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, c, h, w)).astype(np.float32)
    kernel = rng.normal(size=(k, c, r, s)).astype(np.float32)
    grad = rng.normal(size=(n, k, height, width)).astype(np.float32)
    contestants = dict(_contestants(way, x, kernel, grad, padding, operations))
    truth = _torchs(way, padding, *(torch.from_numpy(a.astype(np.float64)) for a in (x, kernel, grad)))
    rows = {
        name: Row(shape, way, name, math.nan, math.nan, _error(call(), truth)) for name, call in contestants.items()
    }
    repeats = {}
    for name, call in contestants.items():
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(2e-3 / (time.perf_counter() - start)))
    for i in range(rounds):
        for name, call in contestants.items():
            # Three rounds are enough for the slow implementations.
            if i >= 3 and repeats[name] == 1 and rows[name].times[0] > 0.2:
                continue
            begin = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            rows[name].times.append((time.perf_counter() - begin) / repeats[name])
    for row in rows.values():
        row.seconds = statistics.median(row.times)
        row.gflops = operations / row.seconds / 1e9
    return list(rows.values())


def _contestants(
    way: str, x: Array, kernel: Array, grad: Array, padding: tuple[int, int], operations: float
) -> Iterator[tuple[str, Callable[[], Sequence[Array]]]]:
    for name in ("loops", "naive", "im2col", "cython_naive", "cython"):
        if name in BACKENDS and operations <= MAX_OPERATIONS.get(name, math.inf):
            yield name, partial(_ours, name, way, x, kernel, grad, padding)
    if "cython" in BACKENDS:
        last = [np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for a in (x, grad)]
        yield "cython channels_last", partial(_ours, "cython", way, last[0], kernel, last[1], padding)
    import torch

    for name, order in ((TORCH, torch.contiguous_format), (TORCH_LAST, torch.channels_last)):
        tensors = [torch.from_numpy(a.copy()).to(memory_format=order) for a in (x, kernel, grad)]
        yield name, partial(_torchs, way, padding, *tensors)


def _ours(backend: str, way: str, x: Array, kernel: Array, grad: Array, padding: tuple[int, int]) -> Sequence[Array]:
    if way == "forward":
        return (conv2d(x, kernel, padding=padding, backend=backend),)  # type: ignore[arg-type,return-value]
    return conv2d_backward(grad, x, kernel, padding=padding, backend=backend)[:2]  # type: ignore[arg-type,return-value]


def _torchs(way: str, padding: tuple[int, int], *tensors: Tensor) -> Sequence[Array]:
    import torch

    x, kernel, grad = tensors
    if way == "forward":
        with torch.no_grad():
            return (torch.nn.functional.conv2d(x, kernel, padding=padding).numpy(),)
    arguments = ([1, 1], list(padding), [1, 1], False, [0, 0], 1, [True, True, False])
    grads = torch.ops.aten.convolution_backward(grad, x, kernel, None, *arguments)
    return [each.numpy() for each in grads[:2]]


def _error(found: Sequence[Array], truth: Sequence[Array]) -> float:
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, truth, strict=True))


def title(shape: Shape) -> str:
    """Return a shape as text, such as ``128 x 3 x 32 x 32 to 32, 3 x 3``."""
    n, c, h, w, k, r, s = shape
    return f"{n} x {c} x {h} x {w} to {k}, {r} x {s}"


def format_rows(rows: Sequence[Row]) -> str:
    """Return the table for one shape and direction."""
    by_name = {row.name: row for row in rows}
    lines = [f"{title(rows[0].shape)}, {rows[0].way}"]
    lines.append(f"  {'':<22}{'ms':>10}{'GFLOP/s':>10}{'x naive':>10}{'x NCHW':>9}{'x c_last':>9}{'error':>10}")
    for row in rows:
        ratios = [by_name[name].seconds / row.seconds for name in ("naive", TORCH, TORCH_LAST)]
        cells = f"{row.seconds * 1e3:>10.4g}{row.gflops:>10.3g}{ratios[0]:>10.3g}{ratios[1]:>9.2f}{ratios[2]:>9.2f}"
        lines.append(f"  {row.name:<22}{cells}{row.error:>10.1e}")
    return "\n".join([*lines, ""])
