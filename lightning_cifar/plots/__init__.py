"""Plots: functions take arrays and return a matplotlib ``Figure`` or an HTML page. They do not save files.

The names in ``__init__.pyi`` are imported on first use, since loading matplotlib takes about half a second.
"""

from lightning_cifar.lazy import attach_stub
from lightning_cifar.plots.inline import show_inline

_get, __dir__, __all__ = attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    value = _get(name)
    show_inline()
    return value
