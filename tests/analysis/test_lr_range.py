"""Learning rates of a sweep, smoothing, and the rules."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from lightning_cifar.analysis.lr_range import (
    VERIFY_STEPS,
    Suggestion,
    Sweep,
    doubt,
    has_diverged,
    smooth,
    suggest,
    sweep_lrs,
    verify,
)
from lightning_cifar.analysis.lr_rules import RULES, minimum_tenth, steepest, upturn_eighth, valley

Array = NDArray[np.float64]
LRS = np.geomspace(1e-4, 10, 200)
X = np.log10(LRS)
by_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())


def curve(best: float, noise: float = 0.0, seed: int = 0) -> Array:
    """Plateau at ln 10, descent, flat minimum, back at ln 10 at 10 times ``best``, then divergence."""
    back = np.log10(best) + 1
    losses = np.log(10) - 0.8 / (1 + np.exp((back - 1.2 - X) / 0.15)) + 0.8 * 10 ** (4 * (X - back))
    return losses + noise * np.random.default_rng(seed).standard_normal(len(X))


def make_sweep(losses: Array, seed: int = 0) -> Sweep:
    return Sweep(LRS[: len(losses)], losses, smooth(losses), has_diverged(losses), seed)


def ratio(a: float, b: float) -> float:
    return max(a / b, b / a)


@pytest.mark.parametrize(("low", "high", "steps"), [(1e-4, 10, 200), (0.003, 0.7, 10), (1e-7, 3.3, 77)])
def test_a_sweep_has_exact_ends_and_even_steps(low: float, high: float, steps: int) -> None:
    geometric, linear = sweep_lrs(low, high, steps), sweep_lrs(low, high, steps, "linear")
    for lrs in geometric, linear:
        assert (len(lrs), lrs[0], lrs[-1], lrs.dtype) == (steps, low, high, np.float64)
    np.testing.assert_allclose(geometric[1:] / geometric[:-1], (high / low) ** (1 / (steps - 1)))
    np.testing.assert_allclose(np.diff(linear), (high - low) / (steps - 1))


@pytest.mark.parametrize(
    ("low", "high", "steps", "message"),
    [
        (0, 1, 20, r"min_lr \(=0\) must be a positive number"),
        (1e-3, np.inf, 20, r"max_lr \(=inf\) must be a positive number"),
        (1e-3, np.nan, 20, r"max_lr \(=nan\)"),
        (0.1, 0.1, 20, r"max_lr \(=0.1\) must be above min_lr \(=0.1\)"),
        (0.1, 1, 9, r"num_steps \(=9\) must be at least 10"),
    ],
)
def test_an_invalid_sweep_raises(low: float, high: float, steps: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sweep_lrs(low, high, steps)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.98])
def test_smoothing_is_the_plain_formula(beta: float) -> None:
    losses = curve(0.05, noise=0.1)[:150]
    mean, expected = 0.0, []
    for t, loss in enumerate(losses, start=1):
        mean = beta * mean + (1 - beta) * loss
        expected.append(mean / (1 - beta**t))
    np.testing.assert_allclose(smooth(losses, beta), expected, rtol=1e-12)


def test_smoothing_leaves_a_constant_and_the_first_loss_exactly() -> None:
    assert (smooth([0.1] * 300) == 0.1).all()
    assert smooth([3.7, 1.0])[0] == 3.7
    assert smooth([]).shape == (0,)


def test_smoothing_skips_values_that_are_not_finite() -> None:
    smoothed = smooth([1.0, np.nan, 2.0, np.inf, 3.0])
    assert np.isnan(smoothed[[1, 3]]).all()
    np.testing.assert_array_equal(smoothed[[0, 2, 4]], smooth([1.0, 2.0, 3.0]))


@pytest.mark.parametrize("beta", [-0.1, 1.0])
def test_smoothing_with_an_invalid_beta_raises(beta: float) -> None:
    with pytest.raises(ValueError, match=r"`beta` \(="):
        smooth([1.0], beta)


def test_divergence_is_a_factor_of_the_best_or_a_loss_that_is_not_finite() -> None:
    assert not has_diverged([])
    assert not has_diverged([2.0, 1.0, 3.9], beta=0)
    assert has_diverged([2.0, 1.0, 4.1], beta=0)
    assert not has_diverged([2.0, 1.0, 4.1], factor=5, beta=0)
    assert not has_diverged([2.0, 1.0, 4.1])  # the mean is slow
    assert has_diverged([2.0, np.nan])
    assert has_diverged([2.0, np.inf, 2.0])
    with pytest.raises(ValueError, match=r"`factor` \(=1\) must be above 1"):
        has_diverged([1.0], factor=1)


def test_steepest_is_the_fastest_fall_over_the_logarithm() -> None:
    losses = 2 - np.tanh((X + 1.5) / 0.3)  # over the learning rate it would be a third of that
    assert ratio(steepest(LRS, losses), 10**-1.5) < 1.06
    assert ratio(steepest(LRS, losses + 0.01 * np.random.default_rng(0).standard_normal(200)), 10**-1.5) < 1.6


def test_minimum_tenth_is_a_tenth_of_the_minimum() -> None:
    losses = 1 + np.abs(X + 0.5)
    assert ratio(minimum_tenth(LRS, losses), 10**-1.5) < 1.06


def test_valley_is_the_middle_of_the_longest_fall() -> None:
    losses = np.interp(X, [-4, -3, -1, 0, 1], [2.5, 3.0, 1.0, 4.0, 3.5])
    assert ratio(valley(LRS, losses), 10**-2) < 1.2  # the ends are smoothed


def test_upturn_eighth_is_an_eighth_of_the_rate_half_way_back() -> None:
    losses = np.interp(X, [-4, -2, -1, 0, 1], [2.0, 2.0, 1.0, 2.0, 3.0])
    assert ratio(upturn_eighth(LRS, losses), 10**-0.5 / 8) < 1.1


def test_upturn_eighth_finds_a_divergence_without_learning() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        losses = np.log(10) + 0.02 * rng.standard_normal(200)
        losses[160:] += np.exp(np.minimum(np.arange(40), 30))
        losses[195:] = np.log(10)  # the loss of a dead network is constant again
        assert ratio(upturn_eighth(LRS, losses), LRS[160] / 8) < 1.3


@by_rule
@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_rules_are_independent_of_units(rule: Callable[[Array, Array], float], noise: float) -> None:
    losses = curve(0.05, noise)
    expected = rule(LRS, losses)
    assert rule(LRS, 7 * losses) == pytest.approx(expected)
    assert rule(LRS, losses + 20) == pytest.approx(expected)
    assert rule(1000 * LRS, losses) == pytest.approx(1000 * expected)


@by_rule
def test_rules_use_the_logarithm_of_a_linear_sweep(rule: Callable[[Array, Array], float]) -> None:
    x, wide = np.linspace(1e-3, 1, 2000), np.geomspace(1e-3, 1, 2000)

    def losses(lrs: Array) -> Array:
        return 2 - np.exp(-(((np.log10(lrs) + 1.2) / 0.6) ** 2))

    assert ratio(rule(x, losses(x)), rule(wide, losses(wide))) < 1.1


@by_rule
def test_values_that_are_not_finite_are_left_out(rule: Callable[[Array, Array], float]) -> None:
    losses = curve(0.05, 0.02)
    expected = rule(LRS, losses)
    losses[[17, 60]] = np.nan, np.inf
    assert ratio(rule(LRS, losses), expected) < 1.6
    ended = curve(0.05, 0.02)
    ended[190:] = np.nan
    assert rule(LRS, ended) == rule(LRS[:190], ended[:190])


@by_rule
@pytest.mark.parametrize(
    "losses",
    [np.full(200, 2.3), 3 - X, 3 + X, np.abs(X + 4), np.abs(X - 1), np.where(X < 0, 2.3, 1e13), np.where(X < -3, 3, 2)],
    ids=["flat", "falling", "rising", "lowest first", "lowest last", "a wall", "a step"],
)
def test_every_curve_has_a_suggestion(rule: Callable[[Array, Array], float], losses: Array) -> None:
    for scale in 1e-6, 1.0:
        value = rule(LRS, scale * losses)
        assert isinstance(value, float)
        assert LRS[0] <= value * (1 + 1e-12)
        assert value <= LRS[-1] * (1 + 1e-12)


def test_a_rising_curve_gives_the_first_learning_rate() -> None:
    for rule in (steepest, minimum_tenth, upturn_eighth, valley):
        assert rule(LRS, 3 + X) == pytest.approx(LRS[0])


def test_a_falling_curve_has_minimum_and_upturn_at_its_end() -> None:
    assert minimum_tenth(LRS, 3 - X) == pytest.approx(LRS[-1] / 10)
    assert upturn_eighth(LRS, 3 - X) == pytest.approx(LRS[-1] / 8)
    assert ratio(valley(LRS, 3 - X), 10**-1.5) < 1.06


@by_rule
def test_invalid_arrays_raise(rule: Callable[[Array, Array], float]) -> None:
    with pytest.raises(ValueError, match=r"9 finite losses is too short: at least 10 are needed"):
        rule(LRS[:9], np.ones(9))
    with pytest.raises(ValueError, match=r"8 finite losses is too short"):
        rule(LRS[:12], np.r_[np.arange(8.0), [np.nan] * 4])
    with pytest.raises(ValueError, match=r"must be positive and increase"):
        rule(LRS[::-1], np.ones(200))
    with pytest.raises(ValueError, match=r"must be positive and increase"):
        rule(LRS - 1e-4, np.ones(200))
    with pytest.raises(ValueError, match=r"`lrs` \(200,\) and `losses` \(199,\)"):
        rule(LRS, np.ones(199))


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
def test_the_suggestion_is_within_3x_of_the_best(noise: float) -> None:
    rng = np.random.default_rng(1)
    for draw in range(30):
        best = 10 ** rng.uniform(-2.2, -0.4)
        found = suggest([make_sweep(curve(best, noise, seed=10 * draw + k)) for k in range(3)])
        assert ratio(found.value, best) < 3
        assert found.low <= found.value <= found.high


def test_the_suggestion_is_the_median_of_the_sweeps_with_their_extremes() -> None:
    sweeps = [make_sweep(curve(best)) for best in (0.2, 0.02, 0.05)]
    single = [upturn_eighth(sweep.lrs, sweep.losses) for sweep in sweeps]
    found = suggest(sweeps)
    assert (found.low, found.value, found.high) == pytest.approx((single[1], single[2], single[0]))
    assert found.rules.keys() == RULES.keys()
    assert found.rules["steepest"] == pytest.approx(steepest(LRS, sweeps[2].losses))
    assert found == suggest(sweeps[::-1])


def test_one_bad_sweep_of_three_does_not_move_the_suggestion_far() -> None:
    good = [make_sweep(curve(0.05, 0.02, seed)) for seed in range(2)]
    bad = make_sweep(np.r_[np.full(40, 2.3), np.geomspace(2.3, 1e9, 20), np.nan])
    assert bad.diverged
    assert ratio(suggest([*good, bad]).value, 0.05) < 3


def test_an_empty_list_of_sweeps_raises() -> None:
    with pytest.raises(ValueError, match="`sweeps` is empty"):
        suggest([])


FOUND = Suggestion(0.1, 0.08, 0.13, {"upturn_eighth": 0.1})


@pytest.mark.parametrize("best", 0.1 * 2.0 ** np.arange(-6, 4))
@pytest.mark.parametrize("diverging", [1.0, 0.06])
def test_a_verification_finds_the_best_rate_in_reach(best: float, diverging: float) -> None:
    rates: list[float] = []

    def train(lrs: list[float]) -> list[float]:
        rates.append(lrs[0])
        assert lrs == [lrs[0]] * VERIFY_STEPS
        return [abs(np.log(lrs[0] / best))] * VERIFY_STEPS if lrs[0] < diverging else [2.3, np.nan]

    found = verify(FOUND, train)
    assert 3 <= len(rates) <= 6
    reachable = [lr for lr in 0.1 * 2.0 ** np.arange(-5, 2) if lr < diverging]
    assert found.value == pytest.approx(min(reachable, key=lambda lr: ratio(lr, best)))
    assert found.low <= found.value <= found.high
    assert [lr for lr, _ in found.tested] == sorted(rates)
    assert all((loss == np.inf) is (lr >= diverging) for lr, loss in found.tested)
    if found.value == FOUND.value:
        assert found == FOUND._replace(tested=found.tested)


@pytest.mark.parametrize(
    ("scores", "chosen"),  # at 1/32, 1/16, 1/8, 1/4, 1/2, 1 and 2 times the suggestion
    [
        ([9.0, 2.0, 1.015, 1.0, 1.0, 1.2, 9.0], 1 / 8),  # 1.5 % above the best
        ([9.0, 2.0, 1.025, 1.0, 1.0, 1.2, 9.0], 1 / 4),
        ([2.3, 2.3, 2.3, 2.3, 2.3, 2.28, 2.24], 2),  # only the highest rate has left the plateau: 2.28 is not near
        ([9.0, 9.0, -1.0, -1.95, -1.99, -2.0, -1.0], 1 / 2),
        ([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 9.0], 1 / 32),
        ([1.0, 0.9, 0.95, np.inf, np.inf, np.inf, 9.0], 1 / 16),
        ([9.0, 9.0, 0.9, np.inf, 1.0, np.inf, 9.0], 1 / 2),
    ],
)
def test_a_verification_takes_the_lowest_of_the_rates_near_the_best(scores: list[float], chosen: float) -> None:
    rates = list(0.1 * 2.0 ** np.arange(-5, 2))
    found = verify(FOUND, lambda lrs: [scores[rates.index(lrs[0])]] * VERIFY_STEPS)
    assert found.value == 0.1 * chosen


@pytest.mark.parametrize("losses", [[1.0] * VERIFY_STEPS, [np.inf], []], ids=["equal", "diverged", "none"])
def test_a_verification_without_differences_keeps_the_suggestion(losses: list[float]) -> None:
    found = verify(FOUND, lambda lrs: losses)
    assert found[:4] == FOUND[:4]
    assert len(found.tested) == (3 if len(losses) == VERIFY_STEPS else 6)


def test_a_suggestion_without_a_fall_is_uncertain() -> None:
    rng = np.random.default_rng(0)
    for draw in range(20):
        flat = np.log(10) + 0.02 * rng.standard_normal(200)
        diverging = flat.copy()
        diverging[160:] += np.exp(np.minimum(np.arange(40), 30))
        rests = doubt([make_sweep(diverging)] * 3)
        assert rests.startswith(
            "the loss never fell below its start, so only the divergence supports this suggestion: sweep"
        )
        assert doubt([make_sweep(flat)]).startswith("the loss neither fell nor rose: sweep longer")
        falling = [make_sweep(curve(0.05, 0.1, seed=draw))]
        assert doubt(falling) == ""
        assert doubt([*falling, *falling, make_sweep(diverging)]) == ""
        assert doubt([*falling, make_sweep(diverging), make_sweep(diverging)]) == rests


@pytest.mark.parametrize(("depth", "doubted"), [(0.01, True), (0.03, False)])
def test_a_fall_is_two_percent_of_the_loss_at_the_start(depth: float, doubted: bool) -> None:
    for scale in (1.0, 1000.0):
        losses = scale * np.interp(X, [-4, -2, -1, 0, 1], [1.0, 1.0, 1.0 - depth, 1.0, 3.0])
        assert bool(doubt([make_sweep(losses)])) is doubted
