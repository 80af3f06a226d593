"""Settings of the optimizers of any module, such as ``lr``, to apply those that differ between two training runs."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

Settings = list[tuple[str, list[dict[str, Any]]]]
"""Class of each optimizer, and the settings of each of its parameter groups."""


def optimizer_settings(trainer: Trainer) -> Settings:
    """Return the settings with which the optimizers of a Trainer were built, as plain values."""
    plain = (bool, int, float, str, tuple, list, type(None))
    return [
        (
            type(optimizer).__name__,
            [
                {key: value for key, value in group.items() if isinstance(value, plain) and not key.startswith("param")}
                for group in optimizer.param_groups
            ],
        )
        for optimizer in trainer.optimizers
    ]


def apply_changes(trainer: Trainer, before: Settings, now: Settings) -> None:
    """Apply the settings that differ to the optimizers and their schedulers, which were restored from a checkpoint.

    A learning rate is scaled by the ratio of the initial ones, so that a schedule continues.

    Args:
        trainer: Trainer with the optimizers.
        before: Settings with which the optimizers in the checkpoint were built.
        now: Settings with which those of the Trainer were built.
    """
    for optimizer, (_, old), (_, new) in zip(trainer.optimizers, before, now, strict=True):
        for group, was, wanted in zip(optimizer.param_groups, old, new, strict=True):
            rates = (settings.get("initial_lr", settings.get("lr")) for settings in (was, wanted))
            first, second = rates
            if first != second and first and second is not None:
                group["lr"] = group["lr"] * (second / first)
            group.update({key: value for key, value in wanted.items() if key != "lr" and was.get(key) != value})
    for config in trainer.lr_scheduler_configs:
        for scheduler in getattr(config.scheduler, "_schedulers", [config.scheduler]):
            if hasattr(scheduler, "base_lrs"):
                scheduler.base_lrs = [group["initial_lr"] for group in scheduler.optimizer.param_groups]
