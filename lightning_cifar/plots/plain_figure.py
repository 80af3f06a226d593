"""Figures that show names as they are."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter


class PlainFigure(Figure):
    r"""A figure that draws every text as it is.

    matplotlib takes what is between two ``$`` for a formula, and a formula that it cannot read, such as ``$\frac$``,
    ends the drawing: names of classes, files and arms may hold it. Numbers that matplotlib writes at an axis by itself
    stay formulas, such as powers of ten.
    """

    def draw(self, renderer: RendererBase) -> None:
        """Draw the figure; called wherever it is saved or becomes pixels."""
        numbers = set()
        for axes in (each for each in self.axes if each.axison):  # without axes, asking for ticks would make them
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
