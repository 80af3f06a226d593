"""Effects in a grid, bootstrap intervals and probabilities of improvement."""

import numpy as np
import pytest

from lightning_cifar.analysis.effects import bootstrap_interval, factorial_effects, probability_of_improvement

RNG = np.random.default_rng(0)


def test_two_by_two_by_hand() -> None:
    a, b, c, d = RNG.normal(size=(4, 3))
    effects = factorial_effects([[a, b], [c, d]])
    assert [(each.factors, each.levels) for each in effects] == [((0,), (1,)), ((1,), (1,)), ((0, 1), (1, 1))]
    expected = [(c - a + d - b) / 2, (b - a + d - c) / 2, d - b - c + a]
    for effect, values in zip(effects, expected, strict=True):
        np.testing.assert_allclose(effect.by_seed, values)


def test_recovers_an_additive_model() -> None:
    """Three factors with 3, 2 and 2 levels: without interactions, all of them are zero."""
    parts = [np.array([0.0, 1.0, 3.0]), np.array([0.0, -2.0]), np.array([0.0, 0.5])]
    values = parts[0][:, None, None, None] + parts[1][:, None, None] + parts[2][:, None] + RNG.normal(size=5)
    for effect in factorial_effects(values):
        size = parts[effect.factors[0]][effect.levels[0]] if len(effect.factors) == 1 else 0.0
        np.testing.assert_allclose(effect.by_seed, size, atol=1e-12)
    assert len(factorial_effects(values)) == (2 + 1 + 1) + (2 + 2 + 1)
    values[0, 0, 0, 2] = np.nan
    assert all(np.isnan(each.by_seed[2]) and np.isfinite(each.by_seed[:2]).all() for each in factorial_effects(values))
    with pytest.raises(ValueError, match="at least two factors"):
        factorial_effects(np.zeros((2, 4)))


def test_bootstrap_of_a_symmetric_sample_is_near_the_normal_interval() -> None:
    values = RNG.normal(3, 1, 200)
    low, high = bootstrap_interval(values.tolist(), 0.95)
    error = values.std(ddof=1) / np.sqrt(200)
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.15 * error)
    assert bootstrap_interval(values.tolist(), 0.95) == (low, high)


def test_probability_of_improvement() -> None:
    assert probability_of_improvement([1, 2], [1, 2]) == 0.5
    assert probability_of_improvement([3, 4], [1, 2]) == 1
    assert probability_of_improvement([3, 4], [1, 2], higher_is_better=False) == 0
    first, second = RNG.normal(1, 1, 2000), RNG.normal(0, 1, 2000)
    assert probability_of_improvement(first, second) == pytest.approx(0.76, abs=0.02)  # normal: Phi(1 / sqrt(2))
