"""Curves show the given points."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lightning_cifar.plots import draw_loss_curves, draw_members_curves

NAN = float("nan")


def lines(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    return {str(line.get_label()): [(x, y) for x, y in np.asarray(line.get_xydata())] for line in axes.lines}


def test_two_panels_side_by_side() -> None:
    figure = draw_loss_curves(
        train_loss=[(1, 2.0), (2, 1.0)],
        val_loss=[(0.5, 3.0), (1, 2.5)],
        train_accuracy=[(1, 0.25), (2, 0.5)],
        val_accuracy=[(1, 0.5), (2, 0.75), (3, 0.75)],
        title="LeNet",
    )
    loss, accuracy = figure.axes
    assert lines(loss) == {"training": [(1, 2.0), (2, 1.0)], "validation": [(0.5, 3.0), (1, 2.5)]}
    assert lines(accuracy) == {
        "training": [(1, 25), (2, 50)],
        "validation": [(1, 50), (2, 75), (3, 75)],
        "best validation 75.00 % (epoch 2)": [(2, 75)],
    }
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("epoch", "loss")
    assert (accuracy.get_xlabel(), accuracy.get_ylabel()) == ("epoch", "accuracy (%)")
    assert figure.get_suptitle() == "LeNet"
    box, other = (axes.get_subplotspec().colspan.start for axes in (loss, accuracy))
    assert box < other
    legend = accuracy.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(lines(accuracy))


@pytest.mark.parametrize("epochs", [1, 2, 7, 100])
def test_epochs_are_whole_numbers(epochs: int) -> None:
    (axes,) = draw_loss_curves(train_loss=[(e, 1 / e) for e in range(1, epochs + 1)]).axes
    ticks = axes.xaxis.get_majorticklocs()
    assert np.array_equal(ticks, np.round(ticks))
    assert 0.5 < axes.get_xlim()[0] <= 1
    assert axes.get_xlim()[0] == 1 or epochs == 1, "the axis begins at the first point"


def test_a_panel_without_points_is_left_out() -> None:
    (axes,) = draw_loss_curves(val_accuracy=[(1, 0.5)]).axes
    assert axes.get_ylabel() == "accuracy (%)"
    (axes,) = draw_loss_curves(val_loss=[(1, 0.5)]).axes
    assert axes.get_ylabel() == "loss"
    (axes,) = draw_loss_curves().axes
    assert not axes.lines


def test_values_that_are_not_finite_are_reported() -> None:
    loss, accuracy = draw_loss_curves(train_loss=[(1, 2.0), (2, NAN), (3, NAN)], val_accuracy=[(1, 0.4), (2, NAN)]).axes
    assert [text.get_text() for text in loss.texts] == ["not finite at epoch 2"]
    assert "best validation 40.00 % (epoch 1)" in lines(accuracy)
    draw_loss_curves(train_loss=[(1, NAN)], val_accuracy=[(1, NAN)]).savefig(io.BytesIO())


def test_the_legend_hides_nothing_and_is_not_cut_off() -> None:
    points = [(e, 1.0) for e in range(1, 101)]
    figure = draw_loss_curves(train_loss=points, val_loss=points, train_accuracy=points, val_accuracy=points, title="a")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, _ = canvas.get_width_height()
    boxes = [(axes.get_window_extent(), axes.get_legend().get_window_extent()) for axes in figure.axes]  # type: ignore[union-attr]
    for panel, legend in boxes:
        assert legend.y0 >= panel.y1
        assert legend.x0 >= 0
        assert legend.x1 <= width
    assert boxes[0][1].x1 < boxes[1][1].x0


def test_members_have_a_colour_each_and_splits_a_style() -> None:
    figure = draw_members_curves(
        {
            "plain": {"train_loss": [(1, 2.0), (2, 1.0)], "val_loss": [(1, 2.5)], "val_accuracy": [(1, 0.5)]},
            "norm": {"train_loss": [(1, 1.0)], "val_loss": [(1, 1.5), (2, 1.25)]},
        },
        title="both",
    )
    loss, accuracy = figure.axes
    drawn = [
        (str(line.get_color()), line.get_linestyle(), np.asarray(line.get_xydata()).tolist()) for line in loss.lines
    ]
    assert drawn == [
        ("C0", "--", [[1, 2.0], [2, 1.0]]),
        ("C0", "-", [[1, 2.5]]),
        ("C1", "--", [[1, 1.0]]),
        ("C1", "-", [[1, 1.5], [2, 1.25]]),
    ]
    assert [np.asarray(line.get_xydata()).tolist() for line in accuracy.lines] == [[[1, 50]]]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["plain", "norm", "validation", "training"]
    assert figure.get_suptitle() == "both"
    assert len(draw_members_curves({"plain": {"train_loss": [(1, 1.0)]}}).axes) == 1
    with pytest.raises(ValueError, match="members is empty"):
        draw_members_curves({})
