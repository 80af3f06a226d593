"""Transfer learning: speed of cached features and of frozen layers, and accuracy of a transferred network.

    python benchmarks/transfer.py --data-root data [--parts cache graph knowledge] [--rounds 3] [--threads 2]

Without ``--data-root``, synthetic images are used.

- ``cache``: the head of a ResNet18 is trained for ``--epochs`` on ``--images`` images, with features computed once and
  with the frozen forward pass in every epoch: interleaved, in one process, by a Lightning Trainer. The times include
  start-up and the computation of the features. The heads must be equal.
- ``graph``: training steps of the head of the same network without cached features, with the frozen part under
  ``no_grad``, relative to a loop in which only the optimizer excludes the body (``tracked``), and to a loop that also
  sets ``requires_grad=False`` there. Interleaved.
- ``knowledge``: a ResNet18 is trained on classes 0 to 4 (``--source`` stores or loads it), and its body is used for
  classes 5 to 9 with ``--images`` labelled images; only the head is trained. It is compared with a network trained from
  initial weights on the same images for the same time and for ten times as long. Accuracy on all test images of classes
  5 to 9, over ``--rounds`` draws of images and weights.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import time
import warnings
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
import torchvision

from lightning_cifar.data import CIFAR10DataModule, SyntheticDataModule
from lightning_cifar.data.image_datamodule import ImageDataModule, LabelledImages
from lightning_cifar.models import PretrainedResNet


class SomeClasses(CIFAR10DataModule):
    """CIFAR-10 images of some classes, with new class numbers.

    Args:
        classes: Their numbers in CIFAR-10, in the order of the new ones.
        **settings: See :class:`~lightning_cifar.data.CIFAR10DataModule`.
    """

    def __init__(self, classes: range, **settings: Any) -> None:
        super().__init__(**settings)
        self.classes = classes
        self.class_names = tuple(type(self).class_names[k] for k in classes)

    def load(self, part: Literal["train", "test"]) -> LabelledImages:
        images, labels = super().load(part)
        chosen = np.isin(labels, self.classes)
        return LabelledImages(images[chosen], labels[chosen] - self.classes.start)


class SomeShapes(SyntheticDataModule):
    """The same of drawn shapes."""

    def __init__(self, classes: range, **settings: Any) -> None:
        super().__init__(num_test=500, **{**settings, "num_train": 2 * settings["num_train"]})
        self.classes, self.half = classes, settings["num_train"]
        self.class_names = tuple(type(self).class_names[k] for k in classes)

    def load(self, part: Literal["train", "test"]) -> LabelledImages:
        images, labels = super().load(part)
        chosen = np.isin(labels, self.classes)
        self.num_train = min(self.half, int(chosen.sum()) - self.num_val)
        return LabelledImages(images[chosen], labels[chosen] - self.classes.start)


class Budget(pl.Callback):
    """Ends training after so many seconds, of the processor where it trains there; None ends nothing."""

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds, self.steps = seconds, 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.start = now(pl_module.device)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        self.steps += 1
        if self.seconds is not None and now(pl_module.device) - self.start >= self.seconds:
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.spent = now(pl_module.device) - self.start


def now(device: torch.device) -> float:
    """Seconds: of the processor, over all threads, or of the wall where a GPU computes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def make_data(options: argparse.Namespace, classes: range | None = None, **settings: Any) -> ImageDataModule:
    settings = {"augment": [], "num_val": 0, "seed": 0, "batch_size": options.batch_size, **settings}
    settings["eval_batch_size"] = 500
    if options.data_root is None:
        return SyntheticDataModule(**settings) if classes is None else SomeShapes(classes, **settings)
    settings = {"root": options.data_root, "verify": False, **settings}
    return CIFAR10DataModule(**settings) if classes is None else SomeClasses(classes, **settings)


def make_trainer(options: argparse.Namespace, epochs: int, *callbacks: pl.Callback) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs,
        accelerator=options.device,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        callbacks=list(callbacks),
    )


