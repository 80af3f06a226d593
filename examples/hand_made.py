"""Compare four convolution backends with torch, and gradients with central differences.

python examples/hand_made.py
"""

import time

import numpy as np
import torch
import torch.nn.functional as F

from lightning_cifar import conv2d, conv2d_backward, numeric_gradient
from lightning_cifar.ext.convolution import active_backend
from lightning_cifar.ext.tape import Node, exp


def main() -> None:
    generator = np.random.default_rng(0)
    x, w = generator.normal(size=(8, 3, 20, 20)), generator.normal(size=(6, 3, 5, 5))
    expected = F.conv2d(torch.from_numpy(x), torch.from_numpy(w), padding=2).numpy()
    backends = ["naive", "im2col"] + (["cython_naive", "cython"] if active_backend() == "cython" else [])
    for backend in backends:
        begin = time.perf_counter()
        y = conv2d(x, w, padding=2, backend=backend)
        seconds = time.perf_counter() - begin
        print(f"{backend:>12}: {1e3 * seconds:7.2f} ms, difference to torch {np.abs(y - expected).max():.1e}")

    small = x[:1, :, :6, :6].copy()
    ones = np.ones_like(conv2d(small, w))
    by_hand, _, _ = conv2d_backward(ones, small, w)
    by_differences = numeric_gradient(lambda images: float(conv2d(images, w).sum()), small)
    print(f"hand-written gradient, difference to central differences: {np.abs(by_hand - by_differences).max():.1e}")

    a = Node(0.5)  # automatic differentiation: the tape records the operations
    y = exp(a * a) + a
    y.backward()
    print(f"d(exp(a^2) + a)/da at 0.5 is {float(a.grad):.4f}, exactly {2 * 0.5 * np.exp(0.25) + 1:.4f}")


if __name__ == "__main__":
    main()
