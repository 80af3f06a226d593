"""Two of one callback in a trainer."""

from __future__ import annotations

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_warn


def warn_of_twins(trainer: Trainer, callback: Callback) -> None:
    """Say once, for the first of them, that callbacks of one kind and ``name`` write over each other's files.

    Those with a state need no word: Lightning refuses two with the same ``state_key``.
    """
    name = getattr(callback, "name", None)
    twins = [
        other
        for other in trainer.callbacks  # type: ignore[attr-defined]
        if type(other) is type(callback) and getattr(other, "name", None) == name
    ]
    if len(twins) > 1 and twins[0] is callback:
        remedy = "keep one" if name is None else "give each a name of its own"
        rank_zero_warn(
            f"{type(callback).__name__}: there are {len(twins)}, which write over each other's files: {remedy}."
        )
