"""Two sources of the uncertainty of a difference in accuracy: the seeds, and the finite number of test images.

The difference of two arms is d_si in {-1, 0, 1} for seed s of S and image i of I: 1 where only the first is correct, -1
where only the second is. The random effects model d_si = mean + a_s + b_i + e_si (analysis of variance of two crossed
factors; Searle, Casella and McCulloch 1992, "Variance components", chapter 4) gives the variance of the mean:

    var = var_a / S + var_b / I + var_e / (S I)

More seeds reduce the first and the last term, but not the second. A t interval over seeds contains the first and the
last; it holds for these images.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


class Sources(NamedTuple):
    """Standard errors of a mean difference by their source."""

    seeds: float
    """Part that more seeds reduce; NaN with one seed."""
    images: float
    """Part that only more images reduce."""

    @property
    def total(self) -> float:
        """Standard error for other seeds and other images of the same kind."""
        return math.hypot(self.seeds, self.images)


def variance_sources(differences: ArrayLike) -> Sources:
    """Split the standard error of a mean difference into seeds and images.

    Args:
        differences: (S, I): correct (1) or not (0) of one arm minus that of the other, by seed and image. With one
            seed, the error of the images is that of McNemar (1947, doi:10.1007/BF02295996).

    Raises:
        ValueError: If it is not (S, I) with at least two images.

    Example:
        >>> sources = variance_sources([[1, 0, 0, 1], [1, 0, 0, 0]])
        >>> round(sources.seeds, 3), round(sources.images, 3)
        (0.125, 0.204)
    """
    values = np.asarray(differences, dtype=float)
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2:
        raise ValueError(
            f"differences has the shape {values.shape}: it must be (seeds, images), with two images or more"
        )
    num_seeds, num_images = values.shape
    by_image, by_seed, mean = values.mean(axis=0), values.mean(axis=1), values.mean()
    if num_seeds == 1:
        return Sources(math.nan, float(by_image.std(ddof=1)) / math.sqrt(num_images))
    rest = values - by_image - by_seed[:, None] + mean
    square_e = float((rest**2).sum()) / ((num_seeds - 1) * (num_images - 1))
    square_a = num_images * float(by_seed.var(ddof=1))
    square_b = num_seeds * float(by_image.var(ddof=1))
    images = max(square_b - square_e, 0.0) / num_seeds / num_images
    seeds = (max(square_a - square_e, 0.0) / num_images + square_e / num_images) / num_seeds
    return Sources(math.sqrt(seeds), math.sqrt(images))


def mcnemar(first_only: int, second_only: int) -> float:
    """Return the exact p-value of McNemar's test of two networks on the same images.

    Args:
        first_only: Number of images that only the first classifies correctly.
        second_only: Number of images that only the second classifies correctly.

    Example:
        >>> round(mcnemar(15, 25), 4)
        0.1539
    """
    count = first_only + second_only
    return float(stats.binomtest(first_only, count).pvalue) if count else 1.0
