"""Samples that stay the same for the whole run, to look at again and again, and the networks that look at them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
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
        ValueError: There is no validation loader, its batches do not start with images (N, C, H, W), the images asked
            for differ in size, or it ends before the highest index.
    """
    wanted, seen = sorted(set(indices)), 0
    if wanted[0] < 0:
        raise ValueError(f"{owner}: index {wanted[0]} must be 0 or more")
    found: dict[int, tuple[Tensor, Tensor | None]] = {}
    with _random_state():
        for batch in _batches(trainer, f"{owner} looks at validation images"):
            images = batch[0] if isinstance(batch, tuple | list) and batch else batch
            if not isinstance(images, Tensor) or images.ndim != 4:
                raise ValueError(f"{owner} needs batches that start with images (N, C, H, W), these {describe(batch)}")
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
    _check_alike([image.shape for image, _ in chosen], f"{owner}: choose images of one size")
    return torch.stack([image for image, _ in chosen]), torch.stack(names) if len(names) == len(chosen) else None


def read_samples(trainer: Trainer, most: int | None, *, owner: str) -> tuple[Tensor, Tensor | None]:
    """The first samples of the validation set, images or not, on the module's device; read as :func:`read_probe` does.

    Args:
        trainer: within ``fit`` (from ``on_train_start`` on) or ``validate``.
        most: how many at most; None is all.
        owner: name of the callback, for its errors.

    Returns:
        Inputs (N, ...), and targets (N, ...) where the batch has a second tensor.

    Raises:
        ValueError: There is no validation loader, its batches do not start with a tensor or differ in shape, or it is
            empty.
    """
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    seen = 0
    with _random_state():
        for batch in _batches(trainer, f"{owner} looks at the validation set"):
            items = batch if isinstance(batch, tuple | list) else [batch]
            if not items or not isinstance(items[0], Tensor) or not items[0].ndim:
                raise ValueError(f"{owner} needs batches that start with a tensor (N, ...), these {describe(batch)}")
            wanted = len(items[0]) if most is None else most - seen
            inputs.append(items[0][:wanted].detach().clone())
            if len(items) > 1 and isinstance(items[1], Tensor) and items[1].shape[:1] == items[0].shape[:1]:
                targets.append(items[1][:wanted].detach().clone())
            seen += len(inputs[-1])
            if seen == most:
                break
    if not seen:
        raise ValueError(f"{owner} looks at the validation set, and it is empty")
    _check_alike([part.shape[1:] for part in inputs], f"{owner}: ask for {len(inputs[0])} samples, the first batch")
    alike = len(targets) == len(inputs) and len({part.shape[1:] for part in targets}) == 1
    return torch.cat(inputs), torch.cat(targets) if alike else None


def networks_of(pl_module: LightningModule) -> dict[str, nn.Module]:
    """The networks that are trained together, by name: the module's ``members``, or itself under the name ``""``."""
    members = getattr(pl_module, "members", None)
    return dict(members.items()) if isinstance(members, nn.ModuleDict) and len(members) else {"": pl_module}


def forward(trainer: Trainer, network: nn.Module, inputs: Tensor) -> object:
    """What the network makes of the inputs, in the trainer's precision and in the modes that its layers are in."""
    with trainer.precision_plugin.forward_context():
        output: object = network(trainer.precision_plugin.convert_input(inputs))
    return output


@contextmanager
def first_forward(owner: str, network: nn.Module, inputs: Tensor | str) -> Iterator[None]:
    """Around the first forward pass: a network that takes something else is told so.

    Args:
        owner: name of the callback, for the error.
        network: which is called.
        inputs: the first part of a validation batch, or the words for something else.

    Raises:
        ValueError: In place of whatever the network raised, which stays its cause.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, IndexError, RuntimeError, TypeError) as error:
        # Those of a wrong shape or type; ValueErrors speak for themselves.
        what = inputs if isinstance(inputs, str) else f"the first part of a validation batch, {tuple(inputs.shape)}"
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{owner} calls {type(network).__name__} with {what}, and it does not take that: {reason}. "
            f"Give it a forward that does, or leave {owner} out"
        ) from error


def loader_at(loaders: object, index: int = 0) -> object:
    """Of a trainer's loaders, which are one, a list or a dict of them, or nothing: the one of that number, or None."""
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if isinstance(loaders, list | tuple):
        return loaders[index] if index < len(loaders) else None
    return loaders


def describe(batch: object) -> str:
    """For an error about batches: what they are, and the remedy."""
    if isinstance(batch, Mapping):
        return f"are dicts of {', '.join(map(str, batch))}: let the loader collate (inputs, targets)"
    first = batch[0] if isinstance(batch, tuple | list) and batch else batch
    return f"start with {tuple(first.shape)}" if isinstance(first, Tensor) else f"start with {type(first).__name__}"


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
    loader = loader_at(trainer.val_dataloaders)
    if loader is None:
        limited = trainer.limit_val_batches == 0
        remedy = "limit_val_batches is 0: let it be more" if limited else "there is no validation loader: add one"
        raise ValueError(f"{purpose}, and {remedy}")
    for batch in loader:  # type: ignore[attr-defined]
        yield trainer.strategy.batch_to_device(batch)


def _check_alike(shapes: Sequence[torch.Size], remedy: str) -> None:
    found = list(dict.fromkeys(tuple(shape) for shape in shapes))
    if len(found) > 1:
        raise ValueError(f"the validation samples differ in shape, {found[0]} and {found[1]}: {remedy}")


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
