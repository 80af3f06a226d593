"""Drawing: arrays in, a matplotlib ``Figure`` or an HTML page out. No pyplot, no torch, nothing is saved.

The names are listed in ``__init__.pyi`` and imported on first use, since matplotlib takes about half a second to load.
"""

from lightning_cifar.lazy import attach_stub
from lightning_cifar.plots.inline import show_inline

_get, __dir__, __all__ = attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    value = _get(name)
    show_inline()
    return value
