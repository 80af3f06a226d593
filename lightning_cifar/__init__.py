"""What a training choice does to a convolutional network on CIFAR-10.

The public names are imported on first use, so that ``import lightning_cifar`` loads neither torch nor matplotlib.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

__all__ = ["__version__", "analysis", "artifacts", "callbacks", "cli", "data", "models", "plots", "schedules"]


def __getattr__(name: str) -> object:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
