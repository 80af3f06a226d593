"""Cache of features of images, with keys computed from the pixels."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import torch
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped]

Place = Literal["auto", "memory", "file", "never"]
LIMIT = 2 << 30
"""Largest size in bytes of the features that ``cache="auto"`` keeps in memory."""

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by size of an element
_MOST = 1 << 22  # numbers multiplied at a time, which limits the memory of the products


def image_keys(images: Tensor) -> Tensor:
    """Return two hashes of each image: sums of its bits times fixed random numbers, int64 (N, 2).

    Images with equal pixels have equal keys in any memory format and batch: sums of integers do not depend on their
    order. The probability that any two of a million images have the same keys is below 1e-9.

    Args:
        images: (N, C, H, W) of any type.
    """
    rows = images.detach().permute(0, 2, 3, 1).reshape(len(images), -1).contiguous()
    bits = rows.view(_INTEGERS[rows.element_size()])
    factors = _factors(bits.shape[1], bits.device)
    chunks = torch.split(bits, max(1, _MOST // max(1, bits.shape[1])))
    return torch.cat([torch.stack([(chunk * row).sum(1) for row in factors], 1) for chunk in chunks])


@lru_cache(maxsize=4)
def _factors(count: int, device: torch.device) -> Tensor:
    """Return fixed random odd numbers: int64 (2, count)."""
    generator = torch.Generator().manual_seed(0x5EED)
    return torch.randint(-(2**62), 2**62, (2, count), generator=generator).mul_(2).add_(1).to(device)


class FeatureCache:
    """Rows of features by image. Call ``add`` for all images, then ``close``, then ``find``.

    Args:
        path: Memory-mapped file for the features, removed with the cache. None keeps them in memory, on the device
            where they were computed.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._keys: list[Tensor] = []
        self._rows: list[Tensor] = []
        self._path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
            weakref.finalize(self, path.unlink, missing_ok=True)
        self.num_images = self.nbytes = 0

    def add(self, images: Tensor, features: Tensor) -> None:
        """Add the features (N, D) of images (N, C, H, W)."""
        self._keys.append(image_keys(images))
        self.num_images += len(features)
        self.nbytes += features.numel() * features.element_size()
        if self._path is None:
            self._rows.append(features)
            return
        self._rows = [features[:0]]  # for the type and the width
        with self._path.open("ab") as file:
            file.write(features.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())

    def close(self) -> None:
        """Sort the keys for ``find``; nothing can be added afterwards."""
        keys = torch.cat(self._keys)
        self._first, self._order = keys[:, 0].sort()
        self._second = keys[self._order, 1]
        empty = self._rows[0][:0]
        if self._path is None:
            self._features = torch.cat(self._rows)
        else:
            size = self.num_images * empty.shape[1]
            mapped = torch.from_file(str(self._path), shared=False, size=size, dtype=empty.dtype)
            self._features = mapped.view(self.num_images, empty.shape[1])
        self._keys, self._rows = [], []

    def find(self, images: Tensor) -> Tensor | None:
        """Return the features (N, D) of images (N, C, H, W) on their device, or None if any image is not cached."""
        first, second = image_keys(images).T.contiguous()
        place = torch.searchsorted(self._first, first).clamp_(max=self.num_images - 1)
        if not ((self._first[place] == first) & (self._second[place] == second)).all():
            return None
        return self._features[self._order[place].to(self._features.device)].to(images.device)

    def __deepcopy__(self, memo: dict[int, object]) -> FeatureCache:
        return self  # copies of the model, such as those of the learning-rate finder, share the features


