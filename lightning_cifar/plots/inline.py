"""Figures in notebooks: IPython shows them only with pyplot, which this package does not import."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FIGURE = "matplotlib.figure.Figure"
_DPI = 120  # as in files


def show_inline() -> None:
    """Let a running IPython draw a ``Figure`` at the end of a cell, unless it already does."""
    asked = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = asked() if asked is not None else None
    if shell is None:
        return
    formatter = shell.display_formatter.formatters["image/png"]
    try:
        formatter.lookup_by_type(_FIGURE)  # set by %matplotlib inline
    except KeyError:
        formatter.for_type_by_name(*_FIGURE.rsplit(".", 1), to_png)


def to_png(figure: Figure) -> bytes:
    """Encode a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()
