"""Names of classes, wherever a module or a data module has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning_cifar.files.text import plain_text


def class_names(*owners: object, count: int | None = None) -> list[str]:
    """The ``class_names`` of the first owner that has some, as printable text; empty where nobody has.

    A list or a tuple, or a mapping from numbers, which must be 0 to K - 1. A stranger may keep something else under
    that name, a method for example, which is passed over.

    Args:
        owners: such as the module, or the trainer's data module, which may be None.
        count: K, where it is known: so many, or none.
    """
    for owner in owners:
        names = getattr(owner, "class_names", None)
        if isinstance(names, Mapping):
            names = [names[k] for k in range(len(names))] if set(names) == set(range(len(names))) else None
        if isinstance(names, Sequence) and not isinstance(names, str) and len(names) == (count or len(names)):
            return [plain_text(name) for name in names]
    return []
