"""Drawing: arrays in, a matplotlib ``Figure`` or an HTML page out. No pyplot, no torch, nothing is saved.

The names are imported on first use, since matplotlib takes about half a second to load.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_cifar.plots.classification import draw_confusion
    from lightning_cifar.plots.curves import Curve, draw_loss_curves
    from lightning_cifar.plots.image_grid import draw_image_grid, to_displayable
    from lightning_cifar.plots.lr_range import LRCurve, draw_lr_range, lr_range_html
    from lightning_cifar.plots.regimes import draw_regimes

_HOME = {
    "Curve": "curves",
    "LRCurve": "lr_range",
    "draw_confusion": "classification",
    "draw_image_grid": "image_grid",
    "draw_loss_curves": "curves",
    "draw_lr_range": "lr_range",
    "draw_regimes": "regimes",
    "lr_range_html": "lr_range",
    "to_displayable": "image_grid",
}

__all__ = [
    "Curve",
    "LRCurve",
    "draw_confusion",
    "draw_image_grid",
    "draw_loss_curves",
    "draw_lr_range",
    "draw_regimes",
    "lr_range_html",
    "to_displayable",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
