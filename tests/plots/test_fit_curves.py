"""Curves and points are drawn as given, on fixed axes."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_cifar.plots import FitCurve, FitPicture, FitPoints, animate_fits, draw_fit, draw_fit_sheet

X = np.linspace(-1, 1, 5)
CURVES = np.stack([X * slope for slope in (0.0, 0.5, 1.0)])
POINTS = [FitPoints("training points", [-0.8, 0.3], [-1.0, 0.2]), FitPoints("validation points", [0.5], [1.5])]


def picture(**band: object) -> FitPicture:
    return FitPicture(X, [FitCurve("plain", CURVES), FitCurve("dropout", -CURVES, **band)], POINTS, "± 2 sd")


def test_the_last_step() -> None:
    figure = draw_fit(picture(), title="after 3 steps")
    (axes,) = figure.axes
    assert axes.get_title() == "after 3 steps"
    np.testing.assert_allclose(axes.lines[0].get_xydata(), np.column_stack([X, X]))
    np.testing.assert_allclose(axes.lines[1].get_ydata(), -X)
    np.testing.assert_allclose(axes.collections[0].get_offsets(), [[-0.8, -1.0], [0.3, 0.2]])
    np.testing.assert_allclose(axes.collections[1].get_offsets(), [[0.5, 1.5]])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "training points",
        "validation points",
        "plain",
        "dropout",
    ]


def test_the_axes_are_fixed_and_contain_the_points() -> None:
    limits, values = [], []
    for figure in animate_fits(picture(), titles=["a", "b", "c"]):
        axes = figure.axes[0]
        limits.append((*axes.get_xlim(), *axes.get_ylim(), *axes.get_position().bounds))
        values.append(axes.lines[0].get_ydata()[-1])
    assert limits[0] == limits[1] == limits[2]
    assert values == [0, 0.5, 1]
    assert limits[0][2] < -1
    assert limits[0][3] > 1.5


def test_a_diverged_curve_does_not_change_the_axes() -> None:
    wild = FitPicture(X, [FitCurve("wild", [[1e6, 0, np.nan, 0, -1e6]])], POINTS)
    low, high = draw_fit(wild).axes[0].get_ylim()
    assert -3 < low < high < 3


def test_a_band() -> None:
    for figure in animate_fits(picture(low=CURVES - 1, high=CURVES + 2), titles=["", "", ""]):
        (polygon,) = figure.axes[0].collections[2].get_paths()
    corners = polygon.vertices
    np.testing.assert_allclose(corners[: len(X)], np.column_stack([X, X - 1]))
    np.testing.assert_allclose(corners[len(X)], [1, 3])
    assert "dropout: ± 2 sd" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_sheet() -> None:
    figure = draw_fit_sheet(picture(), titles=["one", "two", "three"])
    assert [axes.get_title() for axes in figure.axes] == ["one", "two", "three"]
    assert [axes.lines[0].get_ydata()[-1] for axes in figure.axes] == [0, 0.5, 1]
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    assert len(draw_fit_sheet(picture(), titles=["one", "two", "three"]).legends[0].get_texts()) == 4


def test_long_titles_stay_inside() -> None:
    title = "after 3 steps, " + ", ".join(f"member_{index} 0.1234" for index in range(9))
    figure = draw_fit(picture(), title=title)
    figure.draw_without_rendering()
    box = figure.axes[0].title.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert box.y1 <= figure.bbox.y1
    assert figure.axes[0].get_title().replace("\n", " ") == title


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="nothing to draw: 0 curves, 1 steps"):
        draw_fit(FitPicture(X, [], POINTS))
    with pytest.raises(ValueError, match=r"values of 'plain' are \(3, 5\) and must be \(T, G\) = \(2, 5\)"):
        next(animate_fits(picture(), titles=["", ""]))
    with pytest.raises(ValueError, match=r"values of 'dropout' are \(1, 5\)"):
        draw_fit_sheet(picture(low=CURVES[:1], high=CURVES), titles=["", "", ""])
