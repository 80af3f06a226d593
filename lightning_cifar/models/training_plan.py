"""What a training will do, known before its first step: its number of optimizer steps, and its last batch."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader


def planned_steps(trainer: Any) -> float:
    """Optimizer steps from the start of a training to its end; infinity where there is none.

    Unlike ``trainer.estimated_stepping_batches``, it counts what a GradientAccumulationScheduler will do.

    Args:
        trainer: A Trainer within ``fit``.
    """
    steps = float(trainer.estimated_stepping_batches)  # sets the loaders up
    schedulers = [each for each in trainer.callbacks if isinstance(each, GradientAccumulationScheduler)]
    batches, epochs = trainer.num_training_batches, trainer.max_epochs
    if not schedulers or epochs in (None, -1) or math.isinf(batches):
        return steps
    # The last batch of an epoch always steps.
    each = (math.ceil(batches / schedulers[-1].get_accumulate_grad_batches(epoch)) for epoch in range(epochs))
    return float(min(sum(each), trainer.max_steps if trainer.max_steps > 0 else math.inf))


def check_last_batch(trainer: Any, network: nn.Module, example: object) -> None:
    """Refuse a last batch of one sample where the network normalises over the samples of a batch.

    Args:
        trainer: A Trainer within ``fit``.
        network: Which trains, in the modes that its layers are in.
        example: An input (N, ...) of the network; without one nothing is checked.

    Raises:
        ValueError: With a batch size that leaves no such batch.
    """
    loader = trainer.train_dataloader
    size, count = getattr(loader, "batch_size", None), samples_of(loader)
    if not isinstance(example, Tensor) or not isinstance(size, int) or not count:
        return
    if ((count % size or size) != 1 and count != 1) or trainer.num_training_batches < len(loader):
        return
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}  # its statistics stay
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
            f"train on: set data.batch_size to {better}, or drop_last=True in a DataLoader of your own."
        ) from error


def samples_of(loader: object) -> int | None:
    """Samples that a loader gives to this process in an epoch; None if it drops some or does not say."""
    if isinstance(loader, DataLoader):
        sampler: Any = loader.sampler
        return (
            None if loader.drop_last or loader.batch_size is None or not hasattr(sampler, "__len__") else len(sampler)
        )
    found = getattr(loader, "num_samples", None)
    return found if isinstance(found, int) else None
