"""Checks of settings that the Trainer of Lightning accepts, but that fail later or are ignored."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import torch
from jsonargparse import Namespace
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import StrategyRegistry
from torch import nn

from lightning_cifar.errors import UsageError, did_you_mean
from lightning_cifar.files.processor import is_fast_in_bfloat16

# Defaults of a run that differ from those of the Trainer.
TRAINER_DEFAULTS: Mapping[str, object] = {"max_epochs": 10, "log_every_n_steps": 10, "num_sanity_val_steps": 0}
# The lowest valid number, and the text of the error.
_LOWEST = {
    "accumulate_grad_batches": (1, "must be at least 1"),
    "check_val_every_n_epoch": (1, "must be at least 1"),
    "log_every_n_steps": (0, "must be at least 1, or 0 to log no steps"),
    "gradient_clip_val": (0, "must not be negative"),
}
# Names that Lightning looks up only when it builds the Trainer.
_NAMES: dict[str, Callable[[], Iterable[str]]] = {
    "accelerator": lambda: ("auto", "gpu", *sorted(AcceleratorRegistry.available_accelerators())),
    "strategy": lambda: ("auto", *sorted(StrategyRegistry.available_strategies())),
    "profiler": lambda: ("simple", "advanced", "pytorch", "xla"),
    "gradient_clip_algorithm": lambda: ("norm", "value"),
}
_LIMITS = {"epochs": "max_epochs", "steps": "max_steps"}
_DURATION = re.compile(r"\d+:\d\d:\d\d:\d\d")


def check_trainer(settings: Mapping[str, object]) -> None:
    """Check the settings of the section ``trainer`` of a configuration."""
    for name, known in _NAMES.items():
        value = settings.get(name)
        if isinstance(value, str) and value not in known():
            raise UsageError(
                f"trainer.{name} (={value}) must be one of {', '.join(known())}.{did_you_mean(value, known())}"
            )
    kind = settings.get("accelerator")
    if kind in AcceleratorRegistry and not AcceleratorRegistry[kind]["accelerator"].is_available():
        raise UsageError(f"trainer.accelerator (={kind}) is not available on this machine: leave it out, or pass cpu.")
    if settings.get("barebones"):
        raise UsageError(
            "trainer.barebones (=true) turns off checkpoints and logs, which a run folder needs: leave it out, or call "
            "lightning.pytorch.Trainer(barebones=True) in Python."
        )
    for name, (lowest, advice) in _LOWEST.items():
        value = settings.get(name)
        if isinstance(value, int | float) and not value >= lowest:
            raise UsageError(f"trainer.{name} (={value}) {advice}.")
    interval = settings.get("val_check_interval")
    if isinstance(interval, int | float) and not interval > 0:
        raise UsageError(f"trainer.val_check_interval (={interval}) must be above 0: 0.5 is twice an epoch.")
    duration = settings.get("max_time")
    if isinstance(duration, str) and not _DURATION.fullmatch(duration):
        raise UsageError(
            f"trainer.max_time (={duration}) must look like DD:HH:MM:SS, such as 00:12:00:00 for 12 hours."
        )


def fastest_precision(accelerator: object) -> tuple[str, str]:
    """Return the precision that ``auto`` stands for, ``bf16-mixed`` or ``32-true``, and the reason."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        has, device = torch.cuda.is_bf16_supported(including_emulation=False), "this GPU"
    else:
        has, device = accelerator in ("auto", "cpu") and is_fast_in_bfloat16(), "this processor"
    return ("bf16-mixed", f"{device} computes in bfloat16") if has else ("32-true", f"{device} is faster with float32")


def precision_hint(trainer: Namespace, model: nn.Module) -> str:
    """Return advice for a network that would train faster in another precision, or an empty text."""
    layers = (layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    weights = sum(weight.numel() for layer in layers for weight in layer.parameters(recurse=False))
    precision, reason = fastest_precision(trainer.accelerator)
    if trainer.precision is not None or precision == "32-true" or weights < 50_000:
        return ""
    return f"{reason}: --trainer.precision auto trains this network faster"


def check_goes_on(settings: Mapping[str, object], done: Mapping[str, int]) -> None:
    """Check that epochs and steps are left to train after those of the checkpoint (``done``)."""
    if settings.get("fast_dev_run"):
        return  # it has another limit
    for unit, number in done.items():
        limit = settings.get(_LIMITS[unit])
        if isinstance(limit, int) and 0 < limit <= number:
            raise UsageError(
                f"the checkpoint has completed {number} of {limit} {unit}: "
                f"to continue the training, add --trainer.{_LIMITS[unit]} {2 * number}."
            )
