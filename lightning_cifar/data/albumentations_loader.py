"""The loader that augments each sample with a pipeline of albumentations.

As in the batch loader, an augmented sample is a pure function of (seed, epoch, sample index): workers, batch sizes,
ranks and resumes do not change it. Before each sample, the random generators of the pipeline are seeded from them.

``Compose.set_random_seed`` is not used: it gives each transform separate generators with the same seed, so that two
flips with p = 0.5 always occur together. It also takes 77 us for five transforms, where a sample takes 120 us (one core
of an AVX-512 machine, albumentations 2.0.8). Seeding one pair of generators that all transforms share takes 6 us.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_cifar.data.albumentations_pipeline import load_pipeline
from lightning_cifar.data.augment import Pipeline
from lightning_cifar.data.batches import BatchLoader
from lightning_cifar.data.checks import check_at_least
from lightning_cifar.data.counter_rng import PER_SAMPLE, key
from lightning_cifar.errors import one_line

if TYPE_CHECKING:
    import albumentations

_MASK = (1 << 64) - 1
_ZEROS = np.zeros(4, np.uint64)

# The epoch and the sample indices of one batch; it passes the epoch to the workers.
_Address: TypeAlias = tuple[int, list[int]]


class PerSampleLoader(BatchLoader):
    """Iterates over (images, labels): float32 (N, C, H, W), normalised, and int64 (N,), on the CPU.

    Samples are equal for any number of workers and ranks and any batch size; the orders are those of ``BatchLoader``.
    If the pipeline has no Normalize, its grey levels, or numbers in [0, 1] after ToFloat, are normalised afterwards.

    Args:
        images: uint8 (M, H, W, C).
        labels: int64 (M,).
        source: File of the pipeline, see ``load_pipeline``.
        mean: Mean of each channel, for images in [0, 1].
        std: Standard deviation of each channel.
        num_workers: Number of processes that augment; 0 augments in this process.
        shuffle: Whether each epoch has a new order.
        **settings: See ``BatchLoader``.

    Raises:
        ValueError: A value is out of range, the file has a mistake, or its Normalize differs from ``mean`` and ``std``.
    """

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        *,
        source: str | Path,
        mean: Sequence[float],
        std: Sequence[float],
        num_workers: int = 0,
        shuffle: bool = True,
        **settings: Any,
    ) -> None:
        check_at_least(0, num_workers=num_workers)
        if images.ndim != 4 or images.dtype != np.uint8:
            raise ValueError(f"images ({images.dtype} {images.shape}) must be uint8 (M, H, W, C).")
        if not len(mean) == len(std) == images.shape[-1]:
            raise ValueError(
                f"mean (={mean}) and std (={std}) must have {images.shape[-1]} values, one for each channel."
            )
        super().__init__(
            torch.from_numpy(images),
            torch.from_numpy(labels),
            pipeline=Pipeline([], mean=mean, std=std),
            shuffle=shuffle,
            **settings,
        )
        pipeline = load_pipeline(source)
        _check_normalisation(pipeline, mean, std, source)
        self.num_workers = num_workers
        self._samples = _Samples(images, pipeline, seed=self.seed, name=str(source))

    @property
    def num_versions(self) -> None:
        """Always None, since each epoch has new versions of the images."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch, order = self.epoch, self.order().tolist()
        batches = [(epoch, order[start : start + self.batch_size]) for start in range(0, len(order), self.batch_size)]
        for (_, indices), images in zip(batches, self._augmented(batches), strict=True):
            if isinstance(images, str):
                raise ValueError(images)
            yield self._finish(images), self.labels[indices]

    def _augmented(self, batches: list[_Address]) -> DataLoader[Tensor | str]:
        """Return the batches in order, from workers that live for one epoch.

        A fork takes 0.05 s and shares the images. Persistent workers hang for 5 s each at their end: the garbage
        collector finds them in a reference cycle, because all objects of a Trainer are in one.
        """
        forks = self.num_workers > 0 and sys.platform == "linux"  # not the default in every version of Python
        return DataLoader(
            self._samples,
            sampler=batches,
            batch_size=None,  # each address is a whole batch already
            num_workers=self.num_workers,
            worker_init_fn=_use_one_thread,
            multiprocessing_context="fork" if forks else None,
            generator=torch.Generator(),  # otherwise it draws from the global one, which changes the run
        )

    def _finish(self, images: Tensor) -> Tensor:
        if self._samples.normalised:
            return images.permute(0, 3, 1, 2)
        self.pipeline.load(images[:0])  # for the size after the augmentation
        return self.pipeline.normalise(images)


