"""Figures that show names literally, and the colours of curves."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter

COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:olive")


class PlainFigure(Figure):
    r"""A figure that draws every text literally.

    matplotlib parses text between two ``$`` as a formula, and an invalid formula, such as ``$\frac$``, raises an error.
    Names of classes, files and arms may contain it. Tick labels of matplotlib stay formulas, such as powers of ten.
    """

    def draw(self, renderer: RendererBase) -> None:
        """Draw the figure; called when it is saved or rendered."""
        numbers = set()
        for axes in (each for each in self.axes if each.axison):  # hidden axes would create ticks
            for axis in (axes.xaxis, axes.yaxis):
                if not isinstance(axis.get_major_formatter(), FuncFormatter | FixedFormatter):
                    for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                        numbers |= {tick.label1, tick.label2}
        for artist in self.get_children():
            hidden = isinstance(artist, Axes) and not artist.axison
            texts = (
                [each for each in artist.get_children() if isinstance(each, Text)] if hidden else artist.findobj(Text)
            )
            for text in texts:
                if text not in numbers:
                    text.set_parse_math(False)
        super().draw(renderer)
