"""Train convolutional networks on CIFAR-10 and compare training choices.

The public names are listed in ``__init__.pyi``. Each is imported on first use, so that ``import lightning_cifar`` loads
neither torch nor matplotlib.

>>> from lightning_cifar import lr_factor
>>> lr_factor(0.5, schedule="linear")
0.5
"""

from lightning_cifar.lazy import attach_stub

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
__all__ += ["__version__"]
