"""Number of optimizer steps of a training run, and a check of its last batch, before the first step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader

Origin: TypeAlias = tuple[float, float]
"""Step and progress from which the schedule of a fork runs to the end of the training."""


def schedule_progress(step: float, num_steps: float, origin: Origin | None = None) -> float:
    """Return the progress of a schedule after ``step`` of ``num_steps`` optimizer steps, in [0, 1].

    >>> schedule_progress(6, 8, (4, 0.4))  # half of the steps after a fork at step 4
    0.7
    """
    if origin is None:
        return min(step / num_steps, 1.0)
    first, begin = origin
    return begin + (1 - begin) * min((step - first) / max(num_steps - first, 1.0), 1.0)


def schedule_origin(plan: Mapping[str, Any], num_steps: float) -> Origin | None:
    """Return the origin of the schedule of a continued training; None is the start of the training.

    Args:
        plan: ``steps`` and ``origin`` of the training in the checkpoint; and ``fork`` if a fork starts here: its
            ``step``, and whether the schedule is to ``restart``. By default, the progress continues from its value at
            the fork to 1 at the new end.
        num_steps: Number of steps of this training.
    """
    origin, fork = plan.get("origin"), plan.get("fork")
    if fork is not None and fork["restart"]:
        return float(fork["step"]), 0.0
    if fork is not None and plan["steps"] != num_steps:
        return float(fork["step"]), schedule_progress(fork["step"], plan["steps"], origin)
    return origin


def planned_steps(trainer: Any) -> float:
    """Return the number of optimizer steps of a training run; infinity if it has no end.

    Unlike ``trainer.estimated_stepping_batches``, it takes GradientAccumulationScheduler into account.

    Args:
        trainer: A Trainer within ``fit``.
    """
    steps = float(trainer.estimated_stepping_batches)  # sets up the loaders
    schedulers = [each for each in trainer.callbacks if isinstance(each, GradientAccumulationScheduler)]
    batches, epochs = trainer.num_training_batches, trainer.max_epochs
    if not schedulers or epochs in (None, -1) or math.isinf(batches):
        return steps
    # The last batch of an epoch always makes a step.
    each = (math.ceil(batches / schedulers[-1].get_accumulate_grad_batches(epoch)) for epoch in range(epochs))
    return float(min(sum(each), trainer.max_steps if trainer.max_steps > 0 else math.inf))


def check_last_batch(trainer: Any, network: nn.Module, example: object) -> None:
    """Check that the last batch does not have one sample if the network has batch normalisation.

    Args:
        trainer: A Trainer within ``fit``.
        network: The network, in training mode apart from frozen layers.
        example: An input (N, ...) of the network; if it is not a tensor, nothing is checked.

    Raises:
        ValueError: If it has one sample; the message suggests another batch size.
    """
    loader = trainer.train_dataloader
    size, count = getattr(loader, "batch_size", None), samples_of(loader)
    if not isinstance(example, Tensor) or not isinstance(size, int) or not count:
        return
    if ((count % size or size) != 1 and count != 1) or trainer.num_training_batches < len(loader):
        return
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}  # running statistics stay unchanged
    device = next((parameter.device for parameter in network.parameters()), example.device)
    inputs = trainer.precision_plugin.convert_input(example[:1].to(device))
    try:
        with torch.no_grad(), torch.random.fork_rng(), trainer.precision_plugin.forward_context():
            torch.func.functional_call(network, buffers, (inputs,))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        near = (other for step in range(1, size + 2) for other in (size + step, size - step) if other > 1)
        better = next((other for other in near if count % other != 1), count)
        raise ValueError(
            f"the last batch of an epoch has 1 sample ({count} in batches of {size}), which batch normalisation cannot "
            f"train on: set data.batch_size to {better}, or drop_last=True in your own DataLoader."
        ) from error


def samples_of(loader: object) -> int | None:
    """Return the samples of a loader in an epoch of this process; None if it drops some or the number is unknown."""
    if isinstance(loader, DataLoader):
        sampler: Any = loader.sampler
        return (
            None if loader.drop_last or loader.batch_size is None or not hasattr(sampler, "__len__") else len(sampler)
        )
    found = getattr(loader, "num_samples", None)
    return found if isinstance(found, int) else None