def describe(name: str, values: list[float], unit: str = "s") -> str:
    return f"  {name:<28} {statistics.median(values):8.2f} {unit} ({min(values):.2f} to {max(values):.2f})"


def ratio(slow: list[float], fast: list[float]) -> str:
    ratios = sorted(one / other for one, other in zip(slow, fast, strict=True))
    return f"{statistics.median(ratios):.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})"


# ---------------------------------------------------------------- features that are kept


def compare_cache(options: argparse.Namespace) -> None:
    seconds: dict[str, list[float]] = {"never": [], "memory": []}
    furthest = 0.0
    for _ in range(options.rounds):
        heads = []
        for cache, times in seconds.items():
            torch.manual_seed(0)
            module = PretrainedResNet(
                "resnet18",
                weights=None,
                num_classes=10,
                input_size=options.input_size,
                cache=cache,  # type: ignore[arg-type]  # one of its names
                lr=0.05,
            )
            data = make_data(options, num_train=options.images)
            data.setup("fit")
            start = time.perf_counter()
            make_trainer(options, options.epochs).fit(module, data)
            times.append(time.perf_counter() - start)
            heads.append(module.network.get_submodule("fc").weight.detach().cpu())
        furthest = max(furthest, (heads[0] - heads[1]).abs().max().item())
    print(f"\ncache: head of resnet18, {options.epochs} epochs, {options.images} images at {options.input_size} pixels")
    print(describe("forward in every epoch", seconds["never"]))
    print(describe("features computed once", seconds["memory"]))
    print(f"  {ratio(seconds['never'], seconds['memory'])}, target 6x; largest difference of the heads {furthest:.1e}")


# ---------------------------------------------------------------- no graph through the frozen part


