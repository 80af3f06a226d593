"""Photographs with their texts."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from lightning_cifar.plots import PredictedPhotograph, draw_photographs


def texts(figure: Figure) -> list[str]:
    return [plain(text) for text in (*figure.texts, *figure.axes[0].texts)]


def plain(text: Text) -> str:
    return text.get_text().replace("\N{NO-BREAK SPACE}", " ")


def images(count: int, size: int = 16, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


PHOTOGRAPHS = [
    PredictedPhotograph("tabby", 0.93, "tabby", "cat/1.jpg"),
    PredictedPhotograph("zebra", 0.004, "lion", "lion/2.jpg"),
    PredictedPhotograph("pizza", 0.99999, None, "3.jpg"),
]


def test_words_and_colours() -> None:
    figure = draw_photographs(images(3), PHOTOGRAPHS, columns=2, title="Three")
    written = {plain(text): to_hex(text.get_color()) for text in figure.axes[0].texts}
    assert written.keys() == {
        *("tabby 93 %", "true: tabby", "cat/1.jpg"),
        *("zebra 0.4 %", "true: lion", "lion/2.jpg"),
        *("pizza >99.9 %", "3.jpg"),
    }
    assert len({written[name] for name in ("tabby 93 %", "zebra 0.4 %", "pizza >99.9 %")}) == 3
    assert len(figure.axes[0].patches) == 1, "the mistake's frame"
    assert texts(figure)[0] == "Three"


def test_each_image_is_at_its_place() -> None:
    pixels = images(3)
    figure = draw_photographs(pixels, PHOTOGRAPHS, columns=2)
    shown = figure.axes[0].images
    for image, expected in zip(shown, pixels, strict=True):
        assert np.array_equal(image.get_array(), expected)
    lefts, tops = zip(*((image.get_extent()[0], image.get_extent()[3]) for image in shown), strict=True)
    assert lefts[0] == lefts[2] < lefts[1]
    assert tops[0] == tops[1] < tops[2]
    titles = {text.get_text().split()[0]: text.get_position() for text in figure.axes[0].texts}
    for image, name in zip(shown, ("tabby", "zebra", "pizza"), strict=True):
        left, right, _, top = image.get_extent()
        x, y = titles[name]
        assert left < x < right
        assert y < top, "above"


def test_texts_do_not_overlap_and_stay_inside(boxes_of: Callable[..., list[Bbox]]) -> None:
    long = "soft-coated wheaten terrier or another very long name of a class, longer than any"
    many = [
        PredictedPhotograph(long if i % 2 else "cat", 1.0, long if i % 3 else None, f"folder/{'x' * 60}_{i}.jpg")
        for i in range(7)
    ]
    figure = draw_photographs(
        images(7), many, columns=3, title="A title that has more words than one line can hold " * 3
    )
    boxes_of(figure, [*figure.texts, *figure.axes[0].texts])
    assert any(text.endswith("_6.jpg") and "…" in text for text in texts(figure)), "the end of a long name stays"
    assert all("100 %" not in text for text in texts(figure))


def test_names_are_literal_and_missing_letters_are_replaced() -> None:
    strange = PredictedPhotograph("$x_1$ 猫", math.nan, "a\nb", "\U00020000$.jpg")
    figure = draw_photographs(images(1, channels=1), [strange])
    FigureCanvasAgg(figure).draw()  # a missing letter would be a warning, which is an error here
    assert texts(figure)[-3:] == ["$x_1$ ? ? %", "true: a b", "?$.jpg"]


def test_invalid_arguments_raise() -> None:
    with pytest.raises(ValueError, match="2 photographs do not match 3 images"):
        draw_photographs(images(3), PHOTOGRAPHS[:2])
    for wrong in (np.zeros((2, 4, 4)), np.zeros((2, 4, 4, 2)), np.zeros((0, 4, 4, 3))):
        with pytest.raises(ValueError, match="images must be"):
            draw_photographs(wrong, PHOTOGRAPHS[:2])
