"""Graphs show every node with its value and gradient, from left to right."""

import pytest

from lightning_cifar.plots import GraphNode, draw_graph

NODES = [
    GraphNode("x", "variable", "2", "12", ()),
    GraphNode("3", "constant", "", "", ()),
    GraphNode("*", "operation", "6", "2", (0, 1)),
    GraphNode("+", "result", "8", "1", (2, 0)),
]


def test_texts_and_positions() -> None:
    (axes,) = draw_graph(NODES, "a graph").axes
    places = {text.get_text(): text.get_position() for text in axes.texts if text.get_text()}
    assert set(places) == {"x", "3", "*", "+", "2", "12", "6", "8", "1"}
    assert places["x"][0] < places["*"][0] < places["+"][0]
    assert places["x"] != places["3"]
    arrows = [text for text in axes.texts if getattr(text, "arrow_patch", None) is not None]
    assert len(arrows) == 4


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="nodes is empty"):
        draw_graph([])
    with pytest.raises(ValueError, match="after its inputs"):
        draw_graph([GraphNode("a", "variable", "", "", (1,)), GraphNode("b", "variable", "", "", ())])
