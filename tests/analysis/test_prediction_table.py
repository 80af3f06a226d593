"""Most probable classes, and classes from the names of folders."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_cifar.analysis.prediction_table import are_probabilities, class_in_path, top_classes


def test_the_most_probable_come_first_and_equals_in_their_order() -> None:
    p = torch.tensor([[0.1, 0.2, 0.1, 0.6], [0.25, 0.25, 0.25, 0.25]], dtype=torch.float64)
    top = top_classes(p, 3)
    assert top.classes.tolist() == [[3, 1, 0], [0, 1, 2]]
    torch.testing.assert_close(top.probabilities, torch.tensor([[0.6, 0.2, 0.1], [0.25, 0.25, 0.25]]))
    assert top_classes(p, 9).classes.shape == (2, 4)


def test_nan_is_never_the_most_probable() -> None:
    top = top_classes(torch.tensor([[math.nan, 0.4, 0.6]]), 2)
    assert top.classes.tolist() == [[2, 1]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0.5, 0.5], [1.0, 0.0]], True),
        ([[0.5, 0.6]], False),
        ([[1.5, -0.5]], False),
        ([[math.nan, math.nan]], True),
        ([0.5, 0.5], False),
        ([[1.0]], False),
    ],
)
def test_probabilities_are_distinguished_from_logits(values: list[object], expected: bool) -> None:
    assert are_probabilities(torch.tensor(values)) is expected


def test_half_precision_is_still_a_distribution() -> None:
    p = torch.randn(50, 1000, generator=torch.Generator().manual_seed(0)).softmax(1)
    assert are_probabilities(p.bfloat16())
    assert not are_probabilities(p.round().long())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("Egyptian_cat/a.jpg", "Egyptian cat"),
        ("zoo/tiger-CAT/more/a.jpg", "tiger cat"),
        ("tiger cat/Egyptian cat/a.jpg", "Egyptian cat"),
        ("zoo/a.jpg", None),
        ("tiger cat.jpg", None),
        ("tiger cat", None),
    ],
)
def test_folders_named_after_classes(path: str, expected: str | None) -> None:
    assert class_in_path(path, ["tiger cat", "Egyptian cat"]) == expected
