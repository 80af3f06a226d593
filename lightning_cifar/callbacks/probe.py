"""Fixed validation samples (the probe) on which callbacks run a network during the whole training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_cifar.callbacks.random_states import random_state_restored


def read_probe(trainer: Trainer, indices: Sequence[int], *, owner: str) -> tuple[Tensor, Tensor | None]:
    """Read images of the validation set on the module's device, as the network receives them.

    The loader is read from its start without a change of random states. Only the first of several data loaders is
    read, and only the samples of this process.

    Args:
        trainer: in ``fit`` (from ``on_train_start`` on) or ``validate``.
        indices: indices of the images in the loader.
        owner: name of the callback for error messages.

    Returns:
        Images (len(indices), C, H, W), and labels (len(indices),) if the batches contain integer labels.

    Raises:
        ValueError: If the validation loader is missing or too short, its batches do not start with images
            (N, C, H, W), or the images differ in size.
    """
    wanted, seen = sorted(set(indices)), 0
    if wanted[0] < 0:
        raise ValueError(f"{owner}: index {wanted[0]} must be 0 or more")
    found: dict[int, tuple[Tensor, Tensor | None]] = {}
    with random_state_restored():
        for batch in validation_batches(trainer, f"{owner} needs validation images"):
            images, second = first_two(batch)
            if not isinstance(images, Tensor) or images.ndim != 4:
                raise ValueError(
                    f"{owner} needs batches that start with images (N, C, H, W), but they {describe(batch)}"
                )
            labels = integer_labels(second, len(images))
            for index in wanted:
                if seen <= index < seen + len(images):
                    label = None if labels is None else labels[index - seen].detach().clone()
                    found[index] = (images[index - seen].detach().clone(), label)
            seen += len(images)
            if len(found) == len(wanted):
                break
    if len(found) < len(wanted):
        raise ValueError(
            f"{owner}: image {wanted[-1]} does not exist, since the validation set has {seen}: choose lower indices"
        )
    chosen = [found[index] for index in indices]
    names = [label for _, label in chosen if label is not None]
    _check_alike([image.shape for image, _ in chosen], f"{owner}: choose images of one size")
    return torch.stack([image for image, _ in chosen]), torch.stack(names) if len(names) == len(chosen) else None


def read_samples(trainer: Trainer, most: int, *, owner: str) -> tuple[Tensor, Tensor | None]:
    """Read the first samples of the validation set, of any shape, in the same way as :func:`read_probe`.

    Args:
        trainer: in ``fit`` (from ``on_train_start`` on) or ``validate``.
        most: maximum number of samples.
        owner: name of the callback for error messages.

    Returns:
        Inputs (N, ...), and targets (N, ...) if the batches contain a second tensor.

    Raises:
        ValueError: If the validation loader is missing or empty, or its batches do not start with a tensor or differ
            in shape.
    """
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    seen = 0
    with random_state_restored():
        for batch in validation_batches(trainer, f"{owner} needs validation samples"):
            first, second = first_two(batch)
            if not isinstance(first, Tensor) or not first.ndim:
                raise ValueError(f"{owner} needs batches that start with a tensor (N, ...), but they {describe(batch)}")
            inputs.append(first[: most - seen].detach().clone())
            if isinstance(second, Tensor) and second.shape[:1] == first.shape[:1]:
                targets.append(second[: most - seen].detach().clone())
            seen += len(inputs[-1])
            if seen == most:
                break
    if not seen:
        raise ValueError(f"{owner} needs validation samples, but the validation set is empty: add some")
    _check_alike([part.shape[1:] for part in inputs], f"{owner}: use {len(inputs[0])} samples, the first batch")
    alike = len(targets) == len(inputs) and len({part.shape[1:] for part in targets}) == 1
    return torch.cat(inputs), torch.cat(targets) if alike else None


def networks_of(pl_module: LightningModule) -> dict[str, nn.Module]:
    """Return the networks that are trained together by name: the module's ``members``, or ``{"": pl_module}``."""
    members = getattr(pl_module, "members", None)
    return dict(members.items()) if isinstance(members, nn.ModuleDict) and len(members) else {"": pl_module}


def forward(trainer: Trainer, network: nn.Module, inputs: Tensor) -> object:
    """Compute the network's output in the trainer's precision; the modes of the layers are not changed."""
    with trainer.precision_plugin.forward_context():
        output: object = network(trainer.precision_plugin.convert_input(inputs))
    return output


@contextmanager
def first_forward(owner: str, network: nn.Module, inputs: Tensor | str) -> Iterator[None]:
    """Convert errors of the first forward pass, such as those of a wrong shape or type, to a clear ValueError.

    Args:
        owner: name of the callback for the error message.
        network: the network that is called.
        inputs: the first part of a validation batch, or a description of other inputs.

    Raises:
        ValueError: If the network raises an error, which becomes its cause. ValueErrors are not changed.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, IndexError, RuntimeError, TypeError) as error:
        what = inputs if isinstance(inputs, str) else f"the first part of a validation batch, {tuple(inputs.shape)}"
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{owner} cannot call {type(network).__name__} with {what}: {reason}. "
            f"Implement a forward for these inputs, or remove {owner}"
        ) from error


def loader_at(loaders: object, index: int = 0) -> object:
    """Return one of the trainer's data loaders (one loader, a list or a dict of them, or None), or None."""
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if isinstance(loaders, list | tuple):
        return loaders[index] if index < len(loaders) else None
    return loaders


def first_two(batch: object) -> tuple[object, object]:
    """Return the first two parts of a batch, such as images and labels; None for missing ones."""
    first, second, *_ = (*batch, None, None) if isinstance(batch, tuple | list) else (batch, None)
    return first, second


def integer_labels(labels: object, count: int) -> Tensor | None:
    """Return a part of a batch if it contains an integer for each of ``count`` samples, else None."""
    if isinstance(labels, Tensor) and labels.shape == (count,) and not labels.is_floating_point():
        return labels
    return None


def describe(batch: object) -> str:
    """Describe a batch for an error message about its format."""
    if isinstance(batch, Mapping):
        return f"are dicts of {', '.join(map(str, batch))}: collate them to (inputs, targets)"
    first, _ = first_two(batch)
    return f"start with {tuple(first.shape)}" if isinstance(first, Tensor) else f"start with {type(first).__name__}"


def validation_batches(trainer: Trainer, purpose: str) -> Iterator[object]:
    """Iterate over the batches of the first validation loader on the module's device.

    Args:
        trainer: in ``fit`` or ``validate``.
        purpose: start of the error message.

    Raises:
        ValueError: If the validation loader is missing.
    """
    loader = loader_at(trainer.val_dataloaders)
    if loader is None:
        limited = trainer.limit_val_batches == 0
        fix = "limit_val_batches is 0: set it to 1 or more" if limited else "the validation loader is missing: add one"
        raise ValueError(f"{purpose}, and {fix}")
    for batch in loader:  # type: ignore[attr-defined]
        yield trainer.strategy.batch_to_device(batch)


def _check_alike(shapes: Sequence[torch.Size], fix: str) -> None:
    found = list(dict.fromkeys(tuple(shape) for shape in shapes))
    if len(found) > 1:
        raise ValueError(f"the validation samples differ in shape, {found[0]} and {found[1]}: {fix}")
