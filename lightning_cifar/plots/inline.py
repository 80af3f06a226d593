"""Figures below the cell of a notebook. IPython shows them only to those who import pyplot, and nothing here does."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FIGURE = "matplotlib.figure.Figure"
_DPI = 120  # as files have it


def show_inline() -> None:
    """Have IPython draw a ``Figure`` that ends a cell, where it runs and does not draw it already."""
    asked = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = asked() if asked is not None else None
    if shell is None:
        return
    formatter = shell.display_formatter.formatters["image/png"]
    try:
        formatter.lookup_by_type(_FIGURE)  # of %matplotlib inline
    except KeyError:
        formatter.for_type_by_name(*_FIGURE.rsplit(".", 1), to_png)


def to_png(figure: Figure) -> bytes:
    """A figure as it is saved."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()
