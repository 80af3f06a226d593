"""Figures become frames."""

import numpy as np
from matplotlib.figure import Figure

from lightning_cifar.plots import to_frames


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
