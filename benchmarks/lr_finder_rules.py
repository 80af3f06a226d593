"""Distance of suggested learning rates from the best one, for the rules of this package and of other tools.

    python benchmarks/lr_finder_rules.py [--out FOLDER] [--rounds 4] [--seeds 20] [--draws 10] [--big] [--choose]

The trainings take 400 steps with batch 32 from new weights. The protocol was committed before the first measurement:

- *Combinations*: the i-th of 5 small networks with the j-th of 4 optimizers trains on data set (i + j) mod 3
  (CIFAR-10, MNIST, drawn shapes) with schedule (i + j // 2) mod 2 (constant, linear to zero), at 16 x 16 pixels
  (means of 2 x 2; MNIST is padded to 32 x 32 first). They are measured in four rounds, j = (i + 3 + round) mod 4, i
  from 4 to 0, of which ``--rounds`` are done. ``--big`` measures DilatedNet with Adam and ResNet-20 with momentum
  instead, on CIFAR-10 at 32 x 32 pixels, linear to zero, with 3 seeds and 3 draws.
- *Truth*: the final loss of a training is its mean over the last 50 steps, at most ln 10 (chance, which is also the
  value of a diverged training). Screening: every second rate of the grid 1e-4 x 1.5^k up to 10, one seed. Then 20
  seeds at the screened best and its neighbours in the grid, extended by one rate at a time until the best of these
  is not at their edge (except at the end of the grid). The best rate has the lowest mean over the 20 seeds.
- *Draws*: 10 per combination; a draw is a new network with three sweeps of 200 steps from 1e-4 to 10, from the same
  weights with different batches. All rules receive the same sweeps; a suggestion is the median of the three. The
  row ``lr-find --verify`` continues each draw as the command does, on other batches.
- *Measures*: the share of suggestions within 3x of the best rate, and the regret: the mean final loss at the
  suggestion, interpolated on the measured rates over log10(lr), relative to the lowest, minus 1. (Changed after the
  first round, where it was negative once: screened rates are compared with the best on their own seed.)
- *Targets*: at least 95 % within 3x for every network, and a median regret below 2 %.
- *Choices* (rules, constants of ``--verify``) are made only with ``--choose``: other seeds, Fashion-MNIST instead of
  MNIST, the test images of CIFAR-10, and the other schedule; 3 seeds and 3 draws.

Results are appended to FOLDER/results.jsonl, from which an interrupted measurement continues, also with more seeds,
draws or rounds. A round takes about 6 minutes of a free core. If a machine is too busy for this, the first round with
``--seeds 5 --draws 3`` is measured first and reported as such. A full day would add the other 100 combinations, 32
pixels, and 20 seeds for the big networks.

The other tools, implemented from their published descriptions, each with its smoothing, omitted steps at both ends and
stop on divergence:

- fastai: exponential mean (0.98), first tenth and last 5 omitted, stop at 4x; steep, valley, slide, minimum / 10;
- Lightning's Tuner: exponential mean (0.98) corrected with one step too many, first 10 and last 1 omitted, stop at 4x,
  steepest by the learning rate itself;
- torch-lr-finder: exponential mean (0.95, starting at the first loss), first 10 and last 5 omitted, stop at 5x,
  steepest by step.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_cifar.analysis import lr_range
from lightning_cifar.analysis.lr_rules import RULES
from lightning_cifar.data import CIFAR10DataModule, FashionMNISTDataModule, MNISTDataModule
from lightning_cifar.data.shapes import draw_shapes
from lightning_cifar.models import DilatedNet, LeNet, ResNetCIFAR

Array = NDArray[np.float64]
Curve = tuple[Array, Array]  # learning rates, raw losses
Rule = Callable[[Array, Array], float]

SWEEPS_PER_DRAW = 3
NUM_STEPS, MIN_LR, MAX_LR = 200, 1e-4, 10.0
TRAIN_STEPS, FINAL_STEPS, BATCH_SIZE = 400, 50, 32
GRID = 1e-4 * 1.5 ** np.arange(29)
WITHIN = 3.0


# The peers.


def exponential_mean(losses: Array, beta: float, extra: int = 0) -> Array:
    """Divided by ``1 - beta^(t + extra)``, t from 1."""
    mean, means = 0.0, []
    for t, loss in enumerate(losses, start=1):
        mean = beta * mean + (1 - beta) * loss
        means.append(mean / (1 - beta ** (t + extra)))
    return np.array(means)


def until_diverged(lrs: Array, raw: Array, smoothed: Array, factor: float) -> Curve:
    """The steps up to the first that is not finite or above ``factor`` times the best so far."""
    best = np.fmin.accumulate(smoothed)
    over = np.flatnonzero(~np.isfinite(raw) | ~(smoothed <= factor * best))
    end = int(over[0]) + 1 if len(over) else len(lrs)
    finite = np.isfinite(smoothed[:end])
    return lrs[:end][finite], smoothed[:end][finite]


def fastai_curve(lrs: Array, losses: Array) -> Curve:
    lrs, smoothed = until_diverged(lrs, losses, exponential_mean(losses, 0.98), 4)
    return lrs[NUM_STEPS // 10 : -5], smoothed[NUM_STEPS // 10 : -5]


def fastai_steep(lrs: Array, losses: Array) -> float:
    lrs, smoothed = fastai_curve(lrs, losses)
    return float(lrs[(np.diff(smoothed) / np.diff(np.log(lrs))).argmin()])


def fastai_minimum(lrs: Array, losses: Array) -> float:
    lrs, smoothed = fastai_curve(lrs, losses)
    return float(lrs[smoothed.argmin()] / 10)


def fastai_valley(lrs: Array, losses: Array) -> float:
    """Half-way, by step, through the longest decreasing subsequence."""
    lrs, smoothed = fastai_curve(lrs, losses)
    length, begin = np.ones(len(lrs), int), np.arange(len(lrs))
    for i in range(len(lrs)):
        before = np.flatnonzero(smoothed[:i] > smoothed[i])
        if len(before):
            j = before[length[before].argmax()]
            length[i], begin[i] = length[j] + 1, begin[j]
    end = int(length.argmax())
    return float(lrs[(begin[end] + end) // 2])


def fastai_slide(lrs: Array, losses: Array) -> float:
    """From the right, an interval of 15 steps slides until the slopes at its two ends differ by less than 0.005."""
    lrs, smoothed = fastai_curve(lrs, losses)
    slope = np.gradient(smoothed)
    right = len(lrs) - 1
    found = lrs[max(right - 15, 0)]
    while right - 15 >= 0 and abs(slope[right] - slope[right - 15]) > 0.005:
        found = lrs[right - 15]
        right -= 1
    return float(found)


def lightning(lrs: Array, losses: Array) -> float:
    lrs, smoothed = until_diverged(lrs, losses, exponential_mean(losses, 0.98, extra=1), 4)
    lrs, smoothed = lrs[10:-1], smoothed[10:-1]
    return float(lrs[np.gradient(smoothed, lrs).argmin()])


def torch_lr_finder(lrs: Array, losses: Array) -> float:
    smoothed = [losses[0]]
    for loss in losses[1:]:
        smoothed.append(0.05 * loss + 0.95 * smoothed[-1])
    lrs, curve = until_diverged(lrs, losses, np.array(smoothed), 5)
    return float(lrs[10:-5][np.gradient(curve[10:-5]).argmin()])


RULES: dict[str, Rule] = {
    **{f"ours: {name}": rule for name, rule in RULES.items()},
    "fastai: steep": fastai_steep,
    "fastai: valley": fastai_valley,
    "fastai: slide": fastai_slide,
    "fastai: minimum / 10": fastai_minimum,
    "Lightning: Tuner.lr_find": lightning,
    "torch-lr-finder": torch_lr_finder,
}
DEFAULT, VERIFIED = "lr-find", "lr-find --verify"


# Trainings.


class Combination(NamedTuple):
    network: str
    optimizer: str
    data: str
    schedule: str


def make_lenet(channels: int, size: int, activation: str = "relu") -> nn.Module:
    return LeNet(activation, in_channels=channels, image_size=size).network  # type: ignore[arg-type]


def make_mlp(channels: int, size: int, batch_norm: bool = False) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for num_in, num_out in ((channels * size**2, 128), (128, 64)):
        layers += [nn.Linear(num_in, num_out), *([nn.BatchNorm1d(num_out)] if batch_norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def make_batch_norm_cnn(channels: int, size: int) -> nn.Module:
    layers: list[nn.Module] = []
    for num_in, num_out in ((channels, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(num_in, num_out, 3, 2, 1, bias=False), nn.BatchNorm2d(num_out), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)]
    return nn.Sequential(*layers)


SMALL: dict[str, Callable[[int, int], nn.Module]] = {
    "LeNet, ReLU": make_lenet,
    "LeNet, tanh": partial(make_lenet, activation="tanh"),
    "MLP": make_mlp,
    "BatchNorm CNN": make_batch_norm_cnn,
    "BatchNorm MLP": partial(make_mlp, batch_norm=True),
}
BIG_COMBINATIONS = [
    Combination("DilatedNet", "Adam", "CIFAR-10", "linear"),
    Combination("ResNet-20", "momentum", "CIFAR-10", "linear"),
]
BIG: dict[str, Callable[[int, int], nn.Module]] = {
    "DilatedNet": lambda channels, size: DilatedNet(in_channels=channels, image_size=size).network,
    "ResNet-20": lambda channels, size: ResNetCIFAR(20, in_channels=channels, image_size=size).network,
}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
}
DATA = ("CIFAR-10", "MNIST", "shapes")
SCHEDULES = ("constant", "linear")
CHOICE = {"CIFAR-10": "CIFAR-10 test", "MNIST": "Fashion-MNIST", "shapes": "other shapes"}


def combinations(rounds: int) -> list[Combination]:
    pairs = [(i, (i + 3 + k) % len(OPTIMIZERS)) for k in range(rounds) for i in reversed(range(len(SMALL)))]
    return [
        Combination(list(SMALL)[i], list(OPTIMIZERS)[j], DATA[(i + j) % 3], SCHEDULES[(i + j // 2) % 2])
        for i, j in pairs
    ]


@cache
def images_of(data: str, size: int) -> tuple[Tensor, Tensor]:
    """Images as uint8 (N, C, H, W), and labels."""
    if "shapes" in data:
        images, labels = draw_shapes(20_000, seed=0 if data == "shapes" else 5, image_size=32)
    elif data.startswith("CIFAR-10"):
        images, labels = CIFAR10DataModule("data", verify=False).load("test" if "test" in data else "train")[:2]
    else:
        module = FashionMNISTDataModule if data.startswith("Fashion") else MNISTDataModule
        images, labels = module("data").load("train")[:2]
    x = torch.from_numpy(images.reshape(*images.shape[:3], -1)).permute(0, 3, 1, 2)
    x = F.pad(x, [(32 - x.shape[3]) // 2] * 4)
    if size < 32:
        x = torch.cat([F.avg_pool2d(part.float(), 32 // size).round().byte() for part in x.split(5000)])
    return x.contiguous(), torch.from_numpy(labels).long()


def train(combination: Combination, lrs: Array, weights_seed: int, batches_seed: int) -> list[float]:
    """Return the loss of each step, up to the first that is not finite."""
    images, labels = images_of(combination.data, 16 if combination.network in SMALL else 32)
    torch.manual_seed(weights_seed)
    network = (SMALL | BIG)[combination.network](images.shape[1], images.shape[2])
    optimizer = OPTIMIZERS[combination.optimizer](network.parameters(), lr=1.0, fused=True)
    generator = torch.Generator().manual_seed(batches_seed)
    losses: list[float] = []
    for lr in lrs:
        optimizer.param_groups[0]["lr"] = float(lr)
        chosen = torch.randint(len(labels), (BATCH_SIZE,), generator=generator)
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images[chosen].float().sub(127.5).div(63.75)), labels[chosen])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if not np.isfinite(losses[-1]):
            break
    return losses


def final_loss(combination: Combination, lr: float, seed: int) -> float:
    factors = np.ones(TRAIN_STEPS) if combination.schedule == "constant" else 1 - np.arange(TRAIN_STEPS) / TRAIN_STEPS
    losses = train(combination, lr * factors, seed, seed)
    return min(float(np.mean(losses[-FINAL_STEPS:])), np.log(10)) if np.isfinite(losses[-1]) else np.log(10)


class Results:
    """Values by key, appended to a file of JSON lines, so that an interrupted measurement continues."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "results.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.values = dict(json.loads(line) for line in lines)

    def get(self, key: str, compute: Callable[[], object]) -> object:
        if key not in self.values:
            self.values[key] = compute()
            with self.path.open("a") as file:
                file.write(json.dumps([key, self.values[key]]) + "\n")
        return self.values[key]


