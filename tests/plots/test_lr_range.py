"""Plot and page of the learning-rate finder: curves, marks, limits, and a self-contained page."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_cifar.plots import LRCurve, draw_lr_range, lr_range_html

NAN, INF = float("nan"), float("inf")
LRS = np.geomspace(1e-4, 10, 101)
SMOOTHED = 2.5 - 0.9 / (1 + np.exp(-4 * (np.log10(LRS) + 2)))
LOSSES = SMOOTHED + 0.05 * np.sin(np.arange(101))
MARKS = {"steepest": 0.01, "valley": 0.02, "minimum/10": 0.3, "nothing": NAN}


def curves(count: int = 3) -> list[LRCurve]:
    return [(LRS, LOSSES + 0.01 * i, SMOOTHED + 0.01 * i) for i in range(count)]


def diverging(last: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A sweep whose last five points are ``last``."""
    losses, smoothed = LOSSES.copy(), SMOOTHED.copy()
    losses[-5:] = smoothed[-5:] = last
    return LRS, losses, smoothed


def only_axes(figure: Figure) -> Axes:
    (axes,) = figure.axes
    return axes


def sweep_lines(axes: Axes) -> list[tuple[np.ndarray, np.ndarray]]:
    """Lines in units of the data, in the order in which they were drawn."""
    return [
        (np.asarray(a.get_xdata()), np.asarray(a.get_ydata()))
        for a in axes.lines
        if a.get_transform() == axes.transData
    ]


def mark_places(axes: Axes) -> dict[str, float]:
    return {str(a.get_label()): float(a.get_xdata()[0]) for a in axes.lines if a.get_transform() != axes.transData}  # type: ignore[index]


