"""Figures become frames and files."""

import io

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from lightning_cifar.plots import to_frames
from lightning_cifar.plots.rendering import to_png


def test_frames_show_the_figure_at_that_moment() -> None:
    def figures():
        figure = Figure(figsize=(2, 1), dpi=50)
        for color in ("red", "blue"):
            figure.set_facecolor(color)
            yield figure
        assert figure.dpi == 50

    frames = list(to_frames(figures(), dpi=100))
    assert [frame.shape for frame in frames] == [(100, 200, 3)] * 2
    assert [tuple(frame[0, 0]) for frame in frames] == [(255, 0, 0), (0, 0, 255)]
    assert frames[0].dtype == np.uint8
    assert not list(to_frames([]))


def test_a_png_has_the_pixels_of_matplotlib() -> None:
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1e4])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    with Image.open(buffer) as expected, Image.open(io.BytesIO(to_png(figure, 100))) as found:
        assert np.array_equal(np.asarray(found), np.asarray(expected)[..., :3])
    assert figure.dpi == 100
