"""Reads image files into arrays, at once or batch by batch, with a progress bar and a rule for damaged files."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from lightning_cifar.data.augment import Pipeline
from lightning_cifar.data.image_tree import KINDS, check_root, report_left_out
from lightning_cifar.files.image_folders import find_images
from lightning_cifar.files.images import Fit, Pixels, UnreadableImageError, check_image, read_views
from lightning_cifar.files.text import plain_text

logger = logging.getLogger(__name__)

Damaged = Literal["refuse", "skip"]

_PATIENCE = 1.0  # seconds before a progress bar appears
_PORTION = 256  # files in memory at once when they are only checked
_MOST_NAMED = 20  # damaged files that are listed one by one


class DamagedFilesError(ValueError):
    """Files cannot be read, and the rule is to refuse them.

    Attributes:
        messages: Name and reason for each file.
        total: Number of files that were read.
    """

    def __init__(self, root: Path, messages: Sequence[str], total: int) -> None:
        more = f" and {len(messages) - 3} more" if len(messages) > 3 else ""
        super().__init__(
            f"{len(messages)} of {total} files in {root} cannot be read, {', '.join(messages[:3])}{more}: "
            "repair or remove them, or pass --data.damaged skip."
        )
        self.messages, self.total = list(messages), total


class Reader(NamedTuple):
    """Reads files as images uint8 (N, size, size, channels)."""

    root: Path
    """Folder to which names in messages are relative."""
    size: int
    channels: int
    fit: Fit
    damaged: Damaged
    threads: int | None
    """Number of threads; None is one for each processor core."""

    def name(self, path: Path) -> str:
        """Return the printable name of a file."""
        return plain_text((path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix())

    def read(self, files: Sequence[Path], *, task: str | None = None) -> tuple[Pixels, list[int]]:
        """Read files.

        Args:
            task: Text of the progress bar, which appears after one second; None for no bar.

        Returns:
            The images (M, size, size, channels) of the readable files, and the indices of these files.

        Raises:
            DamagedFilesError: Files are damaged, and the rule is to refuse them.
        """
        with _progress(task, len(files)) as bar:
            views, reasons = read_views(
                files, self.size, self.channels, self.fit, threads=self.threads, on_done=bar.update
            )
        self._judge(files, reasons)
        kept = [i for i in range(len(files)) if i not in reasons]
        return (views[kept] if reasons else views), kept

    def find_damaged(self, files: Sequence[Path], *, task: str | None = None) -> list[str]:
        """Return name and reason for each file that cannot be read; the images are not kept."""
        messages = []
        with _progress(task, len(files)) as bar:
            for start in range(0, len(files), _PORTION):
                part = files[start : start + _PORTION]
                _, reasons = read_views(part, self.size, self.channels, self.fit, threads=self.threads)
                messages += self._messages(part, reasons)
                bar.update(len(part))
        return messages

    def _messages(self, files: Sequence[Path], reasons: Mapping[int, str]) -> list[str]:
        return [f"{self.name(files[i])} ({reasons[i]})" for i in sorted(reasons)]

    def find_all(self) -> list[Path]:
        """Return all images in ``root`` and in the folders inside it, whatever their class.

        Raises:
            ValueError: The folder contains no images.
        """
        check_root(self.root)
        images, others, skipped = find_images(self.root)
        if not images:
            raise ValueError(f"{self.root} contains no images: add images ({KINDS}).")
        report_left_out(self.root, others, skipped)
        found = self.check(images)
        if not found:
            raise ValueError(f"none of the {len(images)} files in {self.root} is an image: {images[0].name}, ...")
        return found

    def check(self, files: Sequence[Path]) -> list[Path]:
        """Return the files that begin like images; their pixels are not read.

        Raises:
            DamagedFilesError: Other files exist, and the rule is to refuse them.
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
        """Refuse damaged files, or log that they are left out."""
        messages = self._messages(files, reasons)
        if messages and self.damaged == "refuse":
            raise DamagedFilesError(self.root, messages, len(files))
        for message in messages[:_MOST_NAMED]:
            logger.warning("left out: %s", message)
        if len(messages) > _MOST_NAMED:
            logger.warning("left out: %d more files that cannot be read", len(messages) - _MOST_NAMED)


def _progress(task: str | None, total: int) -> tqdm:
    """Return a progress bar that appears after a while; in a log, it is written rarely."""
    pace = {} if sys.stderr.isatty() else {"mininterval": 10, "maxinterval": 60}
    return tqdm(total=total, desc=task, unit=" files", delay=_PATIENCE, disable=task is None, **pace)


def check_memory(count: int, side: int, needed: float, limit: float | None) -> None:
    """Log the memory of ``count`` images, in GB.

    Raises:
        ValueError: The images need more than ``limit``, or more than half of the memory of the machine.
    """
    images = f"{count:,} images of {side} x {side} pixels"
    allowed = "half of the machine's memory" if limit is None else "max_memory"
    if limit is None:
        limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2e9
    if needed > limit:
        raise ValueError(
            f"{images} need {_size(needed)}, more than {allowed}, {_size(limit)}: pass a smaller --data.image_size or "
            "--data.num_train, or raise --data.max_memory."
        )
    rank_zero_info(f"{images} take {_size(needed)} of memory")


def _size(gigabytes: float) -> str:
    return f"{gigabytes:.3g} GB" if gigabytes >= 1 else f"{max(1000 * gigabytes, 1):.0f} MB"


def mean_and_std(images: Pixels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the exact mean and std of each channel of images (N, H, W, C) in [0, 1], from counts of grey levels."""
    levels = np.arange(256) / 255
    means, deviations = [], []
    for channel in range(images.shape[-1]):
        counts = np.zeros(256, np.int64)
        for image in images:  # one at a time, because bincount converts each byte to eight
            counts += np.bincount(image[..., channel].ravel(), minlength=256)
        share = counts / counts.sum()
        means.append(float(share @ levels))
        deviations.append(float(np.sqrt(share @ (levels - means[-1]) ** 2)))
    return tuple(means), tuple(deviations)


class FileBatches:
    """Iterates over (images, numbers): normalised float32 (N, C, H, W), and indices of the files, int64 (N,).

    The files are read batch by batch, so that any number of them fits into memory. Damaged files are left out.

    Args:
        mean: Mean of each channel, for images in [0, 1].
        std: Standard deviation of each channel.
        rank: Number of this process; each file is in one process.
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
        self.sampler = self.batch_sampler = None  # the Trainer reads them

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
            raise ValueError(f"none of the {len(self.numbers)} files in {self.reader.root} can be read: repair them.")
