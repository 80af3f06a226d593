"""Each regime equals the corresponding scheduler of torch.optim.lr_scheduler at each step."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import SGD
from torch.optim import lr_scheduler as twin
from torch.optim.lr_scheduler import LRScheduler

from lightning_cifar.models import MLP
from lightning_cifar.schedules import CUSTOMARY_FINAL_LR, REGIMES, lr_factor

PEAK = 0.8
STEPS = 120


def torch_factors(make: Callable[[SGD], LRScheduler], steps: int, peak: float = PEAK) -> list[float]:
    """Factors of the peak at steps 0 to ``steps``."""
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    scheduler = make(optimizer)
    factors = []
    for _ in range(steps + 1):
        factors.append(optimizer.param_groups[0]["lr"] / peak)
        optimizer.step()
        scheduler.step()
    return factors


@pytest.mark.parametrize(
    ("settings", "make"),
    [
        ({"schedule": "constant"}, lambda o: twin.ConstantLR(o, factor=1.0)),
        ({"schedule": "linear"}, lambda o: twin.LinearLR(o, 1.0, 0.0, STEPS)),
        ({"schedule": "linear", "final_lr": 0.1}, lambda o: twin.LinearLR(o, 1.0, 0.1, STEPS)),
        ({"schedule": "cosine"}, lambda o: twin.CosineAnnealingLR(o, STEPS)),
        ({"schedule": "cosine", "final_lr": 0.05}, lambda o: twin.CosineAnnealingLR(o, STEPS, eta_min=0.05 * PEAK)),
        ({"schedule": "exponential"}, lambda o: twin.ExponentialLR(o, 0.01 ** (1 / STEPS))),
        ({"schedule": "exponential", "final_lr": 0.3}, lambda o: twin.ExponentialLR(o, 0.3 ** (1 / STEPS))),
        ({"schedule": "step"}, lambda o: twin.MultiStepLR(o, [STEPS // 2, 3 * STEPS // 4], gamma=0.1)),
        ({"schedule": "constant", "warmup": 0.25, "final_lr": 0.2}, lambda o: twin.LinearLR(o, 0.2, 1.0, STEPS // 4)),
    ],
)
def test_decay_equals_torch(settings: dict[str, Any], make: Callable[[SGD], LRScheduler]) -> None:
    ours = [lr_factor(step / STEPS, **settings) for step in range(STEPS + 1)]
    assert ours == pytest.approx(torch_factors(make, STEPS), abs=1e-9)


@pytest.mark.parametrize(("schedule", "strategy"), [("cosine", "cos"), ("linear", "linear")])
def test_one_cycle_equals_torch(schedule: Any, strategy: str) -> None:
    # OneCycleLR takes its last step at the end, and turns one step before the given part.
    low, total = 0.04, STEPS + 1
    ours = [
        lr_factor(step / STEPS, schedule=schedule, warmup=(0.3 * total - 1) / STEPS, final_lr=low)
        for step in range(total)
    ]

    def make(optimizer: SGD) -> LRScheduler:
        return twin.OneCycleLR(
            optimizer, PEAK, total, pct_start=0.3, anneal_strategy=strategy, div_factor=1 / low, final_div_factor=1
        )

    assert ours == pytest.approx([*torch_factors(make, STEPS - 1), low], abs=1e-9)


def test_triangular_cycles_equal_torch() -> None:
    settings: dict[str, Any] = {"schedule": "linear", "warmup": 0.5, "cycles": 3, "final_lr": 0.1}
    ours = [lr_factor(step / STEPS, **settings) for step in range(STEPS + 1)]
    theirs = torch_factors(
        lambda o: twin.CyclicLR(o, 0.1 * PEAK, PEAK, step_size_up=STEPS // 6, mode="triangular"), STEPS
    )
    assert ours == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(("cycles", "mult", "first"), [(3, 2, 20), (4, 1, 35), (2, 3, 35)])
def test_warm_restarts_equal_torch(cycles: int, mult: int, first: int) -> None:
    steps = first * sum(mult**i for i in range(cycles))
    ours = [lr_factor(step / steps, schedule="cosine", cycles=cycles, cycle_mult=mult) for step in range(steps)]
    theirs = torch_factors(lambda o: twin.CosineAnnealingWarmRestarts(o, first, mult), steps - 1)
    assert ours == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(("warmup", "steps", "drop", "factor"), [(0.2, 10, 6, 0.1), (0.3, 200, 165, 0.01)])
def test_a_drop_is_at_the_exact_step_in_spite_of_rounding(warmup: float, steps: int, drop: int, factor: float) -> None:
    before, at = (lr_factor(step / steps, schedule="step", warmup=warmup) for step in (drop - 1, drop))
    assert (before, at) == pytest.approx((10 * factor, factor))


def test_cycles_of_one_two_and_four_epochs_start_at_the_peak() -> None:
    starts = [epoch for epoch in range(7) if lr_factor(epoch / 7, schedule="cosine", cycles=3, cycle_mult=2) == 1]
    assert starts == [0, 1, 3]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "exponential", "step"])
@pytest.mark.parametrize("warmup", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("cycles", "mult"), [(1, 1.0), (3, 1.5), (3, 0.5)])
def test_stays_within_its_bounds_and_reaches_the_peak(schedule: Any, warmup: float, cycles: int, mult: float) -> None:
    values = [
        lr_factor(step / 5000, schedule=schedule, warmup=warmup, cycles=cycles, cycle_mult=mult, final_lr=0.02)
        for step in range(5001)
    ]
    assert min(values) >= 0.02 - 1e-12
    assert 0.99 < max(values) <= 1
    assert all(math.isfinite(value) for value in values)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "cosin"}, r"schedule \(='cosin'\) must be one of"),
        ({"warmup": 1.5}, r"warmup \(=1.5\)"),
        ({"warmup": -0.1}, r"warmup \(=-0.1\)"),
        ({"cycles": 0}, r"cycles \(=0\)"),
        ({"cycles": 99, "cycle_mult": 1e9}, r"cycle_mult \(=1000000000.0\) \*\* cycles \(=99\)"),
        ({"cycle_mult": 0.0}, r"cycle_mult \(=0.0\)"),
        ({"final_lr": 2.0}, r"final_lr \(=2.0\)"),
        (
            {"schedule": "one-cycle", "warmup": 0.0},
            r"warmup \(=0.0\) contradicts schedule='one-cycle', which means .*: set warmup to null",
        ),
        ({"schedule": "warm-restarts", "cycle_mult": 1.0}, r"cycle_mult \(=1.0\) contradicts schedule='warm-restarts'"),
        ({"schedule": "triangular", "cycles": 2}, r"cycles \(=2\) contradicts schedule='triangular'"),
        ({"schedule": "step", "final_lr": 0.0}, r"final_lr \(=0\) must be above 0 for schedule='step'"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lr_factor(0.5, **settings)


@pytest.mark.parametrize("final_lr", [None, 0.1])
@pytest.mark.parametrize("name", sorted(REGIMES.keys() - CUSTOMARY_FINAL_LR.keys()))
def test_a_named_combination_equals_its_settings(name: Any, final_lr: float | None) -> None:
    settings = {**REGIMES[name], "final_lr": final_lr}
    for step in range(STEPS + 1):
        value = lr_factor(step / STEPS, schedule=name, final_lr=final_lr)
        assert value == lr_factor(step / STEPS, **settings)
        assert value == lr_factor(step / STEPS, **{**settings, "schedule": name})  # said twice is no contradiction


@pytest.mark.parametrize("name", sorted(REGIMES.keys() - CUSTOMARY_FINAL_LR.keys()))
def test_a_model_accepts_the_name_of_a_combination(name: Any) -> None:
    named, explicit = MLP(schedule=name), MLP(**REGIMES[name])
    assert named.hparams["schedule"] == name
    for settings in (named, explicit):
        assert all(isinstance(value, str | int | float | None) for value in list(settings.hparams.values())[-5:])
    rates = []
    for model in (named, explicit):
        optimizer = model.make_optimizer()
        scheduler = model.make_scheduler(optimizer, 20)
        rates.append([])
        for _ in range(20):
            rates[-1].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    assert rates[0] == rates[1]
