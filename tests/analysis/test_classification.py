"""Counts and scores against hand-made examples."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_cifar.analysis.classification import accuracy, class_table, confusion_matrix

# Three classes: 4 of class 0 (3 right, 1 taken for 2), 3 of class 1 (1 right, 2 for 0), 2 of class 2 (both right).
TARGETS = torch.tensor([0, 1, 0, 2, 1, 0, 0, 1, 2])
PREDICTIONS = torch.tensor([0, 0, 2, 2, 1, 0, 0, 0, 2])
CONFUSION = [[3, 0, 1], [2, 1, 0], [0, 0, 2]]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_rows_are_true_classes(dtype: torch.dtype) -> None:
    confusion = confusion_matrix(TARGETS.to(dtype), PREDICTIONS.to(dtype), 3)
    assert confusion.dtype == torch.int64
    assert confusion.tolist() == CONFUSION


def test_matrices_of_batches_add_up() -> None:
    parts = [confusion_matrix(t, p, 3) for t, p in zip(TARGETS.split(4), PREDICTIONS.split(4), strict=True)]
    assert torch.equal(sum(parts, torch.zeros(3, 3, dtype=torch.int64)), torch.tensor(CONFUSION))


def test_many_classes_agree_with_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    targets, predictions = torch.randint(0, 17, (2, 500), generator=generator)
    expected = torch.zeros(17, 17, dtype=torch.int64)
    for target, prediction in zip(targets, predictions, strict=True):
        expected[target, prediction] += 1
    assert torch.equal(confusion_matrix(targets, predictions, 17), expected)


def test_values_outside_the_classes_are_not_counted() -> None:
    targets, predictions = torch.tensor([0, -1, 1, 2, 1]), torch.tensor([0, 0, 2, 1, 1])
    assert confusion_matrix(targets, predictions, 2).tolist() == [[1, 0], [0, 1]]


def test_different_shapes_raise() -> None:
    with pytest.raises(ValueError, match=r"targets \(3,\) and predictions \(2,\) differ"):
        confusion_matrix(torch.zeros(3), torch.zeros(2), 3)


def test_scores_of_the_hand_made_example() -> None:
    zero, one, two = class_table(torch.tensor(CONFUSION))
    assert (zero.count, zero.correct, zero.most_confused_with, zero.confused) == (4, 3, 2, 1)
    assert (one.count, one.correct, one.most_confused_with, one.confused) == (3, 1, 0, 2)
    assert (two.count, two.correct, two.most_confused_with, two.confused) == (2, 2, None, 0)
    assert [zero.accuracy, one.accuracy, two.accuracy] == pytest.approx([3 / 4, 1 / 3, 1])
    assert [zero.precision, one.precision, two.precision] == pytest.approx([3 / 5, 1, 2 / 3])
    # f1 is the harmonic mean of the two
    assert [zero.f1, one.f1, two.f1] == pytest.approx([2 / (4 / 3 + 5 / 3), 2 / (3 + 1), 2 / (1 + 3 / 2)])
    assert accuracy(torch.tensor(CONFUSION)) == pytest.approx(6 / 9)


def test_scores_of_an_absent_class_are_nan() -> None:
    absent = class_table(torch.tensor([[2, 0], [0, 0]]))[1]
    assert (absent.count, absent.most_confused_with) == (0, None)
    assert all(math.isnan(value) for value in (absent.accuracy, absent.precision, absent.f1))
    assert math.isnan(accuracy(torch.zeros(2, 2, dtype=torch.int64)))
