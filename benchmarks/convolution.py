"""Time of a convolution, forward and backward, with the backends of this package and with torch.

    python benchmarks/convolution.py [--threads 1 2] [--seconds 2]
    python benchmarks/convolution.py --lenet [--threads 1]

All candidates are interleaved round by round in one process. In a round, each is called for 15 ms and then timed once,
so that its own threads are active, other threads are idle (the OpenMP threads of torch spin for some milliseconds after
a call) and its arrays are in the cache. The result is the median over the rounds.

The first table contains all backends on the reference shape, with the ratio to the naive backend (higher is faster).
The second compares "cython" with torch on CIFAR shapes, 3 x 3 kernels, padding 1: time of torch / time of cython, in
NCHW, in channels_last, and for cython in NCHW with torch in channels_last; then GFLOP/s including the padding, and the
largest error relative to double precision, divided by the largest value, of both. The backward pass computes three
gradients in one call.

--lenet: images/s of training steps of LeNet, batch 128, with hand-made layers and with torch layers, in alternating
steps.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from lightning_cifar.ext.convolution import BACKENDS, conv2d, conv2d_backward, instruction_set, set_num_threads

CIFAR = [(128, 3, 32, 32), (128, 32, 32, 32), (128, 64, 16, 64), (32, 128, 8, 128), (1, 3, 32, 32), (1, 64, 16, 64)]
Candidates = dict[str, Callable[[], Any]]


def warm_up(run: Callable[[], Any], seconds: float = 0.015) -> None:
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        run()


def interleaved(candidates: Candidates, seconds: float) -> dict[str, float]:
    """Median seconds of each."""
    start = time.perf_counter()
    for run in candidates.values():
        warm_up(run)
        run()
    rounds = max(7, int(seconds / (time.perf_counter() - start)))
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            warm_up(run)
            before = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - before)
    return {name: statistics.median(times) for name, times in taken.items()}


def torch_backward(grad_y: torch.Tensor, x: torch.Tensor, w: torch.Tensor, padding: int) -> Any:
    unit, pad, zero = [1, 1], [padding, padding], [0, 0]
    return torch.ops.aten.convolution_backward(
        grad_y, x, w, [len(w)], unit, pad, unit, False, zero, 1, [True, True, True]
    )


def ladder(seconds: float) -> None:
    """N=10, C=3, 20 x 20, K=6, 2 x 2, no padding, no bias."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((10, 3, 20, 20), np.float32), rng.standard_normal((6, 3, 2, 2), np.float32)
    grad_y = rng.standard_normal((10, 6, 19, 19), np.float32)
    names = [name for name in BACKENDS if name != "loops"]
    tx, tw, tg = map(torch.from_numpy, (x, w, grad_y))
    forward: Candidates = {name: lambda name=name: conv2d(x, w, backend=name) for name in names}  # type: ignore[misc]
    backward: Candidates = {
        name: lambda name=name: conv2d_backward(grad_y, x, w, backend=name)
        for name in names  # type: ignore[misc]
    }
    ahead = interleaved(forward | {"torch": lambda: torch.conv2d(tx, tw)}, seconds)
    back = interleaved(backward | {"torch": lambda: torch_backward(tg, tx, tw, 0)}, seconds)
    print("reference shape  forward us   x naive   backward us   x naive")
    for name in ahead:
        print(
            f"{name:<15} {1e6 * ahead[name]:11.1f} {ahead['naive'] / ahead[name]:9.1f}"
            f" {1e6 * back[name]:13.1f} {back['naive'] / back[name]:9.1f}"
        )


def error(result: Any, exact: torch.Tensor) -> float:
    return float((torch.as_tensor(result).double() - exact).abs().max() / exact.abs().max())


