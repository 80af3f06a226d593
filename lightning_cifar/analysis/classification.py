"""Counts of right and wrong answers per class. ``K`` is the number of classes, rows are true, columns predicted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Scores of one class; fractions are NaN where nothing was counted."""

    count: int
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
