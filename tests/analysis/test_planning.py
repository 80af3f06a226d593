"""Power and numbers of seeds, compared with scipy, statsmodels and published values."""

import math

import pytest
from scipy import stats

from lightning_cifar.analysis.planning import pooled_std, power_of_difference, power_of_equivalence, seeds_needed


@pytest.mark.parametrize("n", [2, 3, 5, 12, 60])
@pytest.mark.parametrize("effect", [0.0, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_power_equals_the_noncentral_t_distribution(n: int, effect: float, alpha: float) -> None:
    limit, shift = stats.t.isf(alpha / 2, n - 1), effect * math.sqrt(n)
    other = stats.nct.cdf(-limit, n - 1, shift)  # NaN where it is about zero
    exact = stats.nct.sf(limit, n - 1, shift) + (0.0 if math.isnan(other) else other) if effect else alpha
    assert power_of_difference(n, 3 * effect, 3.0, alpha) == pytest.approx(exact, abs=2e-3)


def test_worked_examples_of_statsmodels() -> None:
    """TTestPower().power and .solve_power of statsmodels 0.15."""
    assert power_of_difference(10, 1.0, 1.0) == pytest.approx(0.8031, abs=1e-3)
    assert power_of_difference(5, 0.9, 1.0, 0.05 / 4) == pytest.approx(0.12282, abs=1e-3)
    for effect, n in {0.5: 34, 1.0: 10, 2.0: 5, 0.1: 787}.items():
        assert seeds_needed(lambda n, effect=effect: power_of_difference(n, effect, 1.0)) == n


def test_equivalence() -> None:
    """Julious (2004, doi:10.1002/sim.1783): with many seeds, n = 2 s^2 (z(0.95) + z(0.9))^2 / margin^2 for 80 %."""
    n = seeds_needed(lambda n: power_of_equivalence(n, 0.1, 1.0))
    assert n == pytest.approx((stats.norm.ppf(0.95) + stats.norm.ppf(0.9)) ** 2 / 0.1**2, rel=0.01)
    assert power_of_equivalence(3, 0.1, 1.0) < 0.01, "an interval of few seeds does not fit into the margin"


def test_seeds_needed_is_the_smallest_number() -> None:
    for effect in (0.05, 0.4, 1.3, 50.0):
        n = seeds_needed(lambda n, effect=effect: power_of_difference(n, effect, 1.0, 0.01))
        assert n is not None
        assert power_of_difference(n, effect, 1.0, 0.01) >= 0.8
        assert n == 2 or power_of_difference(n - 1, effect, 1.0, 0.01) < 0.8
    assert seeds_needed(lambda n: 0.1) is None


def test_the_limit_of_a_standard_deviation() -> None:
    std, upper = pooled_std([4.0], degrees=2)
    assert std == 2
    assert stats.chi2.cdf(2 * std**2 / upper**2, 2) == pytest.approx(0.2)
