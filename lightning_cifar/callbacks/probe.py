"""Images that stay the same for the whole run, to look at again and again."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor


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
    loaders = trainer.val_dataloaders
    loader = loaders[0] if isinstance(loaders, list | tuple) and loaders else loaders
    if not loader:
        raise ValueError(f"{owner} looks at validation images, and there is no validation loader: add one")
    wanted, seen = sorted(set(indices)), 0
    if wanted[0] < 0:
        raise ValueError(f"{owner}: index {wanted[0]} must be 0 or more")
    found: dict[int, tuple[Tensor, Tensor | None]] = {}
    with _random_state():
        for batch in loader:
            batch = trainer.strategy.batch_to_device(batch)
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
