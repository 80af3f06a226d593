"""Pictures of occlusion maps: values, one scale around zero, and texts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from lightning_cifar.plots import Occlusion, draw_explanation, draw_occlusion_maps, to_percent
from lightning_cifar.plots.occlusion import lay_over

SIZE = 6


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).random((SIZE, SIZE, 3), dtype=np.float32)


@pytest.fixture
def drops() -> np.ndarray:
    """Falls at the top, rises at the bottom, nothing in the middle, one pixel never covered."""
    values = np.zeros((SIZE, SIZE), np.float32)
    values[0], values[-1], values[2, 0] = 0.2, -0.4, np.nan
    return values


def panels(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(drawn.get_array()) for drawn in figure.axes[0].images]


def words(figure: Figure) -> list[Text]:
    return [text for text in (*figure.axes[0].texts, *figure.texts) if text.get_text()]


def canvas_of(figure: Figure) -> FigureCanvasAgg:
    figure.set_dpi(120)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas


def test_three_panels_for_each_image(image: np.ndarray, drops: np.ndarray) -> None:
    rows = [Occlusion(image, drops, "a"), Occlusion(image[..., :1], -drops, "b"), Occlusion(image, 0 * drops, "c")]
    figure = draw_occlusion_maps(rows)
    shown = panels(figure)
    assert len(shown) == 9
    assert figure.texts[1].get_text().endswith("blue: raises it; green: never covered")
    assert "green" not in draw_occlusion_maps([Occlusion(image, 0 * image[..., 0], "")]).texts[1].get_text()
    for index, given in enumerate((image, np.repeat(image[..., :1], 3, -1), image)):
        np.testing.assert_allclose(shown[3 * index], given)
    first, second, nothing = shown[2], shown[5], shown[8]
    assert (first[0, :, 0] > first[0, :, 2]).all(), "a fall is red"
    assert (first[-1, :, 2] > first[-1, :, 0]).all(), "a rise is blue"
    np.testing.assert_allclose(first[3], first[1, 1][None].repeat(SIZE, 0))
    assert np.ptp(first[3, 0]) < 0.01, "zero has no colour"
    np.testing.assert_allclose(nothing[:2], first[3, 0][None, None].repeat(2, 0).repeat(SIZE, 1))
    # one scale for all of them
    np.testing.assert_allclose(second[-1], draw_and_take(image, 2 * drops, limit=0.4)[0])
    np.testing.assert_allclose(first[0], draw_and_take(image, 2 * drops, limit=0.8)[0])
    assert np.abs(first[-1] - first[3]).sum() > np.abs(first[0] - first[3]).sum()
    assert np.ptp(first[2, 0]) > 0.2, "what was never covered has a colour of its own"
    assert not any(np.allclose(first[2, 0], colour) for colour in (first[0, 0], first[-1, 0], first[3, 0]))


def draw_and_take(image: np.ndarray, drops: np.ndarray, limit: float) -> np.ndarray:
    return panels(draw_occlusion_maps([Occlusion(image, drops, "")], limit=limit))[2]


def test_the_map_lies_over_the_image_and_is_clear_where_nothing_changes(image: np.ndarray, drops: np.ndarray) -> None:
    over = lay_over(image, drops, 0.4)
    np.testing.assert_allclose(panels(draw_occlusion_maps([Occlusion(image, drops, "")]))[1], over)
    grey = over[2:4]
    np.testing.assert_allclose(grey, grey[..., :1].repeat(3, -1), atol=1e-6)
    assert np.corrcoef(grey[..., 0].ravel(), image[2:4].mean(-1).ravel())[0, 1] > 0.8
    assert (over[0, :, 0] > over[0, :, 2]).all()
    assert (over[-1, :, 2] > over[-1, :, 0]).all()
    weak, strong = (lay_over(image, np.full_like(drops, drop), 0.4) for drop in (0.01, 0.4))
    assert np.abs(weak - lay_over(image, 0 * drops, 0.4)).max() < np.abs(strong - weak).max()


@pytest.mark.parametrize(("limit", "expected", "arrows"), [(None, 0.4, False), (1.0, 1.0, False), (0.25, 0.25, True)])
def test_one_scale_centred_on_zero(
    image: np.ndarray, drops: np.ndarray, limit: float | None, expected: float, arrows: bool
) -> None:
    rows = [Occlusion(image, drops, ""), Occlusion(image, drops / 2, "")]
    figure = draw_occlusion_maps(rows, limit=limit, label="drop of P(cat)")
    sheet, bar = figure.axes
    assert bar.get_ylim() == pytest.approx((-expected, expected))
    assert bar.get_ylabel() == "drop of P(cat)"
    colorbar: Any = bar._colorbar  # type: ignore[attr-defined]
    assert colorbar.extend == ("both" if arrows else "neither")
    assert [float(label.get_text()) for label in bar.get_yticklabels()] == pytest.approx(
        [-expected, -expected / 2, 0, expected / 2, expected], rel=0.05
    )
    assert len(sheet.images) == 6


def test_maps_of_zeros_and_of_nan_can_be_drawn(image: np.ndarray) -> None:
    for value in (0.0, 1e-7, math.nan):
        figure = draw_occlusion_maps([Occlusion(image, np.full((SIZE, SIZE), value), "a")])
        assert figure.axes[1].get_ylim() == (-0.001, 0.001), "the scale does not enlarge noise"
        canvas_of(figure)


def test_titles_keep_to_their_columns(
    image: np.ndarray, drops: np.ndarray, boxes_of: Callable[..., list[Bbox]]
) -> None:
    long = "true Appenzeller Sennenhund, predicted Greater Swiss Mountain dog 0.83"
    rows = [Occlusion(image, drops, long, "map of P(Appenzeller Sennenhund), 0.11 when uncovered", mistake=True)] * 3
    rows += [Occlusion(image, drops, "true $cat$, predicted ca_t 0.99")]
    figure = draw_occlusion_maps(rows, title="occlusion after 12 epochs, window of 8 x 8 pixels")
    texts = words(figure)
    assert texts[0].get_text() == long
    assert to_rgb(texts[0].get_color())[0] > 0.6 > to_rgb(texts[6].get_color())[0]
    assert "true $cat$, predicted ca_t 0.99" in [text.get_text() for text in texts]
    boxes = boxes_of(figure, texts)
    pictures = [drawn.get_window_extent() for drawn in figure.axes[0].images]
    bar = figure.axes[1].get_tightbbox()
    assert bar is not None
    for box in (bar, *pictures):
        assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert 0 <= box.y0 < box.y1 <= figure.bbox.y1
    frame = figure.axes[0].get_window_extent()
    for picture in pictures:
        assert frame.y0 - 0.1 <= picture.y0 < picture.y1 <= frame.y1 + 0.1, "nothing is clipped"
        assert frame.x0 - 0.1 <= picture.x0 < picture.x1 <= frame.x1 + 0.1
        assert not any(picture.overlaps(box) for box in (*boxes, bar))
        assert picture.width >= 3 * 32, "32 pixels can be distinguished"
        assert picture.width == pytest.approx(picture.height, abs=1)


def test_invalid_arguments_raise(image: np.ndarray, drops: np.ndarray) -> None:
    with pytest.raises(ValueError, match="at least one image"):
        draw_occlusion_maps([])
    with pytest.raises(ValueError, match=r"drops \(5, 6\) do not match an image \(6, 6, 3\)"):
        draw_occlusion_maps([Occlusion(image, drops[1:], "")])
    with pytest.raises(ValueError, match=r"1 or 3 channels, not \(6, 6, 2\)"):
        draw_occlusion_maps([Occlusion(image[..., :2], drops, "")])
    with pytest.raises(ValueError, match=r"limit \(=0\)"):
        draw_occlusion_maps([Occlusion(image, drops, "")], limit=0)
    with pytest.raises(ValueError, match="at least one class"):
        draw_explanation(image, image, drops, [], target="cat")


CLASSES = [("automobile", 0.55), ("cat", 0.4), ("<b>$x$</b>", 0.03), ("an extraordinarily long name", 0.01), ("e", 0.0)]


def test_an_explanation_has_five_panels(image: np.ndarray, drops: np.ndarray) -> None:
    original = (np.random.default_rng(1).random((40, 60, 3)) * 255).astype(np.uint8)
    figure = draw_explanation(
        original, image, drops, CLASSES, target="cat", box=(10, 0, 50, 40), title="cat 40.0 %; $1 and $2"
    )
    given, seen, over, occlusion, bars, bar = figure.axes
    np.testing.assert_allclose(np.asarray(given.images[0].get_array()) * 255, original, atol=1e-3)
    assert given.patches[0].get_bbox().bounds == (9.5, -0.5, 40, 40)  # type: ignore[attr-defined]
    np.testing.assert_allclose(np.asarray(seen.images[0].get_array()), image)
    assert "6 x 6" in seen.get_title()
    assert occlusion.get_title() == "map (green: never covered)"
    assert draw_explanation(original, image, 0 * image[..., 0], CLASSES, target="cat").axes[3].get_title() == "map"
    assert np.asarray(over.images[0].get_array()).shape == (40, 40, 3), "the part that the network sees"
    assert over.images[0].get_extent() == over.images[1].get_extent()
    np.testing.assert_allclose(np.ma.filled(occlusion.images[0].get_array(), np.nan), drops)
    assert occlusion.images[0].get_clim() == pytest.approx((-0.4, 0.4))
    assert bar.get_ylim() == pytest.approx((-0.4, 0.4))
    assert bar.get_ylabel() == "drop of P(cat)"
    assert [patch.get_width() for patch in bars.patches] == [value for _, value in CLASSES]  # type: ignore[attr-defined]
    names = [label.get_text() for label in bars.get_yticklabels()]
    assert names[:3] == ["automobile", "cat", "<b>$x$</b>"]
    assert names[3].endswith("\N{HORIZONTAL ELLIPSIS}")
    reds = [to_rgb(patch.get_facecolor()[:3]) for patch in bars.patches]  # type: ignore[attr-defined]
    assert [red[0] > 0.7 for red in reds] == [False, True, False, False, False]
    assert bars.get_ylim()[0] > bars.get_ylim()[1], "the likeliest on top"
    assert bars.get_xlabel() == "probability"


def test_nothing_of_an_explanation_is_cut_off_or_covered(image: np.ndarray, drops: np.ndarray) -> None:
    thread = draw_explanation(np.zeros((480, 1, 3)), image, drops, CLASSES, target="cat", box=(0, 239.6, 1, 240.1))
    assert thread.axes[2].images[0].get_size() == (1, 1), "never less than a pixel"
    tall = np.zeros((480, 100, 3), np.uint8)
    figure = draw_explanation(
        tall, image, drops, CLASSES, target=CLASSES[3][0], box=(0, 190, 100, 290), title="t" * 130
    )
    canvas = canvas_of(figure)
    width, height = canvas.get_width_height()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    title = figure.texts[0].get_window_extent()
    for box in (*boxes, title):
        assert box is not None
        assert box.x0 >= 0
        assert box.x1 <= width + 1
        assert box.y0 >= 0
        assert box.y1 <= height
    for one, other in itertools.combinations([*boxes, title], 2):
        assert one is not None
        assert other is not None
        assert not one.overlaps(other)


def test_percentages_are_never_rounded_to_0_or_100() -> None:
    assert [to_percent(value) for value in (0, 0.0001, 0.0005, 0.5, 0.9994, 0.99999, 1)] == [
        *("0.0 %", "<0.1 %", "0.1 %", "50.0 %", "99.9 %", ">99.9 %", "100.0 %"),
    ]
