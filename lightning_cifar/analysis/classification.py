"""Counts of right and wrong answers per class. ``K`` is the number of classes, rows are true, columns predicted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ClassScore:
    """What a confusion matrix says about one class; fractions are NaN where nothing was counted."""

    count: int
    """Samples of this class."""
    correct: int
    accuracy: float
    """Share of this class that was recognised (its recall)."""
    precision: float
    """Share of the predictions of this class that were right."""
    f1: float
    most_confused_with: int | None
    """The wrong class that this class was most often taken for; None without a mistake. The first one of equals."""
    confused: int
    """How often that was."""


def confusion_matrix(targets: Tensor, predictions: Tensor, num_classes: int) -> Tensor:
    """Count the pairs (true, predicted) into an int64 matrix (K, K), on the device of the arguments.

    A pair with a value outside ``[0, num_classes)``, such as the ignored label -1, is not counted. There is no
    transfer to the host, so counting does not make a GPU wait.

    Args:
        targets: (N,), the true classes.
        predictions: (N,), the predicted ones.
        num_classes: K.

    Raises:
        ValueError: the two differ in shape.
    """
    if targets.shape != predictions.shape:
        raise ValueError(f"targets {tuple(targets.shape)} and predictions {tuple(predictions.shape)} differ in shape")
    targets, predictions = targets.flatten().long(), predictions.flatten().long()
    counted = (targets >= 0) & (targets < num_classes) & (predictions >= 0) & (predictions < num_classes)
    # bincount would look at the largest value on the host; here one more cell takes what is not counted.
    cell = torch.where(counted, targets * num_classes + predictions, num_classes**2)
    counts = torch.zeros(num_classes**2 + 1, dtype=torch.int64, device=targets.device)
    counts.index_add_(0, cell, torch.ones_like(cell))
    return counts[:-1].view(num_classes, num_classes)


def accuracy(confusion: Tensor) -> float:
    """Share of all samples on the diagonal; NaN for an empty matrix."""
    return _ratio(int(confusion.trace()), int(confusion.sum()))


def class_table(confusion: Tensor) -> list[ClassScore]:
    """The scores of each class.

    Args:
        confusion: (K, K), rows of true classes, as :func:`confusion_matrix` counts them.
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
