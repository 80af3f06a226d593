"""Verdicts: compared with scipy and statsmodels, and their error rates over simulated studies."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from lightning_cifar.analysis.comparisons import PairedTests, conclude, holm, paired_differences, paired_tests
from lightning_cifar.analysis.planning import power_of_difference, power_of_equivalence, seeds_needed

STUDIES = 2000
ERROR = 0.05 + 3 * math.sqrt(0.05 * 0.95 / STUDIES)  # 5 % and three standard errors of the simulation
MARGIN = 0.8
LOOKS = (5, 8, 12)


def seeds(values: object) -> dict[int, float]:
    return dict(enumerate(np.asarray(values, dtype=float).tolist()))


def simulate(arms: int, n: int, shift: float = 0.0, *, pairs: bool = False, seed: int = 0) -> np.ndarray:
    """Differences (STUDIES, m, n) of arms with the same noise; ``shift`` is added to the first of them only."""
    rng = np.random.default_rng((seed, arms, n, pairs))
    values = rng.normal(0, 1, (STUDIES, arms, n)) + rng.normal(0, 3, (STUDIES, 1, n))
    values[:, 1] += shift
    first, second = np.array(list(combinations(range(arms), 2)) if pairs else [(0, i) for i in range(1, arms)]).T
    difference: np.ndarray = values[:, second] - values[:, first]
    return difference


@pytest.mark.parametrize("arms", [2, 3, 5, 8])
@pytest.mark.parametrize("pairs", [False, True])
class TestErrorRates:
    def test_wrong_differences(self, arms: int, pairs: bool) -> None:
        """Without any difference, at most 5 % of studies have a verdict better or worse."""
        found = paired_tests(simulate(arms, 6, pairs=pairs))
        assert (found.p < 0.05).any(axis=-1).mean() < ERROR
        inside = ((found.low <= 0) & (found.high >= 0)).all(axis=-1)
        assert inside.mean() > 1 - ERROR

    def test_wrong_equivalences_at_the_margin(self, arms: int, pairs: bool) -> None:
        differences = simulate(arms, 30, pairs=pairs)
        differences += MARGIN - differences.mean(axis=(0, -1), keepdims=True)
        found = paired_tests(differences, margin=MARGIN)
        assert (found.p_equivalence < 0.05).any(axis=-1).mean() < ERROR

    def test_optional_stopping(self, arms: int, pairs: bool) -> None:
        """Seeds are added until a verdict: with the correction for the looks at most 5 % of studies are wrong."""
        wrong = {looks: np.zeros(STUDIES, dtype=bool) for looks in (1, len(LOOKS))}
        equivalent = np.zeros(STUDIES, dtype=bool)
        differences = simulate(arms, LOOKS[-1], pairs=pairs)
        for n in LOOKS:
            for looks in wrong:
                wrong[looks] |= (paired_tests(differences[..., :n], looks=looks).p < 0.05).any(axis=-1)
            found = paired_tests(differences[..., :n] + MARGIN, margin=MARGIN, looks=len(LOOKS))
            equivalent |= (found.p_equivalence < 0.05).any(axis=-1)
        assert wrong[len(LOOKS)].mean() < ERROR
        assert equivalent.mean() < ERROR
        assert wrong[1].mean() > ERROR, "without the correction the error rate is larger"


@pytest.mark.parametrize("arms", [2, 4, 8])
@pytest.mark.parametrize("effect", [0.7, 1.5])
@pytest.mark.parametrize("looks", [1, 3])
def test_power_is_that_of_the_plan(arms: int, effect: float, looks: int) -> None:
    """One arm differs, the others do not: the power of the whole procedure is within 5 points of the plan."""
    alpha, std = 0.05 / (arms - 1) / looks, math.sqrt(2)
    n = seeds_needed(lambda n: power_of_difference(n, effect, std, alpha))
    assert n is not None
    found = paired_tests(simulate(arms, n, effect), looks=looks)
    assert (found.p[:, 0] < 0.05).mean() == pytest.approx(power_of_difference(n, effect, std, alpha), abs=0.05)
    n = seeds_needed(lambda n: power_of_equivalence(n, effect, std, alpha))
    assert n is not None
    others = simulate(arms, n)
    others[:, 1:] += 10  # not equivalent
    found = paired_tests(others, margin=effect, looks=looks)
    planned = power_of_equivalence(n, effect, std, alpha)
    assert (found.p_equivalence[:, 0] < 0.05).mean() == pytest.approx(planned, abs=0.05)


class TestPairedTests:
    @pytest.mark.parametrize("n", [2, 5, 20])
    def test_equals_scipy(self, n: int) -> None:
        differences = np.random.default_rng(n).normal(0.5, 1, (4, 3, n))
        found = paired_tests(differences, margin=0.7)
        for index in np.ndindex(4):
            p = [stats.ttest_1samp(row, 0).pvalue for row in differences[index]]
            upper = [stats.ttest_1samp(row, 0.7, alternative="less").pvalue for row in differences[index]]
            lower = [stats.ttest_1samp(row, -0.7, alternative="greater").pvalue for row in differences[index]]
            np.testing.assert_allclose(found.p[index], holm(p))
            np.testing.assert_allclose(found.p_equivalence[index], holm(np.maximum(upper, lower)))
            for row, low, high in zip(differences[index], found.low[index], found.high[index], strict=True):
                interval = stats.ttest_1samp(row, 0).confidence_interval(1 - 0.05 / 3)
                assert (low, high) == pytest.approx((interval.low, interval.high))

    def test_missing_seeds_are_left_out(self) -> None:
        values = np.array([[1.0, 2.0, 4.0, math.nan], [1.0, math.nan, math.nan, math.nan], [math.nan] * 4])
        found = paired_tests(values, margin=5.0)
        alone = paired_tests(values[:1, :3], margin=5.0)
        assert found.n.tolist() == [3, 1, 0]
        assert found.p[0] == pytest.approx(3 * alone.p[0])
        assert np.isnan(found.p[1:]).all()
        assert np.isnan(found.p_equivalence[1:]).all()
        assert np.isnan(found.low[1:]).all()

    def test_equal_differences_give_no_certainty(self) -> None:
        found = paired_tests(np.array([[0.1] * 6, [0.0] * 6, [2.0] * 6]), margin=1.0)
        assert found.p == pytest.approx(holm([2 / 64, 1, 2 / 64]))
        assert found.p_equivalence == pytest.approx(holm([1 / 64, 1 / 64, 1]))
        assert np.isnan(found.low).tolist() == [True, False, True]


def test_worked_example_of_equivalence() -> None:
    """ttost_paired of statsmodels 0.15 with the limits -0.5 and 0.5 gives p = 0.04326."""
    arms = {"a": seeds([60.1, 59.2, 61.3, 60.7, 58.9]), "b": seeds([60.4, 59.0, 61.1, 61.2, 59.3])}
    (found,) = paired_differences(arms, margin=0.5)
    assert found.p_equivalence == pytest.approx(0.0432614, abs=1e-6)
    assert found.verdict() == "equivalent"


def test_holm_equals_statsmodels_and_is_never_above_bonferroni() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rng = np.random.default_rng(0)
    for m in (1, 2, 5, 20):
        for p in rng.uniform(0, 1, (20, m)) ** 3:
            np.testing.assert_allclose(holm(p), multitest.multipletests(p, method="holm")[1])


def test_holm() -> None:
    """The adjusted values of multipletests in statsmodels 0.15, also for equal p-values."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.02, 0.02, 0.5]) == pytest.approx([0.06, 0.06, 0.5])
    p = np.random.default_rng(0).uniform(0, 1, (500, 6)) ** 2
    adjusted = holm(p)
    assert (adjusted <= np.minimum(6 * p, 1)).all()
    assert (adjusted >= p).all()
    order = np.argsort(p, axis=-1)
    assert (np.diff(np.take_along_axis(adjusted, order, -1)) >= 0).all()


