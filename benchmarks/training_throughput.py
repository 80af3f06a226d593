"""Images per second of training: this package relative to a common hand-written loop and to a bare loop.

    python benchmarks/training_throughput.py [--threads 2] [--rounds 5] [--models LeNet DilatedNet]
                                             [--device cuda] [--precision bf16-mixed] [--compile]
                                             [--system_memory]

Candidates, interleaved round by round in one process, with the same network, optimizer, batch size and random images:

- ``per sample, n workers``: torchvision transforms on each PIL image (crop with padding 4, flip, to tensor, normalise),
  a DataLoader with n workers, NCHW, the usual hand-written loop with running loss and accuracy;
- ``bare loop``: the same network in the same memory format over prepared normalised batches;
- ``ours``: a Lightning Trainer with a DataModule of this package (crop, flip, normalise) and ``Throughput``, without
  logger; ``--precision bf16-mixed`` adds it and the bare loop in that precision, ``--compile`` the compiled network,
  ``--compile cudagraphs`` with CUDA graphs, which start all kernels of a pass at once.

All candidates keep freed memory as the command line does; with ``--system_memory``, none does.

Prints the median ratio over the rounds, with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial

from lightning_cifar.memory import keep_freed_memory

if "--system_memory" not in sys.argv:
    keep_freed_memory()  # before torch is imported

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from lightning_cifar.analysis.layers import compile_networks
from lightning_cifar.callbacks import Throughput
from lightning_cifar.data import SyntheticDataModule
from lightning_cifar.models import Classifier, DilatedNet, LeNet

BATCH_SIZE = 128
MODELS: dict[str, Callable[[], Classifier]] = {"LeNet": LeNet, "DilatedNet": DilatedNet}
NUM_BATCHES = {"LeNet": 64, "DilatedNet": 8}
MEAN_STD = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


class PerSampleDataset(Dataset[tuple[Tensor, int]]):
    """One transformed PIL image at a time."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(*MEAN_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[i])), int(self.labels[i])


def hand_written_loop(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """An epoch with running loss and accuracy."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    network.train()
    total_loss, correct, total = 0.0, 0, 0
    for images, labels in batches:
        optimizer.zero_grad()
        logits = network(images)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        total_loss += loss.item()
        correct += logits.argmax(1).eq(labels).sum().item()
        total += len(labels)


def bare_loop(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, is_mixed: bool = False) -> None:
    """An epoch of nothing but steps."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    network.train()
    for images, labels in batches:
        optimizer.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=is_mixed):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()


class EpochClock(pl.Callback):
    """Seconds of the second epoch: start-up is not training."""

    seconds = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        wait(pl_module.device)
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        wait(pl_module.device)
        self.seconds = time.perf_counter() - self.start


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_ours(
    make: Callable[[], Classifier], num_images: int, device: str, precision: str, *, backend: str | None = None
) -> float:
    data = SyntheticDataModule(num_train=num_images, num_val=0, num_test=1, batch_size=BATCH_SIZE, seed=0)
    clock = EpochClock()
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator=device,
        devices=1,
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[clock, Throughput()],
    )
    model = make()
    if backend:
        compile_networks(model, **({"mode": "reduce-overhead"} if backend == "cudagraphs" else {"backend": backend}))
    trainer.fit(model, data)
    return clock.seconds


def time_loop(
    loop: Callable[[nn.Module, Iterable[tuple[Tensor, Tensor]]], None],
    make: Callable[[], Classifier],
    batches: Iterable[tuple[Tensor, Tensor]],
    memory_format: torch.memory_format,
    warm: list[tuple[Tensor, Tensor]],
) -> float:
    device = warm[0][0].device
    network = make().network.to(device, memory_format=memory_format)
    loop(network, warm)
    wait(device)
    start = time.perf_counter()
    loop(network, batches)
    wait(device)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batches", type=int, help="batches of an epoch; by default 64 of LeNet and 8 of DilatedNet")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true", help="a further precision")
    compiles = "also with torch.compile and this backend (default: inductor; or cudagraphs), in the last precision"
    parser.add_argument("--compile", nargs="?", const="inductor", metavar="BACKEND", help=compiles)
    parser.add_argument("--system_memory", action="store_true", help="return freed memory to the system")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, lightning {pl.__version__}, "
        f"{options.device}, {options.threads} thread(s), batch {BATCH_SIZE}, n = {options.rounds} rounds"
        f"{', freed memory returned to the system' if options.system_memory else ''}"
    )
    for name in options.models:
        compare(name, options)


def compare(name: str, options: argparse.Namespace) -> None:
    """Run the peers in turn and print their medians."""
    make, precision = MODELS[name], options.precision
    num_images = (options.batches or NUM_BATCHES[name]) * BATCH_SIZE
    data = SyntheticDataModule(num_train=num_images, num_val=0, num_test=1, batch_size=BATCH_SIZE, seed=0)
    arrays = data.load("train")
    ready = [(images.to(options.device), labels.to(options.device)) for images, labels in data.train_dataloader()]
    dataset = PerSampleDataset(arrays.images, arrays.labels)
    loaders = {n: DataLoader(dataset, BATCH_SIZE, shuffle=True, num_workers=n) for n in (0, 2)}
    warm = [(images.contiguous(), labels) for images, labels in ready[:2]]

    def per_sample(num_workers: int) -> float:
        batches = ((images.to(options.device), labels.to(options.device)) for images, labels in loaders[num_workers])
        return time_loop(hand_written_loop, make, batches, torch.contiguous_format, warm)

    peers: dict[str, Callable[[], float]] = {
        "ours": partial(time_ours, make, num_images, options.device, "32-true"),
        "per sample, 0 workers": partial(per_sample, 0),
        "per sample, 2 workers": partial(per_sample, 2),
        "bare loop": partial(time_loop, bare_loop, make, ready, torch.channels_last, ready[:2]),
    }
    if precision != "32-true":
        mixed = partial(bare_loop, is_mixed=True)
        peers[f"ours, {precision}"] = partial(time_ours, make, num_images, options.device, precision)
        peers["bare loop, bf16"] = partial(time_loop, mixed, make, ready, torch.channels_last, ready[:2])
    if options.compile:
        peers[f"ours, {precision}, compiled"] = partial(
            time_ours, make, num_images, options.device, precision, backend=options.compile
        )
    seconds: dict[str, list[float]] = {peer: [] for peer in peers}
    for _ in range(options.rounds):
        for peer, run in peers.items():
            seconds[peer].append(run())
    print(f"\n{name}: {num_images} images a round")
    for peer, times in seconds.items():
        ratios = sorted(theirs / ours for theirs, ours in zip(times, seconds["ours"], strict=True))
        print(
            f"  {peer:<27} {num_images / statistics.median(times):8.0f} images/s   ours is "
            f"{statistics.median(ratios):5.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
