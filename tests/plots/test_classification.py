"""Confusion matrices: axes and cells."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lightning_cifar.plots import draw_confusion

COUNTS = np.array([[3, 0, 1], [2, 1, 0], [0, 0, 0]])
NAMES = ("cat", "dog", "automobile")


def test_cells_are_percent_of_the_true_class() -> None:
    (axes,) = draw_confusion(COUNTS, NAMES, title="validation").axes
    shown = np.ma.filled(axes.images[0].get_array().astype(float), np.nan)
    np.testing.assert_allclose(shown, [[75, 0, 25], [200 / 3, 100 / 3, 0], [np.nan] * 3])
    texts = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in axes.texts}
    assert texts == {(0, 0): "75.0", (0, 2): "25.0", (1, 0): "66.7", (1, 1): "33.3"}
    assert axes.get_xlabel() == "predicted class (% of the true class)"
    assert (axes.get_ylabel(), axes.get_title()) == ("true class", "validation")
    assert tuple(t.get_text() for t in axes.get_xticklabels()) == NAMES
    assert tuple(t.get_text() for t in axes.get_yticklabels()) == NAMES
    assert (axes.images[0].norm.vmin, axes.images[0].norm.vmax) == (0, 100)


def test_small_shares_are_distinguished_from_zero_and_all() -> None:
    (axes,) = draw_confusion([[9999, 1], [0, 5]], ["a", "b"]).axes
    assert sorted(t.get_text() for t in axes.texts) == ["100", "100", "<0.1"]


@pytest.mark.parametrize("num_classes", [2, 10, 20, 21, 100])
def test_nothing_is_cut_off(num_classes: int) -> None:
    names = [f"automobile {i}" for i in range(num_classes)]
    figure = draw_confusion(
        np.eye(num_classes, dtype=int) * 7, names, title="test: 100.00 % of 10,000 images are right"
    )
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    texts = [text for axes in figure.axes for text in (*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels())]
    texts += [text for axes in figure.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= width and b.y1 <= height for b in boxes)
    labels = figure.axes[0].get_xticklabels()
    assert len(labels) <= 40
    assert [t.get_text() for t in labels] == names[:: -(-num_classes // 40)]
    assert bool(figure.axes[0].texts) == (num_classes <= 20)
    assert [axes.get_ylabel() for axes in figure.axes[1:]] == ["share of the true class (%)"] * (num_classes > 20)


def test_a_wrong_number_of_names_raises() -> None:
    with pytest.raises(ValueError, match=r"\(3, 3\) does not match 2 class names"):
        draw_confusion(COUNTS, ["a", "b"])
