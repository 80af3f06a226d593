"""Statistics over seeds, compared with scipy and with numbers computed by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from lightning_cifar.analysis.comparisons import conclude, paired_differences
from lightning_cifar.analysis.statistics import first_reaching, mean_curve, mean_interval

RNG = np.random.default_rng(0)


def seeds(values: object) -> dict[int, float]:
    return dict(enumerate(np.asarray(values, dtype=float).tolist()))


class TestMeanInterval:
    @pytest.mark.parametrize("n", [2, 3, 5, 30])
    @pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
    def test_equals_scipy(self, n: int, confidence: float) -> None:
        values = RNG.normal(3, 2, n)
        mean = mean_interval(values.tolist(), confidence)
        low, high = stats.t.interval(confidence, n - 1, loc=values.mean(), scale=stats.sem(values))
        assert mean == pytest.approx((values.mean(), values.std(ddof=1), low, high, n))

    def test_one_value_has_no_interval(self) -> None:
        mean = mean_interval([0.5])
        assert mean.mean == 0.5
        assert all(math.isnan(value) for value in (mean.std, mean.low, mean.high))

    def test_coverage(self) -> None:
        """The share of intervals with the truth inside is the confidence: 4,000 draws, so +- 0.01 is 3 sigma."""
        draws = RNG.normal(1, 1, (4000, 4))
        inside = [mean.low <= 1 <= mean.high for mean in map(mean_interval, draws.tolist())]
        assert np.mean(inside) == pytest.approx(0.95, abs=0.011)

    def test_mistakes(self) -> None:
        with pytest.raises(ValueError, match="values is empty"):
            mean_interval([])
        with pytest.raises(ValueError, match=r"confidence \(=95\)"):
            mean_interval([1.0, 2.0], 95)


class TestPairedDifferences:
    def test_worked_example(self) -> None:
        """Differences 1, 2, 3: mean 2, sd 1, standard error 0.57735, t = 3.4641, p = 0.0742 (two-sided, 2 degrees)."""
        (found,) = paired_differences({"a": seeds([10, 20, 30]), "b": seeds([11, 22, 33])})
        assert (found.arm, found.baseline, found.n) == ("b", "a", 3)
        assert found.mean == pytest.approx(2)
        assert found.p == pytest.approx(0.0742, abs=1e-4)
        assert (found.low, found.high) == pytest.approx((-0.4841, 4.4841), abs=1e-4)
        assert not found.is_shown

    def test_equals_scipy_and_corrects_for_the_number_of_arms(self) -> None:
        base = RNG.normal(0, 5, 6)
        arms = {name: seeds(base + RNG.normal(shift, 1, 6)) for name, shift in {"a": 0, "b": 1, "c": 2, "d": 0}.items()}
        found = paired_differences(arms, baseline="b")
        assert [difference.arm for difference in found] == ["a", "c", "d"]
        for difference in found:
            test = stats.ttest_rel(list(arms[difference.arm].values()), list(arms["b"].values()))
            interval = test.confidence_interval(1 - 0.05 / 3)
            assert test.pvalue * (1 - 1e-9) <= difference.p <= min(1, 3 * test.pvalue) * (1 + 1e-9)
            assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))

    def test_interval_and_p_agree(self) -> None:
        for _ in range(100):
            arms = {name: seeds(RNG.normal(0.7 * i, 1, 5)) for i, name in enumerate("abcd")}
            for difference in paired_differences(arms):
                assert difference.is_shown or difference.low <= 0 <= difference.high
            (alone,) = paired_differences({name: arms[name] for name in "ab"})
            assert alone.is_shown == (alone.low > 0 or alone.high < 0)

    def test_pairing_removes_the_effect_of_a_seed(self) -> None:
        luck = RNG.normal(0, 100, 5)
        (found,) = paired_differences({"a": seeds(luck), "b": seeds(luck + np.array([1, 1.1, 0.9, 1, 1.05]))})
        assert found.is_shown
        assert found.mean == pytest.approx(1.01)

    def test_few_and_missing_seeds(self) -> None:
        arms = {"a": {0: 1.0, 1: 2.0, 2: math.nan}, "b": {1: 5.0, 2: 3.0, 3: 9.0}, "c": {7: 1.0}, "d": {0: 1.0, 1: 2.0}}
        b, c, d = paired_differences(arms)
        assert (b.n, b.mean) == (1, 3)
        assert math.isnan(b.p)
        assert c.n == 0
        assert (d.n, d.mean, d.p) == (2, 0, 1)

    def test_the_same_difference_each_time(self) -> None:
        """One more correct image of 300 with each of three seeds does not give certainty."""
        (found,) = paired_differences(
            {"a": seeds([27 / 300, 29 / 300, 31 / 300]), "b": seeds([0.28 / 3, 0.1, 0.32 / 3])}
        )
        assert found.mean == pytest.approx(1 / 300)
        assert math.isnan(found.low) == math.isnan(found.high) == (not found.is_shown) is True
        assert found.p == 2 / 2**3
        text = conclude(found, unit=" points", scale=100)
        assert text.startswith("b differs from a by +0.333 points with each of 3 seeds (p = 0.25 in a sign test): ")
        three = paired_differences({"a": seeds([1, 2, 3]), "b": seeds([2, 3, 4]), "c": seeds([1, 2, 3])})
        assert [each.p for each in three] == [0.5, 1.0], "corrected for two comparisons"
        assert "No difference" in conclude(three[1])

    def test_mistakes(self) -> None:
        with pytest.raises(ValueError, match=r"baseline \(='z'\) must be one of the arms: a, b"):
            paired_differences({"a": {}, "b": {}}, "z")


def test_sentences() -> None:
    better, worse, none, one, nothing = (
        paired_differences({"x": seeds(a), "y": seeds(b)})[0]
        for a, b in [
            ([0.5, 0.51, 0.52, 0.5], [0.6, 0.62, 0.61, 0.6]),
            ([0.6, 0.62, 0.61, 0.6], [0.5, 0.51, 0.52, 0.5]),
            ([0.5, 0.6], [0.6, 0.5]),
            ([0.5], [0.6]),
            ([], []),
        ]
    )
    assert conclude(better, unit=" points", scale=100).startswith("y is better than x: +10 points (interval +")
    assert conclude(better, higher_is_better=False).startswith("y is worse than x")
    assert conclude(worse).startswith("y is worse than x: -0.1")
    assert "No difference between y and x is shown" in conclude(none)
    assert "nothing can be concluded from n = 1" in conclude(one)
    assert "no finished seed in common: nothing can be concluded" in conclude(nothing)


def test_mean_curve() -> None:
    curves = np.array([[1.0, 2, 3, np.nan], [3.0, 2, np.nan, np.nan], [2.0, 5, 4, 9]])
    band = mean_curve(curves)
    assert band.n.tolist() == [3, 3, 2, 1]
    assert band.mean == pytest.approx([2, 3, 3.5, 9])
    for position in range(3):
        values = curves[np.isfinite(curves[:, position]), position]
        mean = mean_interval(values.tolist())
        assert (band.low[position], band.high[position]) == pytest.approx((mean.low, mean.high))
    assert np.isnan([band.low[3], band.high[3]]).all()


def test_first_reaching() -> None:
    assert first_reaching([1, 2, 3], [0.1, 0.5, 0.4], 0.5) == 2
    assert first_reaching([1, 2, 3], [3, 2, 1], 2, higher_is_better=False) == 2
    assert math.isnan(first_reaching([1, 2], [0.1, math.nan], 0.5))
