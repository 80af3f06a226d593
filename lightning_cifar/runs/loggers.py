"""The loggers of every run folder: Lightning's, with hyper-parameters that any YAML reader understands."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from enum import Enum
from typing import Any

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger


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