def legend_texts(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def draw(figure: Figure) -> FigureCanvasAgg:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas


def test_raw_and_smoothed_curves_of_every_seed() -> None:
    figure = draw_lr_range(curves(), seeds=[4, 5, 6], title="resnet18")
    axes = only_axes(figure)
    lines = sweep_lines(axes)
    expected = [(lrs, y) for lrs, losses, smoothed in curves() for y in (losses, smoothed)]
    assert len(lines) == len(expected) == 6
    for (x, y), (want_x, want_y) in zip(lines, expected, strict=True):
        np.testing.assert_array_equal(x, want_x)
        np.testing.assert_array_equal(y, want_y)
    raw, smooth = axes.lines[:2]
    assert raw.get_alpha() is not None
    assert raw.get_alpha() < 0.5  # type: ignore[operator]
    assert smooth.get_linewidth() > raw.get_linewidth()
    assert len({str(line.get_color()) for line in axes.lines}) == 3
    assert legend_texts(figure) == [*(f"smoothed, seed {seed}" for seed in (4, 5, 6)), "single batches"]


def test_axes_are_named_and_the_learning_rate_is_logarithmic() -> None:
    figure = draw_lr_range(curves(), title="resnet18")
    axes = only_axes(figure)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("learning rate", "training loss")
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert figure.get_suptitle() == "resnet18"
    assert tuple(figure.get_size_inches()) == (8, 5)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert left < LRS[0] < LRS[-1] < right
    assert bottom < LOSSES.min() < LOSSES.max() + 0.02 < top
    assert axes.get_title(loc="left") == ""


def test_every_mark_is_at_its_learning_rate() -> None:
    figure = draw_lr_range(curves(1), suggestion=0.02, interval=(0.01, 0.05), marks=MARKS, own_lr=0.1)
    axes = only_axes(figure)
    places = mark_places(axes)
    assert places.pop("nothing: none") is not None
    assert places == {
        "suggestion 0.02": 0.02,
        "steepest 0.01": 0.01,
        "valley 0.02": 0.02,
        "minimum/10 0.3": 0.3,
        "own --model.lr 0.1": 0.1,
    }
    (band,) = axes.patches
    assert band.get_extents().transformed(axes.transData.inverted()).intervalx == pytest.approx((0.01, 0.05))
    assert set(mark_places(axes)) | {"interval 0.01 to 0.05"} <= set(legend_texts(figure))


def test_marks_at_the_same_rate_are_distinguishable() -> None:
    axes = only_axes(draw_lr_range(curves(1), marks={"a": 0.01, "b": 0.01, "c": 0.01}))
    marks = [line for line in axes.lines if line.get_transform() != axes.transData]
    assert len({line.get_marker() for line in marks}) == 3
    assert [line.get_markersize() for line in sorted(marks, key=lambda line: line.get_zorder())] == [16, 11, 6]


def test_markers_sit_on_the_smoothed_curve() -> None:
    axes = only_axes(draw_lr_range([*curves(3), diverging(1e6)], suggestion=0.02, marks=MARKS, own_lr=LRS[-1]))
    low, high = axes.get_ylim()
    marks = [line for line in axes.lines if line.get_transform() != axes.transData]
    for line in marks:
        lr, height = float(np.asarray(line.get_xdata())[1]), float(np.asarray(line.get_ydata())[1])
        if lr == LRS[-1]:
            continue
        if np.isfinite(lr):
            expected = np.interp(np.log10(lr), np.log10(LRS), SMOOTHED + 0.005)  # the median of four
            assert low + height * (high - low) == pytest.approx(expected, abs=1e-6)
    axes = only_axes(draw_lr_range([diverging(1e6)], own_lr=LRS[-2]))
    assert np.asarray(axes.lines[-1].get_ydata())[1] == 1, "above the end of the axis"


def test_an_uncertain_suggestion_is_marked_in_picture_and_page() -> None:
    level = (LRS, np.full(101, 2.3), np.full(101, 2.3))
    doubt = "the loss neither fell nor rose <&>"
    assert doubt in only_axes(draw_lr_range([level], suggestion=0.1, doubt=doubt)).get_title(loc="left")
    assert "the loss neither fell nor rose" in lr_range_html([level], suggestion=0.1, doubt=doubt)


@pytest.mark.parametrize("own_lr", [1e-9, 0.0, -1.0, 50.0, NAN])
def test_a_mark_outside_is_in_the_legend_and_does_not_change_the_limits(own_lr: float) -> None:
    figure = draw_lr_range(curves(1), own_lr=own_lr)
    assert only_axes(figure).get_xlim() == only_axes(draw_lr_range(curves(1))).get_xlim()
    word = "none" if np.isnan(own_lr) else "(outside)"
    assert [text for text in legend_texts(figure) if text.startswith("own --model.lr") and text.endswith(word)]
    draw(figure)


@pytest.mark.parametrize("window", [(1e-2, 1e-1), (1e-3, 1e-1), (2e-3, 3e-2), (1e-9, 1e9)])
def test_the_window_ends_at_the_range_of_the_smoothed_loss_inside(window: tuple[float, float]) -> None:
    axes = only_axes(draw_lr_range(curves(), zoom=window, suggestion=0.02, own_lr=5.0))
    inside = (window[0] * 0.999999 < LRS) & (window[1] * 1.000001 > LRS)
    assert axes.get_xlim() == pytest.approx(window)
    assert axes.get_ylim() == pytest.approx((SMOOTHED[inside].min(), SMOOTHED[inside].max() + 0.02))


def test_both_ends_are_inside_the_window() -> None:
    lrs, losses = [0.1, 0.2, 0.3, 0.4], [9.0, 3.0, 2.0, 9.0]
    axes = only_axes(draw_lr_range([(lrs, [100.0] * 4, losses)], zoom=(0.2, 0.1 + 0.2)))
    assert axes.get_ylim() == (2.0, 3.0)


def test_a_window_on_a_level_curve_has_a_height() -> None:
    bottom, top = only_axes(draw_lr_range([(LRS, LOSSES, np.zeros(101))], zoom=(1e-2, 1e-1))).get_ylim()
    assert bottom < 0 < top


@pytest.mark.parametrize("zoom", [(1e-1, 1e-2), (1e-2, 1e-2), (0.0, 1.0), (-1.0, 1.0), (1e-2, INF), (NAN, 1.0)])
def test_an_invalid_window_raises(zoom: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"zoom \(=.*\) must be two learning rates, 0 < low < high"):
        draw_lr_range(curves(), zoom=zoom)


def test_a_window_without_a_point_raises() -> None:
    with pytest.raises(ValueError, match=r"zoom \(=\(20, 30\)\) contains no point"):
        draw_lr_range(curves(), zoom=(20, 30))
    with pytest.raises(ValueError, match="contains no point"):
        draw_lr_range([diverging(NAN)], zoom=(9, 11))


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_points_that_are_not_finite_are_reported(bad: float) -> None:
    figure = draw_lr_range([diverging(bad), *curves(1)])
    axes = only_axes(figure)
    for _, y in sweep_lines(axes)[:2]:
        assert np.isnan(y[-5:]).all()
        assert np.isfinite(y[:-5]).all()
    assert axes.get_title(loc="left") == f"not finite from learning rate {LRS[-5]:.3g}"
    assert axes.get_ylim() == only_axes(draw_lr_range(curves(1))).get_ylim()
    draw(figure)


def test_a_sweep_without_any_finite_loss_is_drawn() -> None:
    never = np.full(101, NAN)
    figure = draw_lr_range([(LRS, never, never)], suggestion=NAN, interval=(NAN, NAN), own_lr=0.1)
    assert "not finite from learning rate 0.0001" in only_axes(figure).get_title(loc="left")
    assert not only_axes(figure).patches
    draw(figure)
    assert "not finite" in lr_range_html([(LRS, never, never)], suggestion=NAN, interval=(NAN, NAN))


@pytest.mark.parametrize("peak", [12.0, 1e6, 1e300])
def test_a_divergence_leaves_the_fall_readable(peak: float) -> None:
    axes = only_axes(draw_lr_range([diverging(peak)]))
    bottom, top = axes.get_ylim()
    fall = SMOOTHED[0] - SMOOTHED.min()
    assert 0.55 < fall / (top - bottom) < 0.7
    assert axes.get_title(loc="left") == f"cut off at {top:.3g}: the loss reaches {peak:.3g}"


def test_a_modest_rise_is_shown_whole() -> None:
    axes = only_axes(draw_lr_range([diverging(2.8)]))
    assert axes.get_ylim()[1] > 2.8
    assert axes.get_title(loc="left") == ""


@pytest.mark.parametrize("level", [0.0, 2.3])
def test_level_and_rising_curves_and_single_points_are_drawn(level: float) -> None:
    same = np.full(101, level)
    for curve in ((LRS, same, same), (LRS, same + LRS, same + LRS), ([0.1], [level], [level])):
        figure = draw_lr_range([curve])
        bottom, top = only_axes(figure).get_ylim()
        assert bottom < np.asarray(curve[2])[0] < top
        draw(figure)


def test_many_seeds_share_one_line_in_the_legend() -> None:
    figure = draw_lr_range(curves(20))
    assert legend_texts(figure) == ["smoothed, 20 seeds", "single batches"]
    assert len(sweep_lines(only_axes(figure))) == 40


@pytest.mark.parametrize("name", ["rule", "a rule with a name that is somewhat long", "x" * 80])
def test_the_legend_hides_nothing_and_is_not_cut_off(name: str) -> None:
    marks = {f"{name} {i}": 0.01 * (i + 1) for i in range(5)}
    figure = draw_lr_range(
        [*curves(2), diverging(1e6)], suggestion=0.02, interval=(0.01, 0.05), marks=marks, own_lr=1e-9, title="a title"
    )
    canvas = draw(figure)
    width, _ = canvas.get_width_height()
    (legend,) = figure.legends
    box, panel = legend.get_window_extent(), only_axes(figure).get_tightbbox()
    assert panel is not None
    assert box.y1 <= panel.y0
    assert box.y0 >= 0
    assert 0 <= box.x0 < box.x1 <= width
    assert only_axes(figure).get_window_extent().height > 120


def test_names_are_not_formulas() -> None:
    name = r"$\broken{ _x_ $"
    figure = draw_lr_range(curves(1), marks={name: 0.01}, title=name)
    figure.savefig(io.BytesIO(), format="png")
    assert figure.get_suptitle() == name
    assert f"{name} 0.01" in legend_texts(figure)


@pytest.mark.parametrize("function", [draw_lr_range, lr_range_html])
def test_invalid_sweeps_raise(function) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="must contain at least one sweep"):
        function([])
    with pytest.raises(ValueError, match="2 seeds do not match 3 curves"):
        function(curves(), seeds=[1, 2])
    with pytest.raises(ValueError, match=r"three arrays \(N,\) with N > 0, but that of seed 7"):
        function([(LRS, LOSSES[:-1], SMOOTHED)], seeds=[7])
    with pytest.raises(ValueError, match="with N > 0"):
        function([([], [], [])])
    with pytest.raises(ValueError, match="a learning rate above 0"):
        function([([0, -1], [1, 1], [1, 1])])


