"""Selection of layers, and which of several networks correspond."""

from __future__ import annotations

import pytest
from torch import nn

from lightning_cifar.analysis.layer_selection import Tap, select_layers


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))


def normed() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)
    )


PAIR = {"plain": plain(), "normed": normed()}


def test_one_network_shows_its_batch_norms_and_dropouts_on_both_sides() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Dropout2d(), nn.LayerNorm(2))
    selected = select_layers({"": model})
    assert [each.title for each in selected] == ["1 (BatchNorm1d)", "3 (Dropout2d)"]
    assert selected[0].taps == [Tap("", "1", "input"), Tap("", "1", "output")]
    assert selected[0].labels == ["before", "after"]


def test_one_network_without_them_shows_its_activation_functions() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Softmax(dim=1))
    assert [each.title for each in select_layers({"": model})] == ["1 (Tanh)"]


def test_members_are_compared_before_their_activation_functions() -> None:
    selected = select_layers(PAIR)
    assert [each.taps for each in selected] == [
        [Tap("plain", "1", "input"), Tap("normed", "2", "input")],
        [Tap("plain", "3", "input"), Tap("normed", "5", "input")],
    ]
    assert selected[1].title == "into 3 (ReLU) / 5 (ReLU)"
    assert selected[1].labels == ["plain: into 3 (ReLU)", "normed: into 5 (ReLU)"]


def test_members_of_one_architecture_need_no_long_labels() -> None:
    (first, _) = select_layers({"a": plain(), "b": plain()})
    assert first.title == "into 1 (ReLU)"
    assert first.labels == ["a", "b"]


def test_named_layers() -> None:
    selected = select_layers(PAIR, {"plain": "2", "normed": ["4"]})
    assert selected[0].taps == [Tap("plain", "2", "output"), Tap("normed", "4", "output")]
    assert selected[0].labels == ["plain: out of 2 (Linear)", "normed: out of 4 (BatchNorm1d)"]
    assert [tap.layer for each in select_layers(PAIR, ["0", "3"]) for tap in each.taps] == ["0", "0", "3", "3"]
    (both,) = select_layers(PAIR, {"plain": "2", "normed": "4"}, "both")
    assert [(tap.network, tap.side) for tap in both.taps] == [
        ("plain", "input"),
        ("plain", "output"),
        ("normed", "input"),
        ("normed", "output"),
    ]
    assert len(set(both.labels)) == 4
    assert [each.taps for each in select_layers({"": plain()}, "1", "output")] == [[Tap("", "1", "output")]]
    assert [each.title for each in select_layers({"": plain()}, "1", "output")] == ["out of 1 (ReLU)"]


def test_many_layers_are_reduced_to_a_few_with_the_first_and_the_last() -> None:
    model = nn.Sequential(*(nn.BatchNorm1d(2) for _ in range(11)))
    assert [each.taps[0].layer for each in select_layers({"": model})] == ["0", "3", "7", "10"]
    assert len(select_layers({"": model}, [str(index) for index in range(11)])) == 11


def test_many_layers_of_two_kinds_are_reduced_to_some_of_both() -> None:
    blocks = [layer for _ in range(6) for layer in (nn.BatchNorm1d(2), nn.ReLU())]
    model = nn.Sequential(*blocks, nn.Dropout(), nn.Linear(2, 2))
    assert [each.taps[0].layer for each in select_layers({"": model})] == ["0", "4", "10", "12"]
    model = nn.Sequential(*(layer for _ in range(9) for layer in (nn.BatchNorm1d(2), nn.Dropout())))
    assert [each.taps[0].layer for each in select_layers({"": model})] == ["0", "1", "16", "17"]
    members = {"a": nn.Sequential(*(nn.ReLU() for _ in range(7))), "b": nn.Sequential(*(nn.Tanh() for _ in range(7)))}
    assert [each.taps[1].layer for each in select_layers(members)] == ["0", "2", "4", "6"]


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="no layer '9': there are 0, 1"):
        select_layers({"": plain()}, "9")
    with pytest.raises(ValueError, match="Linear has no batch norm, dropout or activation"):
        select_layers({"": nn.Linear(2, 2)})
    with pytest.raises(ValueError, match="there are 2 in plain, 1 in short"):
        select_layers({"plain": plain(), "short": nn.Sequential(nn.ReLU())})
    with pytest.raises(ValueError, match="there are 1 in plain, 2 in normed"):
        select_layers(PAIR, {"plain": "1", "normed": ["2", "5"]})
    with pytest.raises(ValueError, match="'other', which is not a member: there are plain, normed"):
        select_layers(PAIR, {"plain": "1", "other": "2"})
    with pytest.raises(ValueError, match="there is one network: pass a plain list"):
        select_layers({"": plain()}, {"plain": "1"})
    with pytest.raises(ValueError, match="layers is empty"):
        select_layers(PAIR, [])
    with pytest.raises(ValueError, match="layers is empty"):
        select_layers(PAIR, {})
