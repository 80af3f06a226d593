"""The loggers of a run: TensorBoard and metrics.csv in its folder, and the user's own, wherever they write.

Those of the folder are Lightning's, with hyper-parameters that any YAML reader understands.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger


class RunCSVLogger(CSVLogger):
    """Writes ``metrics.csv`` and ``hparams.yaml``."""

    def log_hyperparams(self, params: dict[str, Any] | Namespace | None = None) -> None:
        super().log_hyperparams(plain_values(params))


class RunTensorBoardLogger(TensorBoardLogger):
    """Writes TensorBoard's events and ``hparams.yaml``."""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        super().log_hyperparams(plain_values(params), *args, **kwargs)


def plain_values(value: Any) -> Any:
    """Values that ``yaml.safe_load`` gives back: tuples become lists, and objects of other kinds their text.

    >>> plain_values({"hidden": (120, 84), "lr": 0.1, "kind": int})
    {'hidden': [120, 84], 'lr': 0.1, 'kind': "<class 'int'>"}
    """
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): plain_values(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_values(each) for each in value]
    if isinstance(value, Enum):
        return plain_values(value.value)
    return value if type(value) in (bool, int, float, str, type(None)) else str(value)


def run_loggers(
    folder: Path, given: Logger | Iterable[Logger] | bool | None, purge_step: int | None
) -> list[Logger] | bool:
    """The loggers of a run.

    Args:
        folder: Of the run. It is complete whatever loggers the user adds, and comes first: pictures and tables follow
            the first logger.
        given: ``trainer.logger`` of the configuration. False is no logger at all.
        purge_step: TensorBoard hides what an earlier part of the run logged from this step on.
    """
    own = [] if given is None or isinstance(given, bool) else [given] if isinstance(given, Logger) else list(given)
    if given is False or (given is not True and given is not None and not own):
        return False
    inside = [logger for logger in own if _folder(logger) == folder.resolve()]
    taken = tuple(kind for kind in (TensorBoardLogger, CSVLogger) if any(isinstance(each, kind) for each in inside))
    ours: list[Logger] = [
        RunTensorBoardLogger(str(folder), "", "", purge_step=purge_step),
        RunCSVLogger(str(folder), "", ""),
    ]
    return [
        *(logger for logger in ours if not isinstance(logger, taken)),  # two would write over each other
        *inside,
        *(logger for logger in own if logger not in inside),
    ]


def _folder(logger: Logger) -> Path | None:
    """The folder of a logger that writes files next to others."""
    folder = logger.log_dir if isinstance(logger, CSVLogger | TensorBoardLogger) else None
    return None if folder is None else Path(os.fspath(folder)).resolve()