class Plan:
    """The images that recur during a fit, whose features are worth caching.

    Loaders of this package have ``num_versions``, the number of versions of each image. Other loaders do not, and are
    used only if ``place`` is not ``auto``.

    Args:
        trainer: Trainer within ``fit``, not before ``on_train_start``.
        blended: Whether training images are mixed with each other in each step.
    """

    def __init__(self, trainer: pl.Trainer, place: Place, *, blended: bool) -> None:
        self.sources: list[tuple[object, int]] = []
        """Loaders, each with the number of epochs after which its images recur."""
        self.note = ""
        last = trainer.max_epochs
        left = float("inf") if last is None or last < 0 else last - trainer.current_epoch
        if trainer.fast_dev_run or trainer.world_size > 1:  # type: ignore[attr-defined]  # set untyped
            self.note = "" if trainer.world_size == 1 else "features are cached only in runs of one process"
            return
        unknown = None if place == "auto" else 1
        train = trainer.train_dataloader
        versions = getattr(train, "num_versions", unknown)
        if blended:
            self.note = "features of training images are not cached: mixup and cutmix change the images in each step"
        elif versions is None:
            self.note = (
                "features of training images are not cached: augmentation changes the images in each epoch; "
                "pass --data.augment [] or --data.num_views"
            )
        elif left > versions and trainer.num_training_batches == _count(train):
            self.sources.append((train, versions))
        loaders = trainer.val_dataloaders or []
        for loader in loaders if isinstance(loaders, list | tuple) else [loaders]:
            whole = trainer.limit_val_batches == 1.0 and isinstance(trainer.limit_val_batches, float)
            if left > 1 and whole and _count(loader) and getattr(loader, "num_versions", unknown) is not None:
                self.sources.append((loader, 1))

    @property
    def num_batches(self) -> int:
        return sum(_count(loader) * versions for loader, versions in self.sources)

    def num_images(self, batch_size: int) -> int:
        """Return the number of images; for a loader without ``num_samples``, assuming full batches."""
        return sum(
            versions * int(getattr(loader, "num_samples", _count(loader) * batch_size))
            for loader, versions in self.sources
        )

    def batches(self, trainer: pl.Trainer) -> Iterator[Tensor]:
        """Yield the images of all sources on the device, each version once. Restores the epoch of the loaders."""
        for loader, versions in self.sources:
            set_epoch = getattr(loader, "set_epoch", None)
            epoch = getattr(loader, "epoch", 0)
            try:
                for version in range(versions):
                    if set_epoch is not None:
                        set_epoch(version)
                    for batch in loader:  # type: ignore[attr-defined]  # what a Trainer iterates over
                        batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))
                        yield batch[0]
            finally:
                if set_epoch is not None:
                    set_epoch(epoch)


def fill(
    trainer: pl.Trainer, plan: Plan, features_of: Callable[[Tensor], Tensor], *, place: Place, path: Path
) -> tuple[FeatureCache | None, str]:
    """Compute the features of all images of a plan.

    Args:
        features_of: Maps images (N, C, H, W) to features (N, D).
        place: Where to keep the features; ``auto`` is memory, up to ``LIMIT``.

    Returns:
        The features or None, and a message for the log.
    """
    if not plan.sources:
        return None, ""
    cache = FeatureCache(path if place == "file" else None)
    with torch.random.fork_rng(devices=[]), _progress(trainer, plan.num_batches) as advance:
        for images in plan.batches(trainer):
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                features = features_of(images)
            cache.add(images, features)
            expected = cache.nbytes / cache.num_images * plan.num_images(len(images))
            if place == "auto" and expected > LIMIT:
                return None, (
                    f"features of all images need about {expected / 2**30:.1f} GiB and are not cached: "
                    "pass --model.cache file or --model.cache memory"
                )
            advance()
    cache.close()
    where = f"in {path}" if place == "file" else "in memory"
    return (
        cache,
        f"features of {cache.num_images:,} images were computed once ({cache.nbytes / 2**20:,.1f} MiB {where})",
    )


def _count(loader: object) -> int:
    try:
        return len(loader)  # type: ignore[arg-type]  # some have no length
    except TypeError:
        return 0


@contextmanager
def _progress(trainer: pl.Trainer, total: int) -> Iterator[Callable[[], None]]:
    """Show progress on the trainer's progress bar, for both kinds of Lightning's progress bars."""
    bar = trainer.progress_bar_callback
    rich = getattr(bar, "progress", None)
    if bar is None or not getattr(bar, "is_enabled", False):
        yield lambda: None
    elif rich is not None:
        task = rich.add_task("Features", total=total)
        try:
            yield lambda: rich.update(task, advance=1)
        finally:
            rich.remove_task(task)
    else:
        with tqdm(total=total, desc="Features", unit="batch", leave=False) as shown:
            yield lambda: (shown.update(), None)[1]