class _Samples(Dataset["Tensor | str"]):
    """Augmented batches by (epoch, sample indices): uint8 or float32 (N, H, W, C), or an error message in one line."""

    def __init__(
        self, images: npt.NDArray[np.uint8], pipeline: albumentations.Compose, *, seed: int, name: str
    ) -> None:
        self.images, self.pipeline, self.seed, self.name = images, pipeline, seed, name
        self.normalised = any(type(step).__name__ == "Normalize" for step in pipeline.transforms)
        self.random = random.Random()
        self.generator = np.random.Generator(np.random.Philox())
        pipeline.set_random_state(self.generator, self.random)  # of nested transforms too

    def __getitem__(self, address: _Address) -> Tensor | str:
        epoch, indices = address
        arrays = []
        for index in indices:
            try:
                arrays.append(self.sample(epoch, index))
            except Exception as error:  # an exception from a worker has many lines
                return f"{self.name}: sample {index} in epoch {epoch}: {one_line(error)}"
        if len(shapes := dict.fromkeys(array.shape for array in arrays)) > 1:
            first, second = list(shapes)[:2]
            return (
                f"{self.name}: augmented images have different shapes, {first} and {second}: "
                "end with one size, such as - Resize: {height: 32, width: 32}"
            )
        return torch.from_numpy(np.stack(arrays))

    def sample(self, epoch: int, index: int) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
        """Return an augmented image (H, W, C): normalised if the pipeline does so, otherwise grey levels 0 to 255."""
        self._start(key(self.seed, epoch, PER_SAMPLE, index) & _MASK)
        image = self.pipeline(image=self.images[index].copy())["image"]  # a transform may write in place
        array: npt.NDArray[Any] = image.permute(1, 2, 0).numpy() if isinstance(image, Tensor) else np.asarray(image)
        if array.ndim == 2:
            array = array[..., None]
        if array.shape[-1] != self.images.shape[-1]:
            raise ValueError(f"the augmented image has {array.shape[-1]} channels instead of {self.images.shape[-1]}")
        if np.issubdtype(array.dtype, np.floating):
            array = array.astype(np.float32, copy=False)
            return array if self.normalised else array * np.float32(255)
        if array.dtype != np.uint8 or self.normalised:
            raise ValueError(
                f"the augmented image is {array.dtype}: it must be uint8, or float32 from ToFloat or Normalize"
            )
        return array

    def _start(self, value: int) -> None:
        """Seed both generators, with the same effect as new generators."""
        self.random.seed(value)
        self.generator.bit_generator.state = {
            "bit_generator": "Philox",
            "state": {"counter": _ZEROS, "key": np.array([value, 0], np.uint64)},
            "buffer": _ZEROS,
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }


def _use_one_thread(worker: int) -> None:
    import cv2  # albumentations uses it

    cv2.setNumThreads(0)


def _check_normalisation(
    pipeline: albumentations.Compose, mean: Sequence[float], std: Sequence[float], source: str | Path
) -> None:
    """Check that training images are normalised with the mean and std of the data, as validation images are."""
    for step in pipeline.transforms:
        if type(step).__name__ == "Normalize":
            plain = step.normalization == "standard" and step.max_pixel_value == 255
            if not (plain and _agree(step.mean, mean) and _agree(step.std, std)):
                raise ValueError(
                    f"{source}: Normalize (mean {step.mean}, std {step.std}, {step.normalization}) differs from "
                    f"mean {tuple(mean)} and std {tuple(std)} of validation: leave it out, or pass these values."
                )


def _agree(given: float | tuple[float, ...] | None, wanted: Sequence[float]) -> bool:
    values = np.atleast_1d(np.asarray(given, np.float64))
    return values.size in (1, len(wanted)) and np.allclose(values, wanted, rtol=0, atol=1e-6)
