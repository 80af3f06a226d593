"""Counts of right and wrong answers per class. ``K`` is the number of classes, rows are true, columns predicted."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class ClassScore(NamedTuple):
    """Scores of one class; fractions are NaN where nothing was counted."""

    count: int  # type: ignore[assignment]  # tuples have a method of this name
    """Samples of this class."""
    correct: int
    accuracy: float
    """Share of this class that was predicted correctly (recall)."""
    precision: float
    """Share of the predictions of this class that are correct."""
    f1: float
    most_confused_with: int | None
    """The wrong class that was predicted most often for this class, the first one in a tie; None without a mistake."""
    confused: int
    """Number of these predictions."""


def confusion_matrix(targets: Tensor, predictions: Tensor, num_classes: int) -> Tensor:
    """Count the pairs (true, predicted) in an int64 matrix (K, K), on the device of the arguments.

    A pair with a value outside ``[0, num_classes)``, such as the ignored label -1, is not counted. The function does
    not transfer data to the host, so a GPU does not wait.

    Args:
        targets: (N,), true classes.
        predictions: (N,), predicted classes.
        num_classes: K.

    Raises:
        ValueError: The shapes differ.

    Example:
        >>> confusion_matrix(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2)
        tensor([[1, 1],
                [0, 1]])
    """
    if targets.shape != predictions.shape:
        raise ValueError(f"targets {tuple(targets.shape)} and predictions {tuple(predictions.shape)} differ in shape")
    targets, predictions = targets.flatten().long(), predictions.flatten().long()
    counted = (targets >= 0) & (targets < num_classes) & (predictions >= 0) & (predictions < num_classes)
    # bincount would read the largest value on the host; here an extra cell takes the pairs that are not counted.
    cell = torch.where(counted, targets * num_classes + predictions, num_classes**2)
    counts = torch.zeros(num_classes**2 + 1, dtype=torch.int64, device=targets.device)
    counts.index_add_(0, cell, torch.ones_like(cell))
    return counts[:-1].view(num_classes, num_classes)


def score_counts(targets: Tensor, probabilities: Tensor, num_thresholds: int = 51) -> Tensor:
    """Count the samples of a class (row 0) and of all others (row 1) by the probability of this class.

    The counts of several batches can be added, so that :func:`pr_curves` needs no stored samples. The function does not
    transfer data to the host.

    Args:
        targets: (N,), true classes; a sample with a value outside ``[0, K)`` is not counted.
        probabilities: (N, K), in [0, 1]; a sample with a value that is not a number is not counted.
        num_thresholds: T, number of the evenly spaced thresholds from 0 to 1.

    Returns:
        int64 (2, K, T).
    """
    num_classes = probabilities.shape[1]
    targets = targets.long()
    counted = (targets >= 0) & (targets < num_classes) & probabilities.isfinite().all(dim=1)
    classes = torch.arange(num_classes, device=targets.device)
    buckets = (probabilities.nan_to_num().clamp(0, 1) * (num_thresholds - 1)).floor().long()
    others = (targets[:, None] != classes).long()
    cells = (others * num_classes + classes) * num_thresholds + buckets
    cells = torch.where(counted[:, None], cells, 2 * num_classes * num_thresholds)  # an extra cell, as above
    counts = torch.zeros(2 * num_classes * num_thresholds + 1, dtype=torch.int64, device=targets.device)
    counts.index_add_(0, cells.flatten(), torch.ones_like(cells).flatten())
    return counts[:-1].view(2, num_classes, num_thresholds)


def pr_curves(counts: Tensor) -> Tensor:
    """Compute precision-recall curves in the form that TensorBoard's ``add_pr_curve_raw`` takes.

    Args:
        counts: (2, K, T), see :func:`score_counts`.

    Returns:
        float64 (K, 6, T): true positives, false positives, true negatives, false negatives, precision and recall. A
        sample is positive if its probability is at least the threshold, rounded down to the thresholds. Precision
        without a positive sample is 0.

    Example:
        >>> counts = score_counts(torch.tensor([0, 1]), torch.tensor([[0.9, 0.1], [0.6, 0.4]]), num_thresholds=3)
        >>> pr_curves(counts)[0, 4:].tolist()  # at the thresholds 0, 0.5 and 1
        [[0.5, 0.5, 0.0], [1.0, 1.0, 0.0]]
    """
    hits, alarms = counts.double().flip(2).cumsum(2).flip(2)
    rest, misses = alarms[:, :1] - alarms, hits[:, :1] - hits
    precision, recall = hits / (hits + alarms).clamp(min=1), hits / (hits + misses).clamp(min=1)
    return torch.stack([hits, alarms, rest, misses, precision, recall], dim=1)


def accuracy(confusion: Tensor) -> float:
    """Share of all samples on the diagonal; NaN for an empty matrix."""
    return _ratio(int(confusion.trace()), int(confusion.sum()))


def class_table(confusion: Tensor) -> list[ClassScore]:
    """Compute the scores of each class.

    Args:
        confusion: (K, K), rows are true classes, as :func:`confusion_matrix` returns it.

    Example:
        >>> [score.accuracy for score in class_table(torch.tensor([[3, 1], [0, 2]]))]
        [0.75, 1.0]
    """
    table = []
    predicted = confusion.sum(dim=0).tolist()
    for index, row in enumerate(confusion.tolist()):
        count, correct = sum(row), row[index]
        mistakes = [0 if column == index else n for column, n in enumerate(row)]
        confused = max(mistakes)
        table.append(
            ClassScore(
                count=count,
                correct=correct,
                accuracy=_ratio(correct, count),
                precision=_ratio(correct, predicted[index]),
                f1=_ratio(2 * correct, count + predicted[index]),
                most_confused_with=mistakes.index(confused) if confused else None,
                confused=confused,
            )
        )
    return table


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
