"""Samples that stay the same for the whole run, to look at again and again, and the networks that look at them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn


def read_probe(trainer: Trainer, indices: Sequence[int], *, owner: str) -> tuple[Tensor, Tensor | None]:
    """Images of the validation set, on the module's device, as the network gets them.

    The loader is read once more from its start, without moving any random state. With several data loaders the first
    one is read; with several processes, this one's share.

    Args:
        trainer: within ``fit`` (from ``on_train_start`` on) or ``validate``.
        indices: which images, counted from the start of the loader.
        owner: name of the callback, for its errors.

    Returns:
        Images (len(indices), C, H, W), and labels (len(indices),) where the batch has integer ones.

    Raises:
        ValueError: There is no validation loader, its batches do not start with images (N, C, H, W), or it ends before
            the highest index.
    """
    wanted, seen = sorted(set(indices)), 0
    if wanted[0] < 0:
        raise ValueError(f"{owner}: index {wanted[0]} must be 0 or more")
    found: dict[int, tuple[Tensor, Tensor | None]] = {}
    with _random_state():
        for batch in _batches(trainer, f"{owner} looks at validation images"):
            images = batch[0] if isinstance(batch, tuple | list) and batch else batch
            if not isinstance(images, Tensor) or images.ndim != 4:
                raise ValueError(f"{owner} needs batches that start with images (N, C, H, W)")
            labels = batch[1] if isinstance(batch, tuple | list) and len(batch) > 1 else None
            if not isinstance(labels, Tensor) or labels.ndim != 1 or labels.is_floating_point():
                labels = None
            for index in wanted:
                if seen <= index < seen + len(images):
                    label = None if labels is None else labels[index - seen].detach().clone()
                    found[index] = (images[index - seen].detach().clone(), label)
            seen += len(images)
            if len(found) == len(wanted):
                break
    if len(found) < len(wanted):
        raise ValueError(
            f"{owner}: there is no image {wanted[-1]}, the validation set has {seen}: choose lower indices"
        )
    chosen = [found[index] for index in indices]
    names = [label for _, label in chosen if label is not None]
    return torch.stack([image for image, _ in chosen]), torch.stack(names) if names else None


def read_samples(trainer: Trainer, most: int | None, *, owner: str) -> tuple[Tensor, Tensor | None]:
    """The first samples of the validation set, images or not, on the module's device; read as :func:`read_probe` does.

    Args:
        trainer: within ``fit`` (from ``on_train_start`` on) or ``validate``.
        most: how many at most; None is all.
        owner: name of the callback, for its errors.

    Returns:
        Inputs (N, ...), and targets (N, ...) where the batch has a second tensor.

    Raises:
        ValueError: There is no validation loader, its batches do not start with a tensor, or it is empty.
    """
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    seen = 0
    with _random_state():
        for batch in _batches(trainer, f"{owner} looks at the validation set"):
            items = batch if isinstance(batch, tuple | list) else [batch]
            if not items or not isinstance(items[0], Tensor) or not items[0].ndim:
                raise ValueError(f"{owner} needs batches that start with a tensor (N, ...)")
            wanted = len(items[0]) if most is None else most - seen
            inputs.append(items[0][:wanted].detach().clone())
            if len(items) > 1 and isinstance(items[1], Tensor) and items[1].shape[:1] == items[0].shape[:1]:
                targets.append(items[1][:wanted].detach().clone())
            seen += len(inputs[-1])
            if seen == most:
                break
    if not seen:
        raise ValueError(f"{owner} looks at the validation set, and it is empty")
    return torch.cat(inputs), torch.cat(targets) if len(targets) == len(inputs) else None


def networks_of(pl_module: LightningModule) -> dict[str, nn.Module]:
    """The networks that are trained together, by name: the module's ``members``, or itself under the name ``""``."""
    members = getattr(pl_module, "members", None)
    return dict(members.items()) if isinstance(members, nn.ModuleDict) and len(members) else {"": pl_module}


def forward(trainer: Trainer, network: nn.Module, inputs: Tensor) -> object:
    """What the network makes of the inputs, in the trainer's precision and in the modes that its layers are in."""
    with trainer.precision_plugin.forward_context():
        output: object = network(trainer.precision_plugin.convert_input(inputs))
    return output


def step_of(trainer: Trainer, pl_module: LightningModule) -> int:
    """Training steps so far: of the optimizer, or batches where the module optimizes by itself.

    Such a module may have several optimizers, whose steps the trainer counts one by one.
    """
    if pl_module.automatic_optimization:
        return trainer.global_step
    processed: int = trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
    return processed


def _batches(trainer: Trainer, purpose: str) -> Iterator[object]:
    """Of the first validation loader, on the module's device."""
    loaders = trainer.val_dataloaders
    loader = loaders[0] if isinstance(loaders, list | tuple) and loaders else loaders
    if not loader:
        raise ValueError(f"{purpose}, and there is no validation loader: add one")
    for batch in loader:
        yield trainer.strategy.batch_to_device(batch)


@contextmanager
def _random_state() -> Iterator[None]:
    """Reading a loader may draw: from torch, Python and NumPy. All three return to where they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - a stranger's loader may use it
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
