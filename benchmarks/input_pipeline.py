"""Images per second of the input pipeline: crop, flip, cutout and normalisation of 32 x 32 images.

    python benchmarks/input_pipeline.py [--threads 1] [--rounds 5] [--batch_sizes 128 512] [--device cpu]

Candidates, interleaved round by round in one process, with the same operations on the same random images:

- ``albumentations``: a Compose on NumPy images in a Dataset, through a DataLoader without workers;
- ``torchvision v2``: a Compose on uint8 tensors in a Dataset, through a DataLoader without workers;
- ``ours``: BatchLoader of this package, on ``--device``; the others run on the CPU.

Prints the median ratio over the rounds, with the smallest and the largest; then the share of the input pipeline in a
training step of DilatedNet.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from albumentations.pytorch import ToTensorV2
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from lightning_cifar.data.augment import Pipeline, build
from lightning_cifar.data.batches import BatchLoader
from lightning_cifar.models import DilatedNet

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
HOLE = 8


class Transformed(Dataset[tuple[Tensor, int]]):
    """One transformed image at a time."""

    def __init__(self, images: Any, transform: Callable[[Any], Tensor]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(self.images[i]), 0


def seconds_per_image(loader: Iterable[tuple[Tensor, Tensor]]) -> float:
    start, count = time.perf_counter(), 0
    for images, _ in loader:
        count += len(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / count


def step_seconds(batch_size: int, device: str) -> float:
    """Median time of a DilatedNet training step on a ready batch."""
    network = DilatedNet().network.to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    images = torch.randn(batch_size, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(batch_size, dtype=torch.int64, device=device)
    times = []
    for _ in range(7):
        start = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=20 * 1024, help="images of an epoch; the peers get a tenth")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, albumentations {A.__version__}, "
        f"{options.threads} thread(s), n = {options.rounds} rounds"
    )
    num_peers = options.images // 10
    images = np.random.default_rng(0).integers(0, 256, (options.images, 32, 32, 3), dtype=np.uint8)
    composed = A.Compose(
        [
            A.PadIfNeeded(40, 40, border_mode=0),
            A.RandomCrop(32, 32),
            A.HorizontalFlip(p=0.5),
            A.CoarseDropout((1, 1), (HOLE, HOLE), (HOLE, HOLE), fill=0, p=1.0),
            A.Normalize(MEAN, STD),
            ToTensorV2(),
        ]
    )
    side = HOLE / 32
    transforms = v2.Compose(
        [
            v2.RandomCrop(32, padding=4),
            v2.RandomHorizontalFlip(),
            v2.RandomErasing(p=1.0, scale=(side**2, side**2), ratio=(1, 1), value=0),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    tensors = torch.from_numpy(images[:num_peers]).permute(0, 3, 1, 2).contiguous()
    for batch_size in options.batch_sizes:
        pipeline = Pipeline(
            build(["flip", {"crop": {"padding": 4, "mode": "zero"}}, {"cutout": {"size": HOLE, "fill": 0}}]),
            mean=MEAN,
            std=STD,
        )
        labels = torch.zeros(options.images, dtype=torch.int64, device=options.device)
        resident = torch.from_numpy(images).to(options.device)
        peers: dict[str, Iterable[tuple[Tensor, Tensor]]] = {
            "ours": BatchLoader(resident, labels, pipeline=pipeline, batch_size=batch_size, shuffle=True),
            "albumentations": DataLoader(
                Transformed(images[:num_peers], lambda image: composed(image=image)["image"]), batch_size, shuffle=True
            ),
            "torchvision v2": DataLoader(Transformed(tensors, transforms), batch_size, shuffle=True),
        }
        runs = {peer: partial(seconds_per_image, loader) for peer, loader in peers.items()}
        seconds: dict[str, list[float]] = {peer: [] for peer in runs}
        for i in range(options.rounds + 1):
            for peer, run in runs.items():
                value = run()
                if i:  # the first round warms up
                    seconds[peer].append(value)
        print(f"\nbatch {batch_size}")
        for peer, times in seconds.items():
            ratios = sorted(theirs / ours for theirs, ours in zip(times, seconds["ours"], strict=True))
            print(
                f"  {peer:<16} {1 / statistics.median(times):9.0f} images/s   ours is "
                f"{statistics.median(ratios):6.1f}x ({ratios[0]:.1f} to {ratios[-1]:.1f})"
            )
        share = statistics.median(seconds["ours"]) * batch_size / step_seconds(batch_size, options.device)
        print(f"  input work is {100 * share:.2f} % of a DilatedNet training step")


if __name__ == "__main__":
    main()
