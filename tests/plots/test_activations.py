"""Plots of activations show the given values."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest

from lightning_cifar.plots import (
    DensityCurve,
    DensityPanel,
    MomentCurve,
    MomentPanel,
    animate_densities,
    draw_densities,
    draw_moments,
    draw_ridges,
)
from lightning_cifar.plots.wrapping import wrap

EDGES = np.linspace(-1, 1, 5)


def panel(steps: int = 3, title: str = "norm_2", **kwargs: object) -> DensityPanel:
    heights = np.arange(steps * 4, dtype=float).reshape(steps, 4) / 10
    return DensityPanel(title, EDGES, [DensityCurve("plain", heights, **kwargs), DensityCurve("normed", heights[::-1])])


def test_the_last_step_is_drawn_as_given() -> None:
    figure = draw_densities([panel(), panel(title="norm_1")], title="after 3 steps")
    assert figure.get_suptitle() == "after 3 steps"
    (axes, other) = figure.axes
    for patch, heights in zip(axes.patches, ([0.8, 0.9, 1.0, 1.1], [0.0, 0.1, 0.2, 0.3]), strict=True):
        np.testing.assert_allclose(patch.get_data().values, heights)
        np.testing.assert_array_equal(patch.get_data().edges, EDGES)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["plain", "normed"]
    assert axes.get_legend().get_title().get_text() == "norm_2"
    assert other.get_legend().get_title().get_text() == "norm_1"
    assert axes.get_xlabel() == "activation"
    assert "density" in axes.get_ylabel()
    assert axes.get_xlim() == (-1, 1)


def test_the_axes_of_an_animation_are_fixed() -> None:
    figures, limits, titles = [], [], []
    for figure in animate_densities([panel()], titles=["a", "b", "c"]):
        figures.append(figure)
        limits.append((*figure.axes[0].get_ylim(), *figure.axes[0].get_xlim(), *figure.axes[0].get_position().bounds))
        titles.append((figure.get_suptitle(), figure.axes[0].patches[0].get_data().values[0]))
    assert figures[0] is figures[2]
    assert limits[0] == limits[1] == limits[2]
    assert titles == [("a", 0.0), ("b", 0.4), ("c", 0.8)]


def test_notes_change_without_changing_the_height_of_the_legend() -> None:
    notes = ["", "20 % exactly zero", ""]
    texts = [
        figure.axes[0].get_legend().get_texts()[0].get_text()
        for figure in animate_densities([panel(notes=notes)], titles=["", "", ""])
    ]
    assert texts == ["plain\n ", "plain\n20 % exactly zero", "plain\n "]


def test_the_legend_states_the_height_of_a_cut_peak() -> None:
    heights = np.ones((10, 4))
    heights[3, 2] = 50
    curve = DensityCurve("plain", heights)
    figures = animate_densities([DensityPanel("", EDGES, [curve])], titles=[""] * 10)
    texts = [figure.axes[0].get_legend().get_texts()[0].get_text().strip() for figure in figures]
    assert texts == ["plain"] * 3 + ["plain\npeak 50"] + ["plain"] * 6


def test_ridges_stand_on_their_rows() -> None:
    figure = draw_ridges([panel(30)], range(0, 300, 10), title="over time")
    assert len(figure.axes) == 2  # a curve each
    axes = figure.axes[0]
    assert len(axes.lines) == 24  # of thirty, with the first and the last
    top = axes.lines[-1].get_ydata() - 23
    first = axes.lines[0].get_ydata()
    assert (first >= 0).all()
    assert top[-1] / first[-1] == pytest.approx(11.9 / 0.3)
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert (labels[0], labels[-1]) == ("0", "290")
    assert axes.get_xlim() == figure.axes[1].get_xlim()
    assert axes.get_ylabel() == "step"


def test_a_ridge_states_the_share_outside() -> None:
    figure = draw_ridges([panel(note="up to 2 % outside")], [0, 1, 2])
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "plain\nup to 2 % outside"


def test_moments() -> None:
    curve = MomentCurve("dropped", [1, 2], [3, 4], [0.25, 0.5], kept=[1, 0.8], color=1)
    figure = draw_moments([MomentPanel("place", [MomentCurve("plain", [0, 0], [1, 1], [0, 0]), curve])], [0, 50])
    mean, std, silent, kept = figure.axes
    assert mean.lines[1].get_xydata().tolist() == [[0, 1], [50, 2]]
    assert std.lines[1].get_ydata().tolist() == [3, 4]
    assert silent.lines[1].get_ydata().tolist() == [25, 50]
    assert [line.get_ydata().tolist() for line in kept.lines] == [[100, 80]]
    assert [axes.get_ylabel().split(" (")[0] for axes in figure.axes] == [
        "mean",
        "standard deviation",
        "silent units",
        "values kept",
    ]
    assert len(draw_moments([MomentPanel("", [curve._replace(kept=None)])], [0, 50]).axes) == 3


def test_long_titles_and_labels_stay_inside() -> None:
    name = "network.stage_4.block_2.shortcut.normalisation (BatchNorm2d), evaluation mode"
    title = "after 3 steps\nloss: " + ", ".join(f"member_{index} 0.1234" for index in range(9))
    panels = [panel(title=name)] * 2
    for figure in (draw_densities(panels, title=title), draw_ridges(panels, [0, 1, 2], title="over 2 steps")):
        figure.draw_without_rendering()
        boxes = [axes.get_legend().get_window_extent() for axes in figure.axes]
        for box, other in pairwise(boxes):
            assert box.x1 <= other.x0 + 1
        for box in (*boxes, figure._suptitle.get_window_extent()):
            assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
            assert box.y1 <= figure.bbox.y1


def test_lines_do_not_break_between_a_name_and_its_value() -> None:
    title = "loss on 256 validation samples: " + ", ".join(f"member_{index} 0.{index}" for index in range(9))
    panels = [panel(title="network.norm (BatchNorm2d)")] * 2
    for width in range(20, 100):
        lines = wrap(f"{title}, up to 0.2 % outside", width).split("\n")
        assert not any(re.match(r"[\d%]", line) for line in lines)
        assert max(map(len, lines)) <= width
    moments = MomentCurve("plain", [0], [1], [0])
    for figure in (draw_densities(panels, title=title), draw_moments([MomentPanel("", [moments])], [0], title=title)):
        assert "\n" in figure.get_suptitle()
        assert not re.search(r"\n\d", figure.get_suptitle())


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="nothing to draw: 0 panels, 1 steps"):
        draw_densities([])
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_moments([], [])
    with pytest.raises(ValueError, match=r"heights of 'plain' are \(3, 4\) and must be \(steps, bins\) = \(2, 4\)"):
        draw_ridges([panel()], [0, 1])
    with pytest.raises(ValueError, match="2 notes of 'plain' do not match 3 steps"):
        draw_ridges([panel(notes=["", ""])], [0, 1, 2])