def beside_torch(shape: tuple[int, int, int, int], seconds: float) -> None:
    N, C, size, K = shape
    torch.manual_seed(0)
    x, w, b = torch.randn(N, C, size, size), torch.randn(K, C, 3, 3) / (3 * C**0.5), torch.randn(K)
    grad_y = torch.randn(N, K, size, size)
    last = torch.channels_last
    x_last, w_last, grad_last = (array.contiguous(memory_format=last) for array in (x, w, grad_y))
    nx, nw, nb, ng, nx_last, ng_last = (array.numpy() for array in (x, w, b, grad_y, x_last, grad_last))
    ahead = interleaved(
        {
            "torch": lambda: torch.conv2d(x, w, b, padding=1),
            "ours": lambda: conv2d(nx, nw, nb, padding=1),
            "torch_last": lambda: torch.conv2d(x_last, w_last, b, padding=1),
            "ours_last": lambda: conv2d(nx_last, nw, nb, padding=1),
        },
        seconds,
    )
    back = interleaved(
        {
            "torch": lambda: torch_backward(grad_y, x, w, 1),
            "ours": lambda: conv2d_backward(ng, nx, nw, padding=1),
            "torch_last": lambda: torch_backward(grad_last, x_last, w_last, 1),
            "ours_last": lambda: conv2d_backward(ng_last, nx_last, nw, padding=1),
        },
        seconds,
    )
    exact = torch.conv2d(x.double(), w.double(), b.double(), padding=1)
    exact_w = torch_backward(grad_y.double(), x.double(), w.double(), 1)[1]
    errors = [error(conv2d(nx, nw, nb, padding=1), exact), error(torch.conv2d(x, w, b, padding=1), exact)]
    errors += [
        error(conv2d_backward(ng, nx, nw, padding=1)[1], exact_w), error(torch_backward(grad_y, x, w, 1)[1], exact_w)
    ]  # fmt: skip
    flops = 2 * N * C * size * size * K * 9
    print(f"{N:>4} x {C:>3} x {size:>2}^2 -> {K:<4}", end="")
    for times, passes in ((ahead, 1), (back, 2)):
        print(
            f"|{1e3 * times['ours']:8.3f} {times['torch'] / times['ours']:6.2f}"
            f" {times['torch_last'] / times['ours_last']:6.2f} {times['torch_last'] / times['ours']:7.2f}"
            f" {passes * flops / times['ours'] / 1e9:8.0f} ",
            end="",
        )
    print("| " + " ".join(f"{e:.1e}" for e in errors))


def lenet(rounds: int = 60) -> None:
    """Training steps of LeNet on random images, channels_last as our DataModules give them."""
    from lightning_cifar.models import LeNet

    torch.manual_seed(0)
    images = torch.randn(128, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (128,))
    networks = {layers: LeNet(layers=layers) for layers in ("library", "hand_made")}
    optimizers = {layers: network.make_optimizer() for layers, network in networks.items()}
    taken: dict[str, list[float]] = {layers: [] for layers in networks}
    for _ in range(rounds):
        for layers, network in networks.items():
            before = time.perf_counter()
            network.loss(network(images), labels).backward()
            optimizers[layers].step()
            optimizers[layers].zero_grad()
            taken[layers].append(time.perf_counter() - before)
    theirs, ours = (statistics.median(times[5:]) for times in taken.values())
    print(f"LeNet: library {128 / theirs:.0f} images/s, hand_made {128 / ours:.0f}: {theirs / ours:.2f}x")


def keep_memory() -> None:
    """Let the process keep what it frees, as a training does, whose heap is large.

    glibc gives back what lies free at the end of the heap beyond twice the largest block that was mapped and freed
    (up to 32 MB). Else torch, whose NCHW path holds two arrays of the output's size at once, gets 17 MB of new pages in
    each call of the first shape: measured as 8.8x in place of 1.7x.
    """
    block = torch.empty(2**25 - 2**16, dtype=torch.uint8)
    del block


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds per pair of passes and shape")
    parser.add_argument(
        "--lenet", action="store_true", help="time the training of LeNet instead of single convolutions"
    )
    args = parser.parse_args()
    keep_memory()
    print(f"torch {torch.__version__}, numpy {np.__version__}, instruction set {instruction_set() or 'none'}")
    for threads in args.threads:
        torch.set_num_threads(threads)
        set_num_threads(threads)
        print(f"\n{threads} thread{'s' * (threads > 1)}")
        if args.lenet:
            lenet()
            continue
        ladder(args.seconds)
        columns = "   ms    NCHW   last NCHW/last GFLOP/s "
        print(f"{'':<22}| forward {'':<29}| backward")
        print(f"{'':<22}|{columns}|{columns}| error of y, ours and torch's; of grad_w")
        with torch.no_grad():
            for shape in CIFAR:
                beside_torch(shape, args.seconds)


if __name__ == "__main__":
    main()
