"""Record of a run in TensorBoard: settings and results (HPARAMS), configuration, command and versions (TEXT)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from inspect import signature
from typing import Any

import lightning.pytorch as pl
import yaml
from lightning.pytorch.callbacks import Callback

from lightning_cifar import artifacts
from lightning_cifar.runs.record import RunRecord, machine, versions
from lightning_cifar.runs.trainer_settings import TRAINER_DEFAULTS

_BEST = {"val/accuracy": max, "val/loss": min}
_END = ("val/accuracy", "val/loss", "test/accuracy", "test/loss")
_ALWAYS = ("lr", "optimizer", "batch_size", "augment")
_OBJECTS = ("logger", "callbacks", "plugins", "default_root_dir", "enable_progress_bar", "enable_model_summary")


class BoardRecord(Callback):
    """Writes the settings and results of a run for TensorBoard; without a TensorBoard logger, it does nothing.

    ``best/val/accuracy`` and ``best/val/loss`` are written after each validation. At the end of the command, or when
    it is interrupted, the last values follow as ``end/<metric>``, with ``run/epochs`` and ``run/seconds``.
    """

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.best: dict[str, float] = {}
        self._written: dict[str, float] = {}
        self._has_begun = False

    def state_dict(self) -> dict[str, Any]:
        return {"best": dict(self.best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = {name: float(value) for name, value in state_dict["best"].items() if name in _BEST}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._has_begun or trainer.sanity_checking:
            return
        self._has_begun = True
        config = yaml.safe_load(self.record.config)
        datamodule = getattr(trainer, "datamodule", None)
        settings = plain_settings(config, {"model": type(pl_module), "data": type(datamodule), "trainer": pl.Trainer})
        artifacts.log_settings(trainer, settings | {"trainer.precision": str(trainer.precision)})
        command = f"lightning-cifar {self.record.command} --config {artifacts.run_folder(trainer)}/config.yaml"
        artifacts.log_text(trainer, "run/configuration", _code(self.record.config))
        artifacts.log_text(trainer, "run/command", _code(command))
        facts = versions() | machine(trainer)
        artifacts.log_table(trainer, "run/versions_and_machine", ("", ""), list(facts.items()))

    on_validation_start = on_test_start = on_train_start

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        for name, better in _BEST.items():
            if name in trainer.callback_metrics:
                value = float(trainer.callback_metrics[name])
                self.best[name] = better(self.best.get(name, value), value)
        artifacts.log_scalars(trainer, {f"best/{name}": value for name, value in self.best.items()})

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self._has_begun:
            self._write_end(trainer)
            if isinstance(exception, Exception):  # an interrupted run can be resumed: it has no status yet
                artifacts.log_status(trainer, succeeded=False)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._has_begun and stage != "predict":
            is_first = not self._written  # a test after fit belongs to the same row
            self._write_end(trainer)
            if is_first:
                artifacts.log_status(trainer, succeeded=True)

    def _write_end(self, trainer: pl.Trainer) -> None:
        """Write the last values that were not written before, such as those of a test after fit."""
        found = {f"end/{name}": self.record.metrics[name] for name in _END if name in self.record.metrics}
        found |= {"run/epochs": float(trainer.current_epoch)}
        found |= {"run/seconds": self._written.get("run/seconds", time.monotonic() - self.record.start)}
        new = {name: value for name, value in found.items() if self._written.get(name) != value}
        self._written |= new
        artifacts.log_scalars(trainer, new)


def plain_settings(config: Mapping[str, Any], classes: Mapping[str, type]) -> dict[str, bool | float | str]:
    """Return the plain settings of a configuration that differ from the defaults of their classes, and the main ones.

    Args:
        classes: Classes of the sections ``model``, ``data`` and ``trainer``.

    Values of other types become text; None, and the objects of the trainer, are left out.

    Example:
        >>> config = {"seed_everything": 1, "trainer": {"max_epochs": 2, "devices": "auto"}}
        >>> plain_settings(config, {"trainer": pl.Trainer})
        {'seed': 1, 'trainer.max_epochs': 2}
    """
    found: dict[str, bool | float | str] = {}
    if isinstance(seed := config.get("seed_everything"), int):
        found["seed"] = seed
    for section, kind in classes.items():
        held = config.get(section) or {}
        if section != "trainer":
            found[section] = kind.__name__
            held = held.get("init_args") or {}
        defaults = {**_defaults(kind), **(TRAINER_DEFAULTS if section == "trainer" else {})}
        for name, value in held.items():
            is_main = name in _ALWAYS or name == "max_epochs"
            if name in _OBJECTS or value is None or (not is_main and value == defaults.get(name)):
                continue
            plain = value if isinstance(value, bool | int | float | str) else json.dumps(value, default=str)
            found[f"{section}.{name}"] = plain
    return found


def _defaults(kind: type) -> dict[str, Any]:
    """Return the defaults of all arguments of a class, with those that it passes to its bases."""
    found: dict[str, Any] = {}
    for base in kind.__mro__:
        if "__init__" in vars(base):
            held = signature(vars(base)["__init__"]).parameters.values()
            found = {each.name: each.default for each in held} | found
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def _code(text: str) -> str:
    return f"```\n{text.rstrip()}\n```"
