"""Features of images, computed once and found again by the content of the images."""

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
"""Bytes up to which features are kept in memory without being asked."""

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by size of an element
_MOST = 1 << 22  # numbers that are multiplied at a time, which bounds the memory of the products


def image_keys(images: Tensor) -> Tensor:
    """Two sums of 64 bits of each image's bits times fixed random numbers: int64 (N, 2).

    Images of the same pixels have the same keys, in whatever memory format and batch. With whole numbers no order of
    summation matters. Two images of a million have the same keys with a probability below 1e-9.

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
    """Odd numbers of 64 bits, always the same: int64 (2, count)."""
    generator = torch.Generator().manual_seed(0x5EED)
    return torch.randint(-(2**62), 2**62, (2, count), generator=generator).mul_(2).add_(1).to(device)


class FeatureCache:
    """Rows of features by image. Filled first, then closed, then asked.

    Args:
        path: A file to keep the features in, memory-mapped; it is removed with the cache. None keeps them in memory, on
            the device where they were computed.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._keys: list[Tensor] = []
        self._rows: list[Tensor] = []
        self._path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
            # Whatever ends the run, the file goes: what is in it is soon computed again.
            weakref.finalize(self, path.unlink, missing_ok=True)
        self.num_images = self.nbytes = 0

    def add(self, images: Tensor, features: Tensor) -> None:
        """Take the features (N, D) of images (N, C, H, W)."""
        self._keys.append(image_keys(images))
        self.num_images += len(features)
        self.nbytes += features.numel() * features.element_size()
        if self._path is None:
            self._rows.append(features)
            return
        self._rows = [features[:0]]  # says the type and the width
        with self._path.open("ab") as file:
            file.write(features.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())

    def close(self) -> None:
        """Make it ready to be asked; nothing can be added any more."""
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
        """The features (N, D) of images (N, C, H, W), on their device; None unless all of them are known."""
        first, second = image_keys(images).T.contiguous()
        place = torch.searchsorted(self._first, first).clamp_(max=self.num_images - 1)
        if not ((self._first[place] == first) & (self._second[place] == second)).all():
            return None
        return self._features[self._order[place].to(self._features.device)].to(images.device)

    def __deepcopy__(self, memo: dict[int, object]) -> FeatureCache:
        return self  # copies of the model, such as a learning-rate sweep trains, read the same features


class Plan:
    """Which images of a fit come back, so that what is computed from them is worth keeping.

    Loaders of this package say by ``num_versions`` how many versions of each image there will be; of others nothing is
    known, and they are taken only where ``place`` is chosen.

    Args:
        trainer: In ``fit``, from ``on_train_start`` on.
        place: Where features are to be kept.
        blended: Whether training images are mixed with each other, anew in each step.
    """

    def __init__(self, trainer: pl.Trainer, place: Place, *, blended: bool) -> None:
        self.sources: list[tuple[object, int]] = []
        """Loaders, each with the number of epochs after which its images come back."""
        self.note = ""
        last = trainer.max_epochs
        left = float("inf") if last is None or last < 0 else last - trainer.current_epoch
        if trainer.fast_dev_run or trainer.world_size > 1:  # type: ignore[attr-defined]  # set untyped
            self.note = "" if trainer.world_size == 1 else "features are cached in runs of one process only"
            return
        unknown = None if place == "auto" else 1
        train = trainer.train_dataloader
        versions = getattr(train, "num_versions", unknown)
        if blended:
            self.note = "training images are blended anew in each step (mixup, cutmix)"
        elif versions is None:
            self.note = (
                "training images are augmented anew in each epoch: --data.augment [] or --data.num_views would let "
                "their features be cached too"
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
        """At most; of a loader that does not say it, as many as full batches would hold."""
        return sum(
            versions * int(getattr(loader, "num_samples", _count(loader) * batch_size))
            for loader, versions in self.sources
        )

    def batches(self, trainer: pl.Trainer) -> Iterator[Tensor]:
        """The images of all sources as a step gets them, each version once; the loaders return to their epoch."""
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
    """Compute the features of all images that the plan names, once.

    Args:
        trainer: Whose loaders, device, precision and progress bar are used.
        plan: What to compute.
        features_of: Images (N, C, H, W) to features (N, D).
        place: In memory, in a file, or, with ``auto``, in memory if they are not too large for it.
        path: The file.

    Returns:
        The features, None if there are none, and a sentence for the log.
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
                    f"features of all images would take about {expected / 2**30:.1f} GiB and are not kept: "
                    "--model.cache file or --model.cache memory would keep them"
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
        return len(loader)  # type: ignore[arg-type]  # the next line is for those that have none
    except TypeError:
        return 0


@contextmanager
def _progress(trainer: pl.Trainer, total: int) -> Iterator[Callable[[], None]]:
    """A line on the trainer's own progress bar, whichever of Lightning's two that is."""
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
