"""Schedules over the progress of training, on the same axes in all panels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.axes import Axes

from lightning_cifar.plots import draw_regimes

PROGRESS = np.linspace(0, 1, 5)


def curves(count: int) -> dict[str, tuple[object, object]]:
    return {f"regime {i}": (PROGRESS, (1 - PROGRESS) / (i + 1)) for i in range(count)}


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_each_regime_has_a_panel_with_its_points(count: int) -> None:
    given = curves(count)
    figure = draw_regimes(given)
    assert [axes.get_title() for axes in figure.axes] == list(given)
    for axes, (x, y) in zip(figure.axes, given.values(), strict=True):
        (line,) = axes.lines
        assert np.array_equal(line.get_xdata(), 100 * np.asarray(x))
        assert np.array_equal(line.get_ydata(), np.asarray(y))
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes}) == 1
    (left, right), (bottom, top) = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    assert left < 0 < 100 < right
    assert bottom < 0 < 1 < top


@pytest.mark.parametrize("count", [1, 3, 5, 8])
def test_the_outer_panels_name_their_axes(count: int) -> None:
    panels = draw_regimes(curves(count)).axes

    def place(axes: Axes) -> tuple[int, int]:
        spec = axes.get_subplotspec()
        return spec.rowspan.start, spec.colspan.start

    lowest = {
        column: max(place(axes)[0] for axes in panels if place(axes)[1] == column) for _, column in map(place, panels)
    }
    for axes in panels:
        row, column = place(axes)
        assert axes.get_xlabel() == ("training progress (%)" if row == lowest[column] else "")
        assert axes.get_ylabel() == ("learning rate / peak" if column == 0 else "")


def test_one_regime_is_larger() -> None:
    one, two = draw_regimes(curves(1)), draw_regimes(curves(2))
    assert one.get_figwidth() > two.get_figwidth() / 2
    assert one.get_figheight() > two.get_figheight()


def test_the_vertical_axis_can_be_named() -> None:
    assert draw_regimes(curves(1), ylabel="learning rate").axes[0].get_ylabel() == "learning rate"


def test_a_logarithmic_axis_cuts_off_values_near_zero() -> None:
    (axes,) = draw_regimes({"a": (PROGRESS, [0, 1e-9, 0.5, 0.1, 0.01])}, log=True).axes
    bottom, top = axes.get_ylim()
    assert axes.get_yscale() == "log"
    assert 0.5e-4 / 2 < bottom < 0.5e-4
    assert top > 0.5


@pytest.mark.parametrize("log", [False, True])
def test_a_rate_of_zero_throughout_is_drawn(log: bool) -> None:
    draw_regimes({"a": (PROGRESS, np.zeros(5))}, log=log).savefig(io.BytesIO(), format="png")


def test_a_long_name_stays_within_the_picture() -> None:
    figure = draw_regimes(
        {"schedule: cosine, warmup: 0.25, cycles: 12, cycle_mult: 1.25, final_lr: 0.0125": (PROGRESS, PROGRESS)}
    )
    figure.savefig(io.BytesIO(), format="png")
    box = figure.axes[0].title.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert box.y1 <= figure.bbox.height


def test_no_curves_raise() -> None:
    with pytest.raises(ValueError, match="must contain at least one regime"):
        draw_regimes({})
