"""Decimated curves keep every extreme and exact means; short curves are unchanged."""

import numpy as np
import pytest

from lightning_cifar.analysis.decimation import decimate


@pytest.mark.parametrize(("points", "pieces"), [(1000, 37), (1000, 999), (12, 5), (7, 1)])
def test_extremes_and_means_of_every_piece_are_kept(points: int, pieces: int) -> None:
    draw = np.random.default_rng(points)
    step, values = np.sort(draw.random(points)), draw.standard_cauchy((3, points))
    cut = decimate(step, values, pieces)
    assert cut.mean.shape == (3, pieces)
    assert not cut.is_exact
    for piece in range(pieces):
        inside = (step >= cut.low[piece]) & (step <= cut.high[piece])
        assert cut.position[piece] == pytest.approx(step[inside].mean())
        for row in range(3):
            held = values[row, inside]
            assert {cut.first[row, piece], cut.second[row, piece]} == {held.min(), held.max()}
            assert (cut.first[row, piece] == held.max()) == (held.argmax() <= held.argmin())
            assert cut.mean[row, piece] == pytest.approx(held.mean())
            assert cut.weight[row, piece] == inside.sum()
    assert cut.weight.sum() == 3 * points
    assert (cut.mean * cut.weight).sum(axis=1) == pytest.approx(values.sum(axis=1))


def test_a_single_spike_is_kept_at_any_position() -> None:
    for place in range(0, 5000, 617):
        values = np.zeros(5000)
        values[place] = 1e6
        cut = decimate(np.arange(5000), values, 50)
        assert max(cut.first.max(), cut.second.max()) == 1e6
        assert cut.first.min() == 0


def test_short_curves_are_unchanged() -> None:
    values = np.array([[3.0, 1.0, np.nan], [np.inf, 2.0, 5.0]])
    cut = decimate([1, 5, 9], values, 3)
    assert cut.is_exact
    np.testing.assert_array_equal(cut.position, [1, 5, 9])
    for kept in (cut.mean, cut.first, cut.second):
        np.testing.assert_array_equal(kept, [[3, 1, np.nan], [np.nan, 2, 5]])


def test_missing_values_are_not_counted() -> None:
    values = np.array([[1.0, np.nan, 3.0, np.inf, np.nan, np.nan]])
    cut = decimate(np.arange(6), values, 3)
    np.testing.assert_array_equal(cut.mean, [[1, 3, np.nan]])
    np.testing.assert_array_equal(cut.weight, [[1, 1, 0]])


def test_invalid_arguments_raise() -> None:
    with pytest.raises(ValueError, match=r"positions \(0,\) and values \(1, 0\)"):
        decimate([], [], 3)
    with pytest.raises(ValueError, match=r"must be \(P,\) and \(S, P\)"):
        decimate([1, 2], [[1.0]], 3)
    with pytest.raises(ValueError, match=r"max_pieces \(=0\)"):
        decimate([1], [1.0], 0)
