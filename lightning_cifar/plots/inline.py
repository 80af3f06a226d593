"""Figures in notebooks: IPython shows them only with pyplot, which this package does not import."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FIGURE = "matplotlib.figure.Figure"


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
        formatter.for_type_by_name(*_FIGURE.rsplit(".", 1), _encode)


def _encode(figure: Figure) -> bytes:
    from lightning_cifar.plots.rendering import to_png  # imports matplotlib

    return to_png(figure)
