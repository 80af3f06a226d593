"""A duplicate name in a configuration is reported with its line."""

from pathlib import Path

import pytest

from lightning_cifar.configuration import read_configuration
from lightning_cifar.errors import UsageError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"c.yaml, line 3: a is given twice"),
        (
            "model:\n  members:\n    plain: {lr: 1}\n    other: {}\n    plain: {lr: 2}\n",
            "line 5: model.members.plain is",
        ),
        ("a:\n  - {x: 1}\n  - {x: 1, y: 2, x: 3}\n", r"line 3: a.1.x is given twice"),
    ],
)
def test_a_duplicate_name_is_reported(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_configuration(path)


@pytest.mark.parametrize(
    "text",
    ["a: {x: 1}\nb: {x: 1}\n", "base: &base {x: 1}\na:\n  <<: *base\n  x: 2\n", "a: {a: {a: 1}}"],
)
def test_equal_names_in_different_places_are_accepted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    read_configuration(path)


def test_the_shipped_configurations_have_none() -> None:
    paths = [
        path for path in (Path(__file__).parents[1] / "configs").rglob("*.yaml") if path.parent.name != "albumentations"
    ]
    assert paths
    for path in paths:
        read_configuration(path)
