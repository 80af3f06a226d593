"""A learning-rate sweep on a copy of a LightningModule, without side effects on the training.

The copy is trained with its own optimizer on batches of a separate loader. The module, its optimizer, schedule,
gradients and hooks, the trainer, its loggers and the position of its loader do not change. Random states and the epoch
of a shared sampler are restored afterwards, also after an exception.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor
from torch.optim import Optimizer

from lightning_cifar.callbacks.random_states import random_state_restored


def sweep(
    trainer: Trainer,
    pl_module: LightningModule,
    lrs: list[float],
    *,
    seed: int,
    stop: Callable[[list[float]], bool],
    on_step: Callable[[], None] = lambda: None,
) -> list[float]:
    """Train a copy for one optimizer step at each learning rate and return the losses.

    Args:
        trainer: Trainer connected to the module; defines device, precision, accumulation, gradient clipping and data.
        pl_module: Module to copy.
        lrs: Learning rates of the first parameter group; the others keep their ratio to it.
        seed: Seed of the order of the batches and of the network's random numbers.
        stop: Decides from the losses so far whether to end early. All ranks have the same losses.
        on_step: Called after each step.

    Returns:
        The loss of each step at its learning rate, before the update: the mean over the accumulated batches and over
        the ranks. May be shorter than ``lrs``; the last loss may be NaN or infinite.

    Raises:
        ValueError: If the module uses manual optimization, several optimizers or none, or an iterator, cannot be
            copied, or there are several training loaders or no batches.
    """
    if not pl_module.automatic_optimization:
        raise ValueError("the learning-rate range finder needs automatic optimization, but this module uses manual.")
    if is_param_in_hook_signature(pl_module.training_step, "dataloader_iter", explicit=True):
        raise ValueError("the learning-rate range finder needs a training_step that takes a batch, not an iterator.")
    losses: list[float] = []
    # Outside of the block below: fit would do this next, and it draws random numbers once.
    trainer.fit_loop.setup_data()
    if isinstance(trainer.train_dataloader, list | tuple | Mapping):
        count = len(trainer.train_dataloader)
        raise ValueError(f"the learning-rate range finder needs one training loader, but this run has {count}.")
    with random_state_restored(), _shared_state(trainer), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        model = _detached_copy(pl_module)
        model.trainer = trainer
        try:
            model.train()
            optimizer = find_optimizer(model.configure_optimizers())
            _load_momenta(optimizer, trainer)
            ratios = _group_ratios(optimizer)
            scaler = copy.deepcopy(getattr(trainer.precision_plugin, "scaler", None))
            batches = _endless(trainer, seed)
            index = 0
            for lr in lrs:
                for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
                    group["lr"] = lr * ratio
                optimizer.zero_grad()
                total = 0.0
                for _ in range(trainer.accumulate_grad_batches):
                    total += _backward(trainer, model, next(batches), index, scaler)
                    index += 1
                losses.append(_mean_over_ranks(total / trainer.accumulate_grad_batches, trainer))
                if not math.isfinite(losses[-1]) or stop(losses):
                    break
                _step(trainer, model, optimizer, scaler)
                on_step()
        finally:
            model.trainer = None
    return losses


def find_optimizer(configured: Any) -> Optimizer:
    """Return the optimizer in the result of ``configure_optimizers``, in any of Lightning's formats.

    Raises:
        ValueError: If the result does not contain exactly one optimizer.
    """
    if isinstance(configured, Mapping):
        configured = configured.get("optimizer")
    if isinstance(configured, list | tuple):
        first = configured[0] if len(configured) == 2 and isinstance(configured[0], list | tuple) else configured
        if len(first) != 1:
            raise ValueError(f"the learning-rate range finder needs one optimizer, but this module has {len(first)}.")
        return find_optimizer(first[0])
    if not isinstance(configured, Optimizer) or not configured.param_groups:
        raise ValueError("the learning-rate range finder needs an optimizer with parameters, but this module has none.")
    return configured


def _detached_copy(pl_module: LightningModule) -> LightningModule:
    """Copy a module without gradients, trainer and logging, on the same device."""
    trainer = pl_module._trainer
    memo: dict[int, Any] = {} if trainer is None else {id(trainer): None}
    for parameter in pl_module.parameters():
        memo[id(parameter.grad)] = None
    try:
        model = copy.deepcopy(pl_module, memo)
    except (NotImplementedError, RuntimeError, TypeError) as error:  # a lock, a file, a tensor with a graph
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ValueError(
            f"the learning-rate range finder trains a copy, and {type(pl_module).__name__} cannot be copied: {error}"
        ) from error

    def ignore(*args: Any, **kwargs: Any) -> None:
        """Do not log."""

    for name in ("log", "log_dict"):
        object.__setattr__(model, name, ignore)
    return model


def _load_momenta(optimizer: Optimizer, trainer: Trainer) -> None:
    """Load the state of the trainer's optimizer if the training has started."""
    running = trainer.optimizers[0] if trainer.optimizers else None
    if running is None or trainer.global_step == 0:
        return
    running = getattr(running, "optimizer", running)  # Lightning's wrapper
    optimizer.load_state_dict(copy.deepcopy(running.state_dict()))


