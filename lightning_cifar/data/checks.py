"""Range checks of arguments. Every error names the argument and its value."""

from __future__ import annotations


def check_at_least(lowest: int, **values: int | None) -> None:
    """Raise ValueError if one of the values is below ``lowest``; None is allowed.

    >>> check_at_least(1, batch_size=0)
    Traceback (most recent call last):
    ValueError: batch_size (=0) must be at least 1.
    """
    for name, value in values.items():
        if value is not None and value < lowest:
            raise ValueError(f"{name} (={value}) must be at least {lowest}.")


def check_whole(owner: str, lowest: int, **values: int) -> None:
    """Raise TypeError or ValueError if a setting of the augmentation ``owner`` is not an integer from ``lowest`` up."""
    for name, value in values.items():
        if not isinstance(value, int | float):
            raise TypeError(f"{owner}: {name} (={value!r}) must be a number.")
        if isinstance(value, bool | float) or value < lowest:
            raise ValueError(f"{owner}: {name} (={value!r}) must be an integer of at least {lowest}.")


def check_between(owner: str, highest: float = 1, **values: float) -> None:
    """Raise ValueError if a setting of the augmentation ``owner`` is outside [0, ``highest``]."""
    for name, value in values.items():
        if not 0 <= value <= highest:
            raise ValueError(f"{owner}: {name} (={value}) must be between 0 and {highest:g}.")