def test_the_given_arrays_do_not_change() -> None:
    given = diverging(INF)
    before = [part.copy() for part in given]
    draw_lr_range([given])
    lr_range_html([given])
    assert all(np.array_equal(a, b) for a, b in zip(given, before, strict=True))


class Tags(HTMLParser):
    """Addresses in the tags of the page, and the text of its title."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.names: list[str] = []
        self.title = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "data", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        if self.names and self.names[-1] == "title" and not self.title:
            self.title = data


def plot_of(page: str) -> tuple[list[dict[str, object]], dict[str, object], dict[str, object]]:
    """Traces, layout and configuration that the page passes to plotly.js."""
    text = page[page.rindex("Plotly.newPlot(") :]
    decoder, found, place = json.JSONDecoder(), [], text.index('"lr-range"') + len('"lr-range"')
    for _ in range(3):
        place = re.compile(r"[\s,]*").match(text, place).end()  # type: ignore[union-attr]
        value, place = decoder.raw_decode(text, place)
        found.append(value)
    return found[0], found[1], found[2]


@pytest.fixture(scope="module")
def page() -> str:
    return lr_range_html(
        [*curves(2), diverging(1e6)],
        suggestion=0.02,
        interval=(0.01, 0.05),
        marks=MARKS,
        own_lr=0.1,
        seeds=[4, 5, 6],
        title="resnet18",
    )


def test_the_page_is_self_contained(page: str) -> None:
    tags = Tags(page)
    assert tags.addresses == []
    assert tags.title == "resnet18"
    assert not {"link", "img", "iframe", "object", "base"} & set(tags.names)
    assert "default-src 'none'" in page
    assert len(page.encode()) < 6e6


def test_the_page_offers_no_upload(page: str) -> None:
    _, _, config = plot_of(page)
    assert config["showSendToCloud"] is False
    assert config["displaylogo"] is False
    assert "plotlyServerURL" not in config


def test_the_page_contains_every_curve_and_mark(page: str) -> None:
    traces, layout, _ = plot_of(page)
    shapes = layout["shapes"]
    assert isinstance(shapes, list)
    assert [trace["name"] for trace in traces] == [
        *(f"{kind}, seed {seed}" for seed in (4, 5, 6) for kind in ("loss", "smoothed")),
        "nothing: none",
    ]
    assert {shape["name"]: (shape["x0"], shape["x1"]) for shape in shapes} == {
        "interval 0.01 to 0.05": (0.01, 0.05),
        "suggestion 0.02": (0.02, 0.02),
        "steepest 0.01": (0.01, 0.01),
        "valley 0.02": (0.02, 0.02),
        "minimum/10 0.3": (0.3, 0.3),
        "own --model.lr 0.1": (0.1, 0.1),
    }
    assert all(shape["showlegend"] for shape in shapes)


def test_plotly_knows_every_name_that_is_used(page: str) -> None:
    from plotly.graph_objects import Figure as PlotlyFigure

    traces, layout, _ = plot_of(page)
    PlotlyFigure(data=traces, layout=layout)


@pytest.mark.parametrize(
    "name", ["</script><script>bad()</script>", "<b>&amp;</b>", "<a href='https://a.example'>x</a>"]
)
def test_markup_in_names_is_escaped(name: str) -> None:
    page = lr_range_html(curves(1), marks={name: 0.01}, title=name)
    assert Tags(page).names.count("script") == Tags(lr_range_html(curves(1))).names.count("script")
    assert name not in page[page.rindex("Plotly.newPlot(") :]
    assert Tags(page).addresses == []
    assert Tags(page).title == name


def test_the_cut_off_button_exists_only_for_a_cut_curve() -> None:
    def buttons(curve: LRCurve) -> int:
        menus = plot_of(lr_range_html([curve]))[1]["updatemenus"]
        assert isinstance(menus, list)
        return len(menus)

    assert buttons(curves(1)[0]) == 2
    assert buttons(diverging(1e6)) == 3


def test_plotly_is_loaded_on_use_only() -> None:
    code = (
        "import sys, lightning_cifar.plots.pages.lr_range_page; print('plotly' in sys.modules, 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]