def test_all_pairs() -> None:
    arms = {name: seeds([0.1 * i, 0.3 + 0.1 * i, 0.2 - 0.05 * i]) for i, name in enumerate("abcd")}
    found = paired_differences(arms, "b", compare="all")
    assert [(each.arm, each.baseline) for each in found] == [
        *(("a", "b"), ("c", "b"), ("d", "b")),
        *(("c", "a"), ("d", "a"), ("d", "c")),
    ]
    for each in found:
        values = [arms[each.arm][seed] - arms[each.baseline][seed] for seed in range(3)]
        assert each.mean == pytest.approx(np.mean(values))
        assert each.p >= stats.ttest_1samp(values, 0).pvalue


def test_verdicts() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(60, 1, 12)
    shifts = {"better": 2.0, "worse": -2.0, "equivalent": 0.0, "not shown": 0.35}
    arms = {"base": base} | {name: base + shift + rng.normal(0, 0.4, 12) for name, shift in shifts.items()}
    arms["not shown"] += rng.normal(0, 2, 12)
    found = paired_differences({name: seeds(values) for name, values in arms.items()}, margin=0.6)
    assert {each.arm: each.verdict() for each in found} == {name: name for name in shifts}
    assert found[0].verdict(higher_is_better=False) == "worse"
    texts = {each.arm: conclude(each, unit=" points") for each in found}
    assert texts["equivalent"].startswith("equivalent and base are equivalent within the margin of 0.6 points: ")
    assert texts["not shown"].startswith("Neither a difference between not shown and base nor equivalence within the m")
    assert texts["better"].endswith("The difference is larger than the margin of 0.6 points.")
    for text in texts.values():
        assert "interval" in text
        assert "n = 12" in text
        assert "margin of 0.6 points" in text


def test_a_small_difference_is_shown_and_within_the_margin() -> None:
    values = np.random.default_rng(2).normal(0.2, 0.1, 20)
    (found,) = paired_differences({"a": seeds(0 * values), "b": seeds(values)}, margin=1.0)
    assert found.verdict() == "better"
    assert conclude(found).endswith("The difference is smaller than the margin of 1.")


def test_margin_and_looks() -> None:
    arms = {"a": seeds([1.0, 2.0, 3.0]), "b": seeds([1.5, 2.9, 3.6])}
    (once,), (twice,) = (paired_differences(arms, margin=2.0, looks=looks) for looks in (1, 2))
    assert twice.p == pytest.approx(2 * once.p)
    assert twice.p_equivalence == pytest.approx(2 * once.p_equivalence)
    assert twice.high - twice.low > once.high - once.low
    for margin in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"margin \(=.*must be a positive number"):
            paired_differences(arms, margin=margin)


def test_fields() -> None:
    assert PairedTests._fields == ("mean", "low", "high", "p", "p_equivalence", "n"), "paired_differences unpacks them"
