"""Checks that tests of several pictures share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


@pytest.fixture
def boxes_of() -> Callable[[Figure, Iterable[Text]], list[Bbox]]:
    """Function that draws a figure, checks that texts are inside and do not overlap, and returns their boxes."""

    def boxes_of(figure: Figure, texts: Iterable[Text]) -> list[Bbox]:
        figure.set_dpi(120)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        width, height = canvas.get_width_height()
        boxes = [text.get_window_extent() for text in texts if text.get_text()]
        for box in boxes:
            assert 0 <= box.x0 < box.x1 <= width
            assert 0 <= box.y0 < box.y1 <= height
        for one, other in itertools.combinations(boxes, 2):
            assert one.x1 <= other.x0 + 1 or other.x1 <= one.x0 + 1 or one.y1 <= other.y0 + 1 or other.y1 <= one.y0 + 1
        return boxes

    return boxes_of
