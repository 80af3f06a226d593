"""Augmentation sample by sample with a pipeline of albumentations: the loader that runs it.

The law of the batch loader holds here too: what a sample becomes is a pure function of (seed, epoch, sample index), so
that workers, batch sizes, ranks and resumes do not change it. Before each sample the pipeline's random numbers start
anew from that address.

``Compose.set_random_seed`` is not the way to do that. It gives each transform generators of its own from one seed,
so that all of them toss the same coin: two flips with p = 0.5 come together or not at all. It also costs 77 us for five
transforms, where a sample costs 120 us (one core of an AVX-512 machine, albumentations 2.0.8). One pair of generators
that all transforms share draws on from transform to transform, and starts anew in 6 us.
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

from lightning_cifar.data.albumentations_pipeline import load_pipeline, one_line
from lightning_cifar.data.augment import Pipeline
from lightning_cifar.data.batches import BatchLoader
from lightning_cifar.data.counter_rng import PER_SAMPLE, key

if TYPE_CHECKING:
    import albumentations

_MASK = (1 << 64) - 1
_ZEROS = np.zeros(4, np.uint64)

# Of one batch: the epoch and the sample indices. The workers learn the epoch from it.
_Address: TypeAlias = tuple[int, list[int]]


class PerSampleLoader(BatchLoader):
    """Iterates over (images, labels): float32 (N, C, H, W), normalised, and int64 (N,), on the CPU.

    Samples are the same for any number of workers, any batch size and any number of ranks; orders are those of
    ``BatchLoader``. A pipeline without Normalize leaves grey levels, or numbers in [0, 1] after ToFloat: they are
    normalised here.

    Args:
        images: uint8 (M, H, W, C).
        labels: int64 (M,).
        source: File of the pipeline, see ``load_pipeline``.
        mean: Per channel, of images in [0, 1].
        std: Likewise.
        batch_size: Samples in a batch of each rank.
        seed: Orders the epochs and draws the augmentations.
        shuffle: A new order each epoch.
        rank: Which of ``world_size`` processes this is.
        world_size: Number of processes.
        num_workers: Processes that augment; 0 augments in this one.

    Raises:
        ValueError: If a value is out of range, the file is at fault, or its Normalize is not by ``mean`` and ``std``.
    """

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        *,
        source: str | Path,
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        if num_workers < 0:
            raise ValueError(f"num_workers (={num_workers}) must not be negative.")
        if images.ndim != 4 or images.dtype != np.uint8:
            raise ValueError(f"images ({images.dtype} {images.shape}) must be uint8 (M, H, W, C).")
        if not len(mean) == len(std) == images.shape[-1]:
            raise ValueError(f"mean (={mean}) and std (={std}) must have {images.shape[-1]} values, one a channel.")
        super().__init__(
            torch.from_numpy(images),
            torch.from_numpy(labels),
            pipeline=Pipeline([], mean=mean, std=std),
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            rank=rank,
            world_size=world_size,
        )
        pipeline = load_pipeline(source)
        _check_normalisation(pipeline, mean, std, source)
        self.num_workers = num_workers
        self._samples = _Samples(images, pipeline, seed=seed, name=str(source))

    @property
    def num_versions(self) -> None:
        """Each epoch makes its own versions of the images."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch, order = self.epoch, self.order().tolist()
        batches = [(epoch, order[start : start + self.batch_size]) for start in range(0, len(order), self.batch_size)]
        for (_, indices), images in zip(batches, self._augmented(batches), strict=True):
            if isinstance(images, str):
                raise ValueError(images)
            yield self._finish(images), self.labels[indices]

    def _augmented(self, batches: list[_Address]) -> DataLoader[Tensor | str]:
        """The batches in their order, out of workers that live for one epoch.

        A fork costs 0.05 s and shares the images. Workers that live on hang for 5 s each at their end, where the
        garbage collector finds them in a cycle, as everything that a Trainer holds is in one.
        """
        forks = self.num_workers > 0 and sys.platform == "linux"  # not the default of every version of Python
        return DataLoader(
            self._samples,
            sampler=batches,
            batch_size=None,  # each address is a whole batch already
            collate_fn=_as_it_is,
            num_workers=self.num_workers,
            worker_init_fn=_use_one_thread,
            multiprocessing_context="fork" if forks else None,
            generator=torch.Generator(),  # it would draw from the global one, and so change the run
        )

    def _finish(self, images: Tensor) -> Tensor:
        if self._samples.normalised:
            return images.permute(0, 3, 1, 2)
        self.pipeline.load(images[:0])  # for the size that the augmentation gave them
        return self.pipeline.normalise(images)