def compare_graph(options: argparse.Namespace) -> None:
    ways = {"no_grad": "head", "requires_grad=False": "all", "tracked": "all"}
    device = torch.device(options.device)
    images = torch.randn(options.graph_batch, 3, options.input_size, options.input_size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(len(images), device=device) % 10
    modules = {}
    for way, train in ways.items():
        torch.manual_seed(0)
        module = PretrainedResNet("resnet18", weights=None, train=train, input_size=options.input_size).to(device)
        module.eval()  # batch norms as in a frozen network, in all three
        if way == "requires_grad=False":
            module.requires_grad_(False)
            module.network.get_submodule("fc").requires_grad_(True)
        modules[way] = module, torch.optim.SGD(module.network.get_submodule("fc").parameters(), lr=0.01)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(options.rounds + 1):
        for way, (module, optimizer) in modules.items():
            start = time.perf_counter()
            for _ in range(options.steps):
                module.zero_grad()
                module.loss(module(images), labels).backward()
                optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:  # the first is for warming up
                seconds[way].append(1e3 * (time.perf_counter() - start) / options.steps)
    print(f"\ngraph: step of the head of resnet18, batch {len(images)} at {options.input_size} pixels")
    for way, values in seconds.items():
        print(describe(way, values, "ms"))
    print(f"  tracked over no_grad {ratio(seconds['tracked'], seconds['no_grad'])}, target 1.8x")
    print(f"  requires_grad=False over no_grad {ratio(seconds['requires_grad=False'], seconds['no_grad'])}")


# ---------------------------------------------------------------- what is known already


def source_network(options: argparse.Namespace) -> Path:
    """A checkpoint of a ResNet18 that knows classes 0 to 4."""
    path: Path = options.source
    if path.is_file():
        print(f"\nknowledge: source network taken from {path}")
        return path
    torch.manual_seed(0)
    data = make_data(
        options, range(5), num_train=options.source_images, num_val=0, augment=["flip", {"crop": 4}], batch_size=128
    )
    module = PretrainedResNet(
        "resnet18",
        weights=None,
        num_classes=5,
        train="all",
        input_size=options.size_small,
        lr=0.1,
        nesterov=True,
        weight_decay=5e-4,
        schedule="linear",
        warmup=0.2,
    )
    budget = Budget()
    trainer = make_trainer(options, options.source_epochs, budget)
    trainer.fit(module, data)
    path.parent.mkdir(parents=True, exist_ok=True)
    trainer.save_checkpoint(path)
    print(
        f"\nknowledge: source network, {options.source_epochs} epochs of {options.source_images} images of classes 0-4 "
        f"at {options.size_small} pixels, {budget.spent:.0f} s: {accuracy_of(trainer, module, data):.2f} % on their "
        "test images"
    )
    return path


def accuracy_of(trainer: pl.Trainer, module: PretrainedResNet, data: ImageDataModule) -> float:
    return 100 * trainer.test(module, data, verbose=False)[0]["test/accuracy"]


def train_target(
    options: argparse.Namespace, seed: int, weights: Path | None, seconds: float | None
) -> tuple[float, float, int]:
    """Test accuracy in percent on classes 5 to 9, seconds, and steps."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {"weights": None, "train": "all"}
    if weights is not None:
        settings = {"weights": str(weights), "train": "head"}
    module = PretrainedResNet(
        "resnet18", num_classes=5, input_size=options.size_small, lr=options.lr, nesterov=True, **settings
    )
    data = make_data(options, range(5, 10), num_train=options.images, split_seed=seed, seed=seed)
    budget = Budget(seconds)
    trainer = make_trainer(options, options.epochs if seconds is None else 10_000, budget)
    trainer.fit(module, data)
    return accuracy_of(trainer, module, data), budget.spent, budget.steps


def compare_knowledge(options: argparse.Namespace) -> None:
    source = source_network(options)
    names = ("head on transferred body", "scratch, same seconds", "scratch, 10 x seconds")
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in names}
    for seed in range(options.rounds):
        found[names[0]].append(train_target(options, seed, source, None))
        seconds = found[names[0]][-1][1]
        found[names[1]].append(train_target(options, seed, None, seconds))
        found[names[2]].append(train_target(options, seed, None, 10 * seconds))
    print(f"  {options.images} images of classes 5-9, n = {options.rounds} seeds, test images of classes 5-9:")
    for name, rows in found.items():
        accuracies, spent, steps = zip(*rows, strict=True)
        spread = statistics.stdev(accuracies) if len(rows) > 1 else 0.0
        cost = f"{statistics.median(spent):7.2f} s   {statistics.median(steps):7.0f} steps"
        print(f"  {name:<28} {statistics.mean(accuracies):6.2f} +- {spread:.2f} %   {cost}")


PARTS = {"cache": compare_cache, "graph": compare_graph, "knowledge": compare_knowledge}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add("--data-root", help="folder of CIFAR-10; without it, synthetic images")
    add("--images", type=int, default=2000)
    add("--epochs", type=int, default=10)
    add("--rounds", type=int, default=3)
    add("--batch-size", type=int, default=64)
    add("--input-size", type=int, default=224, help="image size for the parts cache and graph")
    add("--size-small", type=int, default=32, help="image size for the part knowledge")
    add("--steps", type=int, default=5, help="steps per round of the part graph")
    add("--graph-batch", type=int, default=16)
    add("--lr", type=float, default=0.02, help="learning rate of the part knowledge")
    add("--source", type=Path, default=Path("source.ckpt"), help="checkpoint of the network of classes 0 to 4")
    add("--source-epochs", type=int, default=4)
    add("--source-images", type=int, default=25_000)
    add("--threads", type=int, default=os.cpu_count())
    add("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, lightning {pl.__version__}, "
        f"{options.device}, {options.threads} thread(s), n = {options.rounds} rounds, "
        f"{'drawn shapes' if options.data_root is None else 'the real CIFAR-10'}"
    )
    for part in options.parts:
        PARTS[part](options)


if __name__ == "__main__":
    main()
