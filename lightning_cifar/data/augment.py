"""Augmentations of a whole batch of uint8 images, on its device, composed by name.

An augmentation takes images (N, H, W, C) and one row of random numbers in [0, 1) for each of its draws, and returns
images of the same shape. The random numbers are a pure function of (seed, epoch, sample index), see
:mod:`lightning_cifar.data.counter_rng`: they do not depend on the batch of a sample, workers, ranks or earlier draws.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from lightning_cifar.data.colour import Brightness, Contrast, Cutout, Erasing, Grayscale, Saturation
from lightning_cifar.data.counter_rng import uniform
from lightning_cifar.data.crop_table import RowTable
from lightning_cifar.data.geometry import Augmentation, Crop, Flip, ResizedCrop, Samples, ShiftScaleRotate
from lightning_cifar.data.trivial_augment import TrivialAugment
from lightning_cifar.errors import did_you_mean

# A name, or a name with its strength, or a name with its arguments: flip, {crop: 4}, {crop: {padding: 4, mode: zero}}
Argument: TypeAlias = bool | int | float | str
Spec: TypeAlias = str | Mapping[str, Argument | Mapping[str, Argument]]

BY_NAME: dict[str, type[Augmentation]] = {
    "flip": Flip,
    "crop": Crop,
    "shift_scale_rotate": ShiftScaleRotate,
    "resized_crop": ResizedCrop,
    "brightness": Brightness,
    "contrast": Contrast,
    "saturation": Saturation,
    "grayscale": Grayscale,
    "cutout": Cutout,
    "erasing": Erasing,
    "trivial_augment": TrivialAugment,
}


def build(specs: Sequence[Spec]) -> list[Augmentation]:
    """Build the augmentations that a list of plain values, as in a YAML file, describes.

    Raises:
        ValueError: A name or an argument is unknown, or a value is out of range.

    Example:
        >>> [type(operation).__name__ for operation in build(["flip", {"crop": 4}, {"cutout": {"size": 8, "p": 0.5}}])]
        ['Flip', 'Crop', 'Cutout']
    """
    if isinstance(specs, str | Mapping):
        raise ValueError(f"augment (={specs!r}) must be a list, such as [flip, {{crop: 4}}].")
    return [_build_one(spec) for spec in specs]


def _build_one(spec: Spec) -> Augmentation:
    if isinstance(spec, str):
        spec = {spec: {}}
    if not isinstance(spec, Mapping) or len(spec) != 1:
        raise ValueError(f"augment: {spec!r} must be a name or one name with its settings, such as {{crop: 4}}.")
    name, arguments = next(iter(spec.items()))
    if not isinstance(name, str):
        raise ValueError(f"augment: {name!r} must be the name of an augmentation.")
    if name not in BY_NAME:
        hint = did_you_mean(name, BY_NAME) or f" Pass one of {', '.join(BY_NAME)}."
        raise ValueError(f"augment: unknown augmentation {name!r}.{hint}")
    kind: Callable[..., Augmentation] = BY_NAME[name]
    try:
        return kind(**arguments) if isinstance(arguments, Mapping) else kind(arguments)
    except TypeError as error:
        accepted = ", ".join(inspect.signature(kind).parameters)
        raise ValueError(f"augment: {name} cannot be made from {arguments!r}; its settings are {accepted}.") from error


class Pipeline:
    """Make augmented, normalised batches from uint8 images in memory.

    Args:
        operations: Augmentations, in order.
        mean: Mean of each channel, for images in [0, 1].
        std: Standard deviation of each channel.
    """

    def __init__(self, operations: Sequence[Augmentation], *, mean: Sequence[float], std: Sequence[float]) -> None:
        self.operations = list(operations)
        self.mean, self.std = tuple(mean), tuple(std)
        for operation in self.operations:
            if isinstance(operation, Cutout | Erasing):
                operation.mean_level = tuple(round(255 * value) for value in self.mean)
        # Flip and crop at the front cost only the lookup, see RowTable.
        front: list[Augmentation] = []
        for operation in self.operations:
            if not isinstance(operation, Flip | Crop) or type(operation) in map(type, front):
                break
            front.append(operation)
        self._front = front
        counts = [operation.num_draws for operation in self.operations]
        self._first_draw = [sum(counts[:i]) for i in range(len(counts) + 1)]
        self._table: RowTable | None = None
        self._images: Tensor | None = None

    @property
    def num_draws(self) -> int:
        return self._first_draw[-1]

    def load(self, images: Tensor) -> None:
        """Prepare images (M, H, W, C), uint8, for batches on the same device."""
        height, width = images.shape[1:3]
        for operation in self.operations:
            if isinstance(operation, Crop | Cutout):
                operation.check_size(height, width)
        self._images = images
        if self._front:
            crop = next((operation for operation in self._front if isinstance(operation, Crop)), Crop(0))
            mirrored = any(isinstance(operation, Flip) for operation in self._front)
            self._table = RowTable(images, padding=crop.padding, mode=crop.mode, mirrored=mirrored)
        pixels = height * width
        mean, std = torch.tensor([self.mean, self.std], dtype=torch.float32, device=images.device)
        self._scale = (1 / (255 * std)).repeat(pixels)
        self._offset = (-mean / std).repeat(pixels)

    def draw(self, seed: int, epoch: int, indices: Tensor) -> Tensor:
        """Return the random numbers of the operations for these samples: float32 (num_draws, N)."""
        return uniform(seed, epoch, range(self.num_draws), indices)

    def __call__(self, samples: Samples, draws: Tensor) -> Tensor:
        """Return normalised images, float32 (N, C, H, W), in channels_last memory format."""
        return self.normalise(self.augment(samples, draws))

    def augment(self, samples: Samples, draws: Tensor) -> Tensor:
        """Return augmented images, uint8 (N, H, W, C)."""
        if self._images is None:
            raise RuntimeError("Call Pipeline.load before the first batch.")
        images = self._images.index_select(0, samples.indices) if self._table is None else self._gather(samples, draws)
        for i in range(len(self._front), len(self.operations)):
            images = self.operations[i](images, self._draws_of(i, draws), samples)
        return images

    def normalise(self, images: Tensor) -> Tensor:
        num, height, width, channels = images.shape
        # One long row for each image: broadcasting over a last axis of 3 is 4 times slower on a CPU.
        normalised = torch.addcmul(self._offset, images.reshape(num, -1).float(), self._scale)
        return normalised.view(num, height, width, channels).permute(0, 3, 1, 2)

    def _draws_of(self, i: int, draws: Tensor) -> Tensor:
        return draws[self._first_draw[i] : self._first_draw[i + 1]]

    def _gather(self, samples: Samples, draws: Tensor) -> Tensor:
        assert self._table is not None
        mirror = None
        top = left = torch.zeros_like(samples.indices)
        for i, operation in enumerate(self._front):
            if isinstance(operation, Flip):
                mirror = operation.mirror(self._draws_of(i, draws), samples)
                if i > 0:  # cropped before: the same position, counted from the other side
                    left = torch.where(mirror, 2 * self._table.padding - left, left)
            elif isinstance(operation, Crop):
                top, left = operation.corner(self._draws_of(i, draws))
        return self._table.gather(samples.indices, top, left, mirror)
