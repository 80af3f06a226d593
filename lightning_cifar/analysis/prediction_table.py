"""Most probable classes of images, and true classes from the names of folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class TopClasses(NamedTuple):
    """The T most probable classes of each of N images, the most probable first."""

    classes: Tensor
    """int64 (N, T)"""
    probabilities: Tensor
    """float32 (N, T)"""


def top_classes(probabilities: Tensor, count: int) -> TopClasses:
    """Return the ``count`` (T) most probable classes of probabilities (N, K); ties are sorted by number."""
    values = probabilities.detach().float()
    # argsort and not topk, which does not define the order of equals.
    order = values.nan_to_num(nan=-1.0).argsort(dim=1, descending=True, stable=True)[:, :count]
    return TopClasses(order, values.gather(1, order))


def are_probabilities(values: Tensor, tolerance: float = 0.02) -> bool:
    """Whether rows (N, K) are distributions up to rounding in half precision; a row with NaN is accepted."""
    if values.ndim != 2 or values.shape[1] < 2 or not values.is_floating_point():
        return False
    rows = values.detach().float()
    off = (rows < 0).any(1) | ((rows.sum(1) - 1).abs() > tolerance)
    return not bool((off & ~rows.isnan().any(1)).any())


def class_in_path(path: str, class_names: Sequence[str]) -> str | None:
    """Return the class after which one of the file's folders is named, the innermost of several folders.

    Letter case and ``_``, ``-`` and blanks do not matter.

    Example:
        >>> class_in_path("zoo/Tiger_Cat/1.jpg", ["tabby", "tiger cat"])
        'tiger cat'
    """
    by_name = {_plain(name): name for name in class_names}
    for folder in reversed(path.split("/")[:-1]):
        if name := by_name.get(_plain(folder)):
            return name
    return None


def _plain(name: str) -> str:
    return " ".join(re.split(r"[\s_-]+", name)).strip().lower()
