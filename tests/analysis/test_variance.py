"""Sources of variance: recovered from simulated studies, and equal to the bootstrap over images."""

import math

import numpy as np
import pytest

from lightning_cifar.analysis.variance import mcnemar, variance_sources


def test_recovers_the_components() -> None:
    """The mean of the estimated variances over simulations is that of the model."""
    rng = np.random.default_rng(0)
    num_seeds, num_images = 6, 50
    found = []
    for _ in range(400):
        values = rng.normal(0, 1, (num_seeds, num_images)) + rng.normal(0, 2, num_images)
        values += rng.normal(0, 0.3, (num_seeds, 1))
        found.append(np.square(variance_sources(values)))
    seeds, images = np.mean(found, axis=0)
    assert seeds == pytest.approx(0.3**2 / num_seeds + 1 / num_seeds / num_images, rel=0.08)
    assert images == pytest.approx(4 / num_images, rel=0.08)


def test_the_total_is_the_error_of_the_mean() -> None:
    """Over new seeds and new images, the mean varies by the total error."""
    rng = np.random.default_rng(1)
    studies = [rng.normal(0, 0.2, (4, 1)) + rng.normal(0, 1, 40) + rng.normal(0, 1, (4, 40)) for _ in range(3000)]
    total = np.sqrt(np.mean([variance_sources(values).total ** 2 for values in studies[:300]]))
    assert np.std([values.mean() for values in studies]) == pytest.approx(total, rel=0.05)


def test_equals_the_paired_bootstrap_over_images() -> None:
    rng = np.random.default_rng(2)
    values = rng.integers(-1, 2, 200) * (rng.uniform(size=(5, 200)) < 0.7)
    chosen = rng.integers(0, 200, (4000, 200))
    bootstrap = values.mean(axis=0)[chosen].mean(axis=1).var()
    square_e = np.square(values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()).sum() / (4 * 199)
    assert variance_sources(values).images ** 2 + square_e / 1000 == pytest.approx(bootstrap, rel=0.1)


def test_one_seed_is_the_error_of_mcnemar() -> None:
    """With b and c discordant images of I: (b + c - (b - c)^2 / I) / (I (I - 1))."""
    values = np.array([[1] * 25 + [-1] * 15 + [0] * 460])
    sources = variance_sources(values)
    assert sources.images == pytest.approx(math.sqrt((40 - 10**2 / 500) / (500 * 499)))
    assert math.isnan(sources.seeds)


def test_equal_seeds_leave_only_the_images() -> None:
    row = np.random.default_rng(3).integers(-1, 2, 100)
    sources = variance_sources(np.tile(row, (4, 1)))
    assert sources.seeds == pytest.approx(0, abs=1e-12)
    assert sources.images == pytest.approx(row.std(ddof=1) / 10)
    with pytest.raises(ValueError, match=r"differences has the shape \(3,\)"):
        variance_sources([1, 0, 1])


def test_mcnemar() -> None:
    """mcnemar([[400, 15], [25, 60]], exact=True) of statsmodels 0.15."""
    assert mcnemar(15, 25) == pytest.approx(0.15386, abs=1e-5)
    assert mcnemar(0, 0) == 1.0
