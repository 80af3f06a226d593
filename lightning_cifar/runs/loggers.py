"""Loggers of a run: TensorBoard and metrics.csv in its folder, and the loggers of the user.

The former are those of Lightning, with hyper-parameters that each YAML reader understands.
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
    """Writes TensorBoard events and ``hparams.yaml``."""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        super().log_hyperparams(plain_values(params), *args, **kwargs)


def plain_values(value: Any) -> Any:
    """Convert a value for ``yaml.safe_load``: tuples become lists, and other objects text.

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


def run_loggers(folder: Path, given: Logger | Iterable[Logger] | bool | None, purge_step: int) -> list[Logger] | bool:
    """Return the loggers of a run.

    Args:
        folder: Folder of the run. Its loggers are the first, because pictures and tables follow the first logger.
        given: ``trainer.logger`` of the configuration. False means that the run has no logger.
        purge_step: TensorBoard hides values that an earlier part of the run logged from this step on.
    """
    own = [] if given is None or isinstance(given, bool) else [given] if isinstance(given, Logger) else list(given)
    if given is False or (given is not True and given is not None and not own):
        return False
    inside = [logger for logger in own if _folder(logger) == folder.resolve()]
    taken = tuple(kind for kind in (TensorBoardLogger, CSVLogger) if any(isinstance(each, kind) for each in inside))
    ours: list[Logger] = [
        RunTensorBoardLogger(str(folder), "", "", default_hp_metric=False, purge_step=purge_step),
        RunCSVLogger(str(folder), "", ""),
    ]
    return [
        *(logger for logger in ours if not isinstance(logger, taken)),  # two loggers would overwrite each other's files
        *inside,
        *(logger for logger in own if logger not in inside),
    ]


def _folder(logger: Logger) -> Path | None:
    """Return the folder of a CSV or TensorBoard logger."""
    folder = logger.log_dir if isinstance(logger, CSVLogger | TensorBoardLogger) else None
    return None if folder is None else Path(os.fspath(folder)).resolve()
