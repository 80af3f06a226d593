"""Which layers are looked at, and which belong together."""

from __future__ import annotations

import pytest
from torch import nn

from lightning_cifar.analysis.layer_selection import Tap, choose_places


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))


def normed() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)
    )


PAIR = {"plain": plain(), "normed": normed()}


def test_one_network_shows_its_batch_norms_and_dropouts_on_both_sides() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Dropout2d(), nn.LayerNorm(2))
    places = choose_places({"": model})
    assert [place.title for place in places] == ["1 (BatchNorm1d)", "3 (Dropout2d)"]
    assert places[0].taps == [Tap("", "1", "input"), Tap("", "1", "output")]
    assert places[0].labels == ["before", "after"]


def test_without_them_its_activation_functions() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Softmax(dim=1))
    assert [place.title for place in choose_places({"": model})] == ["1 (Tanh)"]


def test_members_meet_before_their_activation_functions() -> None:
    places = choose_places(PAIR)
    assert [place.taps for place in places] == [
        [Tap("plain", "1", "input"), Tap("normed", "2", "input")],
        [Tap("plain", "3", "input"), Tap("normed", "5", "input")],
    ]
    assert places[1].title == "into 3 (ReLU) / 5 (ReLU)"
    assert places[1].labels == ["plain: into 3 (ReLU)", "normed: into 5 (ReLU)"]


def test_members_of_one_architecture_need_no_long_labels() -> None:
    (place, _) = choose_places({"a": plain(), "b": plain()})
    assert place.title == "into 1 (ReLU)"
    assert place.labels == ["a", "b"]


def test_named_layers() -> None:
    places = choose_places(PAIR, {"plain": "2", "normed": ["4"]})
    assert places[0].taps == [Tap("plain", "2", "output"), Tap("normed", "4", "output")]
    assert places[0].labels == ["plain: out of 2 (Linear)", "normed: out of 4 (BatchNorm1d)"]
    assert [tap.layer for place in choose_places(PAIR, ["0", "3"]) for tap in place.taps] == ["0", "0", "3", "3"]
    (both,) = choose_places(PAIR, {"plain": "2", "normed": "4"}, "both")
    assert [(tap.network, tap.side) for tap in both.taps] == [
        ("plain", "input"),
        ("plain", "output"),
        ("normed", "input"),
        ("normed", "output"),
    ]
    assert len(set(both.labels)) == 4
    assert [place.taps for place in choose_places({"": plain()}, "1", "output")] == [[Tap("", "1", "output")]]
    assert [place.title for place in choose_places({"": plain()}, "1", "output")] == ["out of 1 (ReLU)"]


def test_of_many_some_are_chosen_with_the_first_and_the_last() -> None:
    model = nn.Sequential(*(nn.BatchNorm1d(2) for _ in range(11)))
    assert [place.taps[0].layer for place in choose_places({"": model})] == ["0", "3", "7", "10"]
    assert len(choose_places({"": model}, [str(index) for index in range(11)])) == 11


def test_of_many_some_of_both_kinds_are_chosen() -> None:
    blocks = [layer for _ in range(6) for layer in (nn.BatchNorm1d(2), nn.ReLU())]
    model = nn.Sequential(*blocks, nn.Dropout(), nn.Linear(2, 2))
    assert [place.taps[0].layer for place in choose_places({"": model})] == ["0", "4", "10", "12"]
    model = nn.Sequential(*(layer for _ in range(9) for layer in (nn.BatchNorm1d(2), nn.Dropout())))
    assert [place.taps[0].layer for place in choose_places({"": model})] == ["0", "1", "16", "17"]
    members = {"a": nn.Sequential(*(nn.ReLU() for _ in range(7))), "b": nn.Sequential(*(nn.Tanh() for _ in range(7)))}
    assert [place.taps[1].layer for place in choose_places(members)] == ["0", "2", "4", "6"]


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="no layer '9': there are 0, 1"):
        choose_places({"": plain()}, "9")
    with pytest.raises(ValueError, match="Linear has no batch norm, dropout or activation"):
        choose_places({"": nn.Linear(2, 2)})
    with pytest.raises(ValueError, match="there are 2 in plain, 1 in short"):
        choose_places({"plain": plain(), "short": nn.Sequential(nn.ReLU())})
    with pytest.raises(ValueError, match="there are 1 in plain, 2 in normed"):
        choose_places(PAIR, {"plain": "1", "normed": ["2", "5"]})
    with pytest.raises(ValueError, match="'other', which is no member: there are plain, normed"):
        choose_places(PAIR, {"plain": "1", "other": "2"})
    with pytest.raises(ValueError, match="there is one network: give a plain list"):
        choose_places({"": plain()}, {"plain": "1"})
    with pytest.raises(ValueError, match="layers is empty"):
        choose_places(PAIR, [])
    with pytest.raises(ValueError, match="layers is empty"):
        choose_places(PAIR, {})
