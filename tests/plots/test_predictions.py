"""Sheets of predictions: marks of mistakes, and texts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from lightning_cifar.plots import draw_predictions

CROSS = "\N{BALLOT X}"


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).random((3, 4, 6, 3))


def texts_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_mistakes_have_a_frame_a_cross_and_the_true_name(images: np.ndarray) -> None:
    figure = draw_predictions(
        images, ["cat", "dog", "ship"], ["cat", "cat", "ship"], [0.5, 0.834, 0.1], title="a batch"
    )
    axes = figure.axes[0]
    for drawn, image in zip(axes.images, images, strict=True):
        np.testing.assert_array_equal(drawn.get_array(), image)
        assert drawn.get_interpolation() == "nearest"
    assert texts_of(figure) == ["cat 50 %", f"{CROSS} dog 83 %", "is cat", "ship 10 %"]
    (frame,) = axes.patches
    left, right, bottom, top = axes.images[1].get_extent()
    assert (frame.get_x(), frame.get_y()) == (left, top)
    assert (frame.get_width(), frame.get_height()) == pytest.approx((right - left, bottom - top))
    assert to_hex(frame.get_edgecolor()) == "#c00000"
    assert [text.get_color() for text in axes.texts] == ["0.2", "#c00000", "#c00000", "0.2"]
    assert [text.get_text() for text in figure.texts] == ["a batch"]


def test_rows_and_numbers(images: np.ndarray) -> None:
    figure = draw_predictions(images, ["a"] * 3, ["b", "a", "b"], [1, 1, 1], numbers=[7, 123, 9], columns=2)
    places = [drawn.get_extent()[0::3] for drawn in figure.axes[0].images]
    assert places[0][1] == places[1][1] < places[2][1]
    assert places[0][0] == places[2][0] < places[1][0]
    assert [text for text in texts_of(figure) if text.startswith("image")] == ["image 7", "image 123", "image 9"]


def test_percentages_are_never_rounded_up_to_100(images: np.ndarray) -> None:
    shares = [0.1, 0.984, 0.987, 0.9993, 0.99961, 1.0, float("nan")]
    many = np.zeros((len(shares), 2, 2, 1))
    figure = draw_predictions(many, ["a"] * len(shares), ["a"] * len(shares), shares)
    expected = ["10", "98", "98.7", "99.9", ">99.9", ">99.9", "?"]
    assert texts_of(figure) == [f"a {share} %" for share in expected]


def test_grey_bytes(images: np.ndarray) -> None:
    grey = (images[..., :1] * 255).astype(np.uint8)
    drawn = draw_predictions(grey, ["a"] * 3, ["a"] * 3, [1, 1, 1]).axes[0].images[0]
    assert drawn.get_clim() == (0, 255)
    assert drawn.get_cmap().name == "gray"


def test_without_images_only_the_title_is_drawn(images: np.ndarray) -> None:
    figure = draw_predictions(images[:0], [], [], [], title="No mistake: all 2,000 validation images are right.")
    FigureCanvasAgg(figure).draw()
    assert not figure.axes[0].images
    assert figure.texts[0].get_text().startswith("No mistake")


@pytest.mark.parametrize("num", [1, 3, 16])
def test_long_names_do_not_overlap_and_stay_inside(num: int, boxes_of: Callable[..., list[Bbox]]) -> None:
    names = ["automobile", "a_class_with_a_very_long_name", "Norwich Terrier"] * 6
    figure = draw_predictions(
        np.zeros((num, 32, 32, 3)),
        names[:num],
        names[1 : num + 1],
        [0.99999] * num,
        numbers=[123456] * num,
        title="The 32 most confident of 3,301 mistakes among 10,000 validation images of a set with a name",
    )
    boxes_of(figure, [*figure.axes[0].texts, *figure.texts])
    assert f"{CROSS} automobile >99.9 %" in texts_of(figure)


def test_invalid_arguments_raise(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="2 true do not match 3 images"):
        draw_predictions(images, ["a"] * 3, ["a"] * 2, [1, 1, 1])
    with pytest.raises(ValueError, match="1 numbers do not match 3 images"):
        draw_predictions(images, ["a"] * 3, ["a"] * 3, [1, 1, 1], numbers=[1])
    with pytest.raises(ValueError, match=r"not \(3, 4, 6\)"):
        draw_predictions(images[..., 0], ["a"] * 3, ["a"] * 3, [1, 1, 1])