class _Samples(Dataset["Tensor | str"]):
    """Augmented batches by (epoch, sample indices): uint8 or float32 (N, H, W, C), or what went wrong, in one line."""

    def __init__(
        self, images: npt.NDArray[np.uint8], pipeline: albumentations.Compose, *, seed: int, name: str
    ) -> None:
        self.images, self.pipeline, self.seed, self.name = images, pipeline, seed, name
        self.normalised = any(type(step).__name__ == "Normalize" for step in pipeline.transforms)
        self.random = random.Random()
        self.generator = np.random.Generator(np.random.Philox())
        pipeline.set_random_state(self.generator, self.random)  # reaches the nested ones too

    def __getitem__(self, address: _Address) -> Tensor | str:
        epoch, indices = address
        arrays = []
        for index in indices:
            try:
                arrays.append(self.sample(epoch, index))
            except Exception as error:  # from a worker it would come over many lines
                return f"{self.name}: sample {index} in epoch {epoch}: {one_line(error)}"
        if len(shapes := dict.fromkeys(array.shape for array in arrays)) > 1:
            first, second = list(shapes)[:2]
            return (
                f"{self.name}: images come out in different shapes, {first} and {second}: "
                "end with one size, such as - Resize: {height: 32, width: 32}"
            )
        return torch.from_numpy(np.stack(arrays))

    def sample(self, epoch: int, index: int) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
        """One augmented image (H, W, C): normalised where the pipeline does so, otherwise grey levels 0 to 255."""
        self._start(key(self.seed, epoch, PER_SAMPLE, index) & _MASK)
        image = self.pipeline(image=self.images[index].copy())["image"]  # a transform may write in place
        array: npt.NDArray[Any] = image.permute(1, 2, 0).numpy() if isinstance(image, Tensor) else np.asarray(image)
        if array.ndim == 2:
            array = array[..., None]
        if array.shape[-1] != self.images.shape[-1]:
            raise ValueError(f"{array.shape[-1]} channels come out where {self.images.shape[-1]} came in")
        if np.issubdtype(array.dtype, np.floating):
            array = array.astype(np.float32, copy=False)
            return array if self.normalised else array * np.float32(255)
        if array.dtype != np.uint8 or self.normalised:
            raise ValueError(f"{array.dtype} images come out, where uint8, or float32 from ToFloat or Normalize, must")
        return array

    def _start(self, value: int) -> None:
        """Start the random numbers anew, as new generators would."""
        self.random.seed(value)
        self.generator.bit_generator.state = {
            "bit_generator": "Philox",
            "state": {"counter": _ZEROS, "key": np.array([value, 0], np.uint64)},
            "buffer": _ZEROS,
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }


def _as_it_is(batch: Any) -> Any:
    return batch


def _use_one_thread(worker: int) -> None:
    import cv2  # albumentations stands on it

    cv2.setNumThreads(0)


def _check_normalisation(
    pipeline: albumentations.Compose, mean: Sequence[float], std: Sequence[float], source: str | Path
) -> None:
    """Validation images are normalised by the data's mean and std: the training images must be so too."""
    for step in pipeline.transforms:
        if type(step).__name__ == "Normalize":
            plain = step.normalization == "standard" and step.max_pixel_value == 255
            if not (plain and _agree(step.mean, mean) and _agree(step.std, std)):
                raise ValueError(
                    f"{source}: Normalize (mean {step.mean}, std {step.std}, {step.normalization}) differs from the "
                    f"data's mean {tuple(mean)} and std {tuple(std)}, as validation has: leave it out or match them."
                )


def _agree(given: float | tuple[float, ...] | None, wanted: Sequence[float]) -> bool:
    values = np.atleast_1d(np.asarray(given, np.float64))
    return values.size in (1, len(wanted)) and np.allclose(values, wanted, rtol=0, atol=1e-6)
