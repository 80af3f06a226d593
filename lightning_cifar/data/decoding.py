"""Image files to pixels: with a progress bar, by a rule for damaged ones, at once or batch by batch."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_cifar.data.augment import Pipeline
from lightning_cifar.files.images import Fit, Pixels, UnreadableImageError, check_image, read_views
from lightning_cifar.files.text import plain_text

logger = logging.getLogger(__name__)

Damaged = Literal["refuse", "skip"]

_PATIENCE = 1.0  # seconds before a progress bar appears
_PORTION = 256  # files that are in memory at once where they are only checked
_MOST_TOLD = 20  # damaged files that are named one by one


class DamagedFilesError(ValueError):
    """Files cannot be read, and the rule is to refuse them.

    Attributes:
        told: name and reason of each.
        total: number of files that were read.
    """

    def __init__(self, root: Path, told: Sequence[str], total: int) -> None:
        more = f" and {len(told) - 3} more" if len(told) > 3 else ""
        super().__init__(
            f"{len(told)} of {total} files in {root} cannot be read, {', '.join(told[:3])}{more}: "
            "mend or remove them, or pass --data.damaged skip."
        )
        self.told, self.total = list(told), total


class Reader(NamedTuple):
    """How files become images uint8 (N, size, size, channels)."""

    root: Path
    """Names are told relative to it."""
    size: int
    channels: int
    fit: Fit
    damaged: Damaged
    threads: int | None
    """None is one for each processor core."""

    def name(self, path: Path) -> str:
        """Of a file, for people."""
        return plain_text((path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix())

    def read(self, files: Sequence[Path], *, task: str | None = None) -> tuple[Pixels, list[int]]:
        """Read files.

        Args:
            files: N of them.
            task: Beside the progress bar, which appears when it takes longer than a second; None shows none.

        Returns:
            The images (M, size, size, channels) of those that can be read, and their positions among the files.

        Raises:
            DamagedFilesError: Files are damaged, and the rule is to refuse them.
        """
        with ExitStack() as stack:
            views, reasons = read_views(
                files,
                self.size,
                self.channels,
                self.fit,
                threads=self.threads,
                on_done=_progress(stack, task, len(files)),
            )
        self._judge(files, reasons)
        kept = [i for i in range(len(files)) if i not in reasons]
        return (views[kept] if reasons else views), kept

    def find_damaged(self, files: Sequence[Path], *, task: str | None = None) -> list[str]:
        """Name and reason of each file that cannot be read; the images are read, and not kept."""
        told = []
        with ExitStack() as stack:
            show = _progress(stack, task, len(files))
            for start in range(0, len(files), _PORTION):
                part = files[start : start + _PORTION]
                _, reasons = read_views(part, self.size, self.channels, self.fit, threads=self.threads)
                told += self._told(part, reasons)
                show(start + len(part))
        return told

    def _told(self, files: Sequence[Path], reasons: Mapping[int, str]) -> list[str]:
        return [f"{self.name(files[i])} ({reasons[i]})" for i in sorted(reasons)]

    def check(self, files: Sequence[Path]) -> list[Path]:
        """Those files that begin as images do; their pixels are not read.

        Raises:
            DamagedFilesError: Others are among them, and the rule is to refuse them.
        """
        reasons = {}
        for i, path in enumerate(files):
            try:
                check_image(path)
            except UnreadableImageError as error:
                reasons[i] = str(error)
        self._judge(files, reasons)
        return [path for i, path in enumerate(files) if i not in reasons]

    def _judge(self, files: Sequence[Path], reasons: Mapping[int, str]) -> None:
        """Refuse files, or tell that they are left out."""
        told = self._told(files, reasons)
        if told and self.damaged == "refuse":
            raise DamagedFilesError(self.root, told, len(files))
        for line in told[:_MOST_TOLD]:
            logger.warning("left out: %s", line)
        if len(told) > _MOST_TOLD:
            logger.warning("left out: %d more files that cannot be read", len(told) - _MOST_TOLD)


def _progress(stack: ExitStack, task: str | None, total: int) -> Callable[[int], None]:
    """A function of the number done that draws a bar once that is worth it."""
    if task is None:
        return lambda done: None
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True))
    number = bar.add_task(task, total=total)
    shown = False

    def show(done: int) -> None:
        nonlocal shown
        if not shown and time.monotonic() - began >= _PATIENCE and done < total:
            stack.enter_context(bar)
            shown = True
        if shown:
            bar.update(number, completed=done)

    return show


def check_memory(count: int, side: int, needed: float, limit: float | None) -> None:
    """Say how many GB ``count`` images need, and refuse what is more than ``limit``, or half of the machine's memory.

    Raises:
        ValueError: They need more.
    """
    images = f"{count:,} images of {side} x {side} pixels"
    whose = "half of the machine's memory" if limit is None else "max_memory"
    if limit is None:
        limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2e9
    if needed > limit:
        raise ValueError(
            f"{images} need {_size(needed)}, more than {whose}, {_size(limit)}: pass a smaller --data.image_size or "
            "--data.num_train, or raise --data.max_memory."
        )
    rank_zero_info(f"{images} take {_size(needed)} of memory")


def _size(gigabytes: float) -> str:
    return f"{gigabytes:.3g} GB" if gigabytes >= 1 else f"{max(1000 * gigabytes, 1):.0f} MB"


def mean_and_std(images: Pixels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of each channel of images (N, H, W, C), taken as numbers in [0, 1]; exact, from how often each level occurs."""
    levels = np.arange(256) / 255
    means, deviations = [], []
    for channel in range(images.shape[-1]):
        counts = np.zeros(256, np.int64)
        for image in images:  # one at a time, since counting makes eight bytes of each
            counts += np.bincount(image[..., channel].ravel(), minlength=256)
        share = counts / counts.sum()
        means.append(float(share @ levels))
        deviations.append(float(np.sqrt(share @ (levels - means[-1]) ** 2)))
    return tuple(means), tuple(deviations)


class FileBatches:
    """Iterates over (images, numbers): float32 (N, C, H, W) normalised, and int64 (N,), which of the files they are.

    The files are read batch by batch, so that any number of them fits into memory; those that are damaged are not among
    the batches.

    Args:
        files: Image files.
        reader: How to read them.
        mean: Per channel, of images in [0, 1].
        std: Likewise.
        batch_size: Images in a batch.
        device: Where the batches are wanted.
        rank: Which of ``world_size`` processes this is; each file goes to one.
        world_size: Number of processes.
    """

    def __init__(
        self,
        files: Sequence[Path],
        reader: Reader,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int,
        device: torch.device,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.files, self.reader, self.batch_size, self.device = list(files), reader, batch_size, device
        self.numbers = list(range(rank, len(self.files), world_size))
        self.pipeline = Pipeline([], mean=mean, std=std)
        self.pipeline.load(torch.zeros(1, reader.size, reader.size, reader.channels, dtype=torch.uint8, device=device))
        self.sampler = self.batch_sampler = None  # the Trainer asks for them

    def __len__(self) -> int:
        return (len(self.numbers) + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        any_read = False
        for start in range(0, len(self.numbers), self.batch_size):
            numbers = self.numbers[start : start + self.batch_size]
            views, kept = self.reader.read([self.files[number] for number in numbers])
            if not kept:
                continue
            any_read = True
            images = torch.from_numpy(views).to(self.device)
            yield self.pipeline.normalise(images), torch.from_numpy(np.asarray(numbers)[kept]).to(self.device)
        if self.numbers and not any_read:
            raise ValueError(f"none of the {len(self.numbers)} files in {self.reader.root} can be read: mend them.")
