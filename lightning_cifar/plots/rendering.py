"""Rendering of figures as pixels, and as PNG files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def to_frames(figures: Iterable[Figure], *, dpi: float = 90) -> Iterator[Pixels]:
    """Render figures as pixels (H, W, 3), one at a time."""
    return (to_pixels(figure, dpi) for figure in figures)


def to_pixels(figure: Figure, dpi: float = 90) -> Pixels:
    """Render a figure as pixels (H, W, 3)."""
    before = figure.dpi
    figure.set_dpi(dpi)
    try:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
    finally:
        figure.set_dpi(before)


def to_png(figure: Figure, dpi: float = 120) -> bytes:
    """Encode a figure as PNG.

    ``figure.savefig`` takes longer: it draws a figure with a layout engine two times, and compresses more.
    """
    buffer = io.BytesIO()
    Image.fromarray(to_pixels(figure, dpi)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