def _group_ratios(optimizer: Optimizer) -> list[float]:
    """Return the peak learning rate of each group, divided by that of the first."""
    peaks = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
    if peaks[0] <= 0:
        raise ValueError(f"the first parameter group has lr={peaks[0]}: set a positive one, which defines the ratios.")
    return [peak / peaks[0] for peak in peaks]


def _backward(trainer: Trainer, model: LightningModule, batch: Any, index: int, scaler: Any) -> float:
    """Accumulate the gradients of one batch and return its loss."""
    plugin = trainer.precision_plugin
    batch = trainer.strategy.batch_to_device(plugin.convert_input(batch))
    takes_index = is_param_in_hook_signature(model.training_step, "batch_idx", min_args=2)
    with plugin.train_step_context():
        output = model.training_step(*((batch, index) if takes_index else (batch,)))
    loss = output["loss"] if isinstance(output, Mapping) else output
    if not isinstance(loss, Tensor):
        raise ValueError("training_step must return the loss as a tensor, or a dict with the key 'loss'.")
    scaled = loss / trainer.accumulate_grad_batches
    (scaled if scaler is None else scaler.scale(scaled)).backward()
    return float(loss.detach())


def _step(trainer: Trainer, model: LightningModule, optimizer: Optimizer, scaler: Any) -> None:
    if trainer.world_size > 1:
        for parameter in (each for group in optimizer.param_groups for each in group["params"]):
            if parameter.grad is not None:
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad /= trainer.world_size
    if scaler is not None:
        scaler.unscale_(optimizer)
    model.clip_gradients(optimizer)  # as the Trainer says
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()


def _mean_over_ranks(loss: float, trainer: Trainer) -> float:
    if trainer.world_size == 1:
        return loss
    value = torch.tensor(loss, dtype=torch.float64, device=trainer.strategy.root_device)
    return float(trainer.strategy.reduce(value, reduce_op="mean"))


def _endless(trainer: Trainer, seed: int) -> Iterator[Any]:
    """Iterate over the training batches, epoch after epoch, with a separate iterator."""
    loader: Any = copy.copy(trainer.train_dataloader)
    if hasattr(loader, "_iterator"):
        loader._iterator = None  # do not use the persistent workers of the training
    epoch = 1_000_003 * (seed + 1)  # not an epoch of the training
    while True:
        samplers: tuple[Any, Any] = (loader, getattr(loader, "sampler", None))
        for sampler in samplers:
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)
        count = 0
        for batch in loader:
            yield batch
            count += 1
        if not count:
            raise ValueError("the training loader returns no batches: check the data and the batch size.")
        epoch += 1


@contextmanager
def _shared_state(trainer: Trainer) -> Iterator[None]:
    """Restore the state that a copied loader shares with the original: its sampler's epoch and generators."""
    loader = trainer.train_dataloader
    sampler = getattr(loader, "sampler", None)
    batch_sampler = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    owners = [owner for owner in (loader, sampler, batch_sampler) if owner is not None]
    epochs = [(owner, owner.epoch) for owner in owners if hasattr(owner, "epoch")]
    generators = {id(g): g for owner in owners if isinstance(g := getattr(owner, "generator", None), torch.Generator)}
    states = [(generator, generator.get_state()) for generator in generators.values()]
    try:
        yield
    finally:
        for owner, epoch in epochs:
            owner.epoch = epoch
        for generator, state in states:
            generator.set_state(state)