class Truth(NamedTuple):
    losses: dict[int, Array]
    """Index in GRID -> final loss of each seed."""
    best: int

    def regret(self, lr: float) -> float:
        index = sorted(self.losses)
        best = self.losses[self.best]
        above = [(self.losses[i] - best[: len(self.losses[i])]).mean() for i in index]  # on the same seeds
        return float(np.interp(np.log(lr), np.log(GRID[index]), above) / best.mean())

    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the best rate over the seeds."""
        fine = [i for i, losses in self.losses.items() if len(losses) == len(self.losses[self.best])]
        losses = np.stack([self.losses[i] for i in fine])
        rows = np.random.default_rng(0).integers(losses.shape[1], size=(1000, losses.shape[1]))
        low, high = np.quantile(GRID[fine][losses[:, rows].mean(2).argmin(0)], [0.025, 0.975])
        return float(low), float(high)


def find_truth(results: Results, combination: Combination, first_seed: int, num_seeds: int) -> Truth:
    losses: dict[int, Array] = {}

    def measure(index: int, seeds: int) -> float:
        key = f"truth {'/'.join(combination)} {index}"
        values = [
            results.get(f"{key} {seed}", lambda seed=seed: final_loss(combination, GRID[index], seed))  # type: ignore[misc]
            for seed in range(first_seed, first_seed + seeds)
        ]
        losses[index] = np.array(values)
        return float(losses[index].mean())

    screened = range(0, len(GRID), 2)
    centre = min(screened, key=lambda index: measure(index, 1))
    fine = {i: measure(i, num_seeds) for i in range(max(centre - 1, 0), min(centre + 2, len(GRID)))}
    while True:
        best = min(fine, key=fine.__getitem__)
        beyond = best - 1 if best == min(fine) else best + 1
        if beyond in fine or beyond not in range(len(GRID)):
            return Truth(losses, best)
        fine[beyond] = measure(beyond, num_seeds)


def draw_suggestions(results: Results, combination: Combination, seed: int) -> dict[str, float]:
    """Name of a rule -> its suggestion for one draw."""
    key = f"{'/'.join(combination)} {seed}"
    curves: list[Curve] = []

    def trained(lrs: Array, batches: int, name: str) -> list[float]:
        return results.get(f"{name} {key}", lambda: train(combination, lrs, seed, 1000 * batches + seed))  # type: ignore[return-value]

    for k in range(SWEEPS_PER_DRAW):
        lrs = np.geomspace(MIN_LR, MAX_LR, NUM_STEPS)
        losses = np.array(trained(lrs, k, f"sweep {k}"))
        curves.append((lrs[: len(losses)], losses))
    found = lr_range.suggest([lr_range.Sweep(x, y, lr_range.smooth(y), len(y) < NUM_STEPS, 0) for x, y in curves])
    verified = lr_range.verify(found, lambda lrs: trained(np.array(lrs), SWEEPS_PER_DRAW, f"constant {lrs[0]:.6g}"))
    medians = {name: float(np.exp(np.median(np.log([rule(*c) for c in curves])))) for name, rule in RULES.items()}
    return {DEFAULT: found.value, VERIFIED: verified.value, **medians}


class Row(NamedTuple):
    """Suggestions of one rule for the draws of one combination."""

    within: list[bool]
    regrets: list[float]


def measure(results: Results, combination: Combination, num_seeds: int, num_draws: int, choose: bool) -> dict[str, Row]:
    if choose:
        data, schedule = CHOICE[combination.data], SCHEDULES[1 - SCHEDULES.index(combination.schedule)]
        combination = combination._replace(data=data, schedule=schedule)
    first = 1000 if choose else 100
    truth = find_truth(results, combination, first, num_seeds)
    rows: dict[str, Row] = {}
    for seed in range(first + 100, first + 100 + num_draws):
        for name, lr in draw_suggestions(results, combination, seed).items():
            row = rows.setdefault(name, Row([], []))
            row.within.append(bool(abs(np.log(lr / GRID[truth.best])) <= np.log(WITHIN)))
            row.regrets.append(truth.regret(lr))
    low, high = truth.interval()
    print(
        f"{'/'.join(combination)}: best {GRID[truth.best]:.2g} ({low:.2g} to {high:.2g}), loss "
        f"{truth.losses[truth.best].mean():.4f}"
    )
    for name in (DEFAULT, VERIFIED):
        within, regrets = rows[name]
        print(f"  {name}: {sum(within)} of {num_draws} within 3x, median regret {np.median(regrets):.1%}", flush=True)
    return rows


def print_table(rows: dict[Combination, dict[str, Row]]) -> None:
    groups = {name: [c for c in rows if c.network == name] for name in dict.fromkeys(c.network for c in rows)}
    groups["all"] = list(rows)
    print("\nshare within 3x / median regret\n\n| rule | " + " | ".join(groups) + " |\n|" + "---|" * (len(groups) + 1))
    for rule in next(iter(rows.values())):
        cells = []
        for group in groups.values():
            within = np.concatenate([rows[c][rule].within for c in group])
            regrets = np.concatenate([rows[c][rule].regrets for c in group])
            cells.append(f"{within.mean():.0%} / {np.median(regrets):.1%}")
        print(f"| {rule} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path.home() / ".cache/lr_finder_rules", help="for results.jsonl")
    parser.add_argument("--rounds", type=int, default=4, help="5 combinations each")
    parser.add_argument("--seeds", type=int, default=20, help="trainings per learning rate")
    parser.add_argument("--draws", type=int, default=10, help="suggestions per combination")
    parser.add_argument("--big", action="store_true", help="the big networks instead of the small ones")
    parser.add_argument("--choose", action="store_true", help="other seeds and data, to choose rules")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, numpy {np.__version__}, scipy {scipy.__version__}, {platform.machine()}, "
        f"{options.threads} thread(s)"
    )
    start = time.process_time()
    results = Results(options.out)
    numbers = (3, 3) if options.big or options.choose else (options.seeds, options.draws)
    chosen = BIG_COMBINATIONS if options.big else combinations(options.rounds)
    print_table({combination: measure(results, combination, *numbers, options.choose) for combination in chosen})
    print(f"\n{time.process_time() - start:.0f} s of processor time")


if __name__ == "__main__":
    main()
