"""Class names and displayable pixels, from the attributes of a module or a data module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lightning.pytorch import Trainer
from torch import Tensor

from lightning_cifar.files.text import plain_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def class_names(*owners: object, count: int | None = None, default: str = "") -> list[str]:
    """Return the ``class_names`` of the first object that has them, as printable text.

    They are a list or a tuple, or a mapping with the keys 0 to K - 1. Another attribute of this name, for example a
    method, is ignored.

    Args:
        owners: objects such as the module or the trainer's data module; may be None.
        count: number of classes K; a list of another length is ignored.
        default: format of the names if no object has them, for example ``class {}``; without it the list is empty.
    """
    for owner in owners:
        names = getattr(owner, "class_names", None)
        if isinstance(names, Mapping):
            names = [names[k] for k in range(len(names))] if set(names) == set(range(len(names))) else None
        if isinstance(names, Sequence) and not isinstance(names, str) and len(names) == (count or len(names)):
            return [plain_text(name) for name in names]
    return [default.format(k) for k in range(count or 0)] if default else []


def label_name(names: Sequence[str], label: int, default: str = "{}") -> str:
    """Return the name of a label, or its number in the format ``default`` if it has no name."""
    return names[label] if 0 <= label < len(names) else default.format(label)


def displayable(trainer: Trainer, images: Tensor) -> NDArray[np.float32]:
    """Convert network inputs (N, C, H, W) to pixels (N, H, W, C) in [0, 1].

    The normalization is undone with the ``mean`` and ``std`` of the data module, if it has them.
    """
    from lightning_cifar.plots import to_displayable

    data = getattr(trainer, "datamodule", None)
    images = images.float() if images.is_floating_point() else images  # NumPy has no bfloat16
    return to_displayable(images.cpu().numpy(), getattr(data, "mean", None), getattr(data, "std", None))
