"""Pictures of filters: positions, colours, texts, and no pyplot."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lightning_cifar.plots.animation import encode_animation
from lightning_cifar.plots.filters import draw_filter_frame, draw_filters

MAGENTA = (255, 0, 255)


def ramp(K: int, C: int, R: int = 2, S: int = 3) -> NDArray[np.float32]:
    """Filters (K, C, R, S) of numbers from 0 to 1, all different."""
    return np.linspace(0, 1, K * C * R * S, dtype=np.float32).reshape(K, C, R, S)


def frame(values: NDArray[np.float32], **options: object) -> NDArray[np.uint8]:
    return draw_filter_frame(values, **({"color": False, "title": "epoch 1"} | options))  # type: ignore[arg-type]


def contents(figure: Figure) -> list[NDArray[np.uint8]]:
    """The sheets of a figure, without its colour bar."""
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def distinct(pixels: NDArray[np.uint8]) -> list[tuple[int, ...]]:
    """Colours in the order in which they first appear, row by row."""
    return list(dict.fromkeys(map(tuple, pixels.reshape(-1, 3).tolist())))


def test_in_colour_a_filter_is_one_picture() -> None:
    values = ramp(5, 3)
    (sheet,) = contents(draw_filters(values, color=True, columns=4))
    expected = np.rint(values.transpose(0, 2, 3, 1) * 255)
    cell = 3 * 13 + 2, 2 * 13 + 2  # 40 / 3 is 13 pixels each, and a gap of two
    for k in range(5):
        x, y = k % 4 * cell[0] + 2, k // 4 * cell[1] + 2
        assert np.array_equal(sheet[y : y + 26 : 13, x : x + 39 : 13], expected[k])
    assert sheet.shape == (2 * cell[1] + 2, 4 * cell[0] + 2, 3)


def test_alexnet_is_four_rows_of_sixteen() -> None:
    values = np.random.default_rng(0).random((64, 3, 11, 11), dtype=np.float32)
    figure = draw_filters(values, color=True)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["0", "16", "32", "48"]
    assert len(axes.get_xticklabels()) == 16
    figure = draw_filters(values, color=False, limit=0.5)
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == [f"input channel {i}" for i in range(3)]


def test_single_channels_are_grey_on_their_own_scales_and_diverging_on_a_shared_one() -> None:
    values = np.array([0, 0.25, 0.5, 0.75, 1], np.float32).reshape(1, 1, 1, 5)
    (sheet,) = contents(draw_filters(values, color=False))
    middle = sheet[sheet.shape[0] // 2]
    np.testing.assert_allclose(distinct(middle)[1:], [(v, v, v) for v in (0, 64, 128, 191, 255)], atol=1)
    (sheet,) = contents(draw_filters(values, color=False, limit=0.3))
    low, lower, zero, higher, high = (np.array(c, int) for c in distinct(sheet[sheet.shape[0] // 2])[1:])
    assert np.ptp(zero) <= 2  # neither red nor blue
    assert zero.min() > 240
    for blue, red in ((low, high), (lower, higher)):
        assert blue[2] > blue[0]
        assert red[0] > red[2]


def test_each_input_channel_has_its_sheet() -> None:
    values = ramp(2, 3, 1, 1)
    sheets = contents(draw_filters(values, color=False))
    greys = [[color[0] for color in distinct(sheet)[1:]] for sheet in sheets]
    np.testing.assert_allclose(np.array(greys).T.ravel(), np.linspace(0, 255, 6), atol=1.5)


def test_the_colour_bar() -> None:
    figure = draw_filters(ramp(3, 1), color=False, limit=0.25)
    bar = figure.axes[-1]
    assert bar.get_xlim() == (-0.25, 0.25)
    assert bar.get_xlabel() == "weight"
    bar = draw_filters(ramp(3, 1), color=False).axes[-1]
    assert [text.get_text() for text in bar.get_xticklabels()] == ["lowest", "highest"]
    assert "each filter" in bar.get_xlabel()
    bar = draw_filters(ramp(3, 3), color=True, limit=2).axes[-1]
    assert (bar.get_xlim(), bar.get_xlabel()) == ((-2, 2), "weight, of red, green and blue alike")
    figure = draw_filters(ramp(3, 3), color=True)
    assert len(figure.axes) == 1  # colours show no single value
    assert "from its lowest to its highest weight" in figure.axes[0].get_xlabel()


@pytest.mark.parametrize("columns", [3, 16])
@pytest.mark.parametrize("limit", [0.3, None])
@pytest.mark.parametrize(("K", "C", "color"), [(64, 3, True), (20, 1, False), (4, 5, False)])
def test_no_text_is_clipped_or_overlaps(K: int, C: int, color: bool, limit: float | None, columns: int) -> None:
    title = "Net, layer.0: 6 filters\nafter 3 epochs, step 30"
    figure = draw_filters(ramp(K, C, 5, 5), color=color, limit=limit, columns=columns, title=title)
    figure.savefig(io.BytesIO(), format="png")
    room = figure.bbox
    texts = [axes.xaxis.label for axes in figure.axes] + [figure.texts[0]] + [axes._left_title for axes in figure.axes]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    for index, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= room.x1
        assert box.y1 <= room.y1
        assert not any(box.overlaps(other) for other in boxes[:index])


def test_a_frame_shows_the_filters_in_their_positions() -> None:
    values = ramp(10, 3)
    pixels = frame(values, color=True)
    assert pixels.shape[1] == 500
    scale = ((500 - 20) // 8 - 4) // 3
    for k in range(10):
        x, y = 8 + 4 + k % 8 * (3 * scale + 4), 52 + 4 + k // 8 * (2 * scale + 4)
        block = pixels[y : y + 2 * scale : scale, x : x + 3 * scale : scale]
        assert np.array_equal(block, np.rint(values[k].transpose(1, 2, 0) * 255))


def test_frames_have_the_same_size() -> None:
    values = ramp(6, 2)
    shapes = {
        frame(values * factor, title=title, subtitle=subtitle, limit=1.0).shape
        for factor, title, subtitle in ((1, "", ""), (0.5, "epoch 100, step 99999", "x" * 300), (np.nan, "e", "s"))
    }
    assert len(shapes) == 1


@pytest.mark.parametrize("limit", [None, 0.125])
def test_frames_of_single_channels_fit_into_the_colors_of_a_gif(limit: float | None) -> None:
    values = np.random.default_rng(0).random((32, 3, 7, 7), dtype=np.float32)
    pixels = frame(values, title="epoch 3, step 1056, validation accuracy 54.4 %", subtitle="Net", limit=limit)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) <= 256


def test_the_title_is_drawn_and_a_long_one_is_cut_not_clipped() -> None:
    values = ramp(4, 3)
    blank = frame(values, title="", color=True)
    short, long = (frame(values, title=text, color=True) for text in ("epoch 3", "epoch 3 " * 40))
    assert np.array_equal(blank[52:], short[52:])
    changed = np.flatnonzero((blank != short).any(axis=(0, 2)))
    assert changed.min() >= 8
    assert changed.max() < 100
    changed = np.flatnonzero((blank != long).any(axis=(0, 2)))
    assert 400 < changed.max() < 492


def test_the_scale_is_below_the_pictures() -> None:
    values = ramp(4, 1)
    pair = [frame(values, limit=limit) for limit in (0.1, 0.2)]
    rows = np.flatnonzero((pair[0] != pair[1]).any(axis=(1, 2)))
    assert rows.min() > pair[0].shape[0] - 42  # the pictures are the same: the numbers at the bar differ
    assert len(rows)


def test_values_that_are_not_finite_are_magenta() -> None:
    values = ramp(2, 3)
    values[1, 2, 0, 0] = np.nan
    for color in (True, False):
        pixels = frame(values, color=color)
        share = (pixels == MAGENTA).all(axis=-1)
        scale = share.any(axis=0).sum()
        assert share.sum() == scale**2  # one enlarged pixel
        assert MAGENTA in distinct(contents(draw_filters(values, color=color))[-1])
    assert MAGENTA not in distinct(frame(ramp(2, 3), color=True))


def test_many_or_large_kernels_stay_within_the_limits_of_webp() -> None:
    assert max(frame(ramp(1, 32, 5, 5)).shape) <= 16383
    assert max(frame(ramp(256, 1, 11, 11), columns=1).shape) <= 16383
    assert frame(ramp(64, 1, 20, 20), columns=64).shape[1] == 64 * 24 + 4 + 16  # wider than asked for: not shrunk away


@pytest.mark.parametrize("draw", [frame, draw_filters])
def test_other_shapes_raise(draw: object) -> None:
    for values, color, message in (
        (np.zeros((2, 3, 4)), False, r"filters must be \(K, C, R, S\), not \(2, 3, 4\)"),
        (np.zeros((0, 3, 4, 4)), False, r"not \(0, 3, 4, 4\)"),
        (np.zeros((2, 4, 3, 3)), True, "filters in colour need 3 input channels, not 4"),
    ):
        with pytest.raises(ValueError, match=message):
            draw(values, color=color)  # type: ignore[operator]


def test_pyplot_is_never_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it is an error from here
    draw_filters(ramp(2, 1), color=False, limit=1.0).savefig(io.BytesIO(), format="png")
    encode_animation([0], lambda _: [frame(ramp(2, 1))], 0.2)
