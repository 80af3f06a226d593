"""Augmentations of a whole batch of uint8 images, on its device.

An augmentation takes images (N, H, W, C), one row of numbers in [0, 1) for each of its draws, and gives images of the
same shape. What it draws is a pure function of (seed, epoch, sample index), see :mod:`lightning_cifar.data.draws`: it
depends neither on the batch that a sample is in, nor on workers, ranks or what ran before.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from lightning_cifar.data.draws import uniform


@dataclass(frozen=True)
class Samples:
    """Which samples a batch holds: their addresses for draws."""

    seed: int
    epoch: int
    indices: Tensor  # int64 (N,)


class RowTable:
    """Images cut into padded rows, from which crops (mirrored or not) are gathered without a pass over the pixels.

    All windows of W pixels over the rows are one overlapping view of the same memory, so that a crop is H lookups of
    contiguous bytes. Tried: gathering pixel by pixel through index arithmetic, 10 times slower on a CPU.

    Args:
        images: uint8 (M, H, W, C).
        padding: Pixels added on each side.
        mode: ``"reflect"`` mirrors about the border pixel, ``"zero"`` adds black.
        mirrored: Keep the mirrored images beside the images, which doubles the memory.
    """

    def __init__(self, images: Tensor, *, padding: int, mode: Literal["reflect", "zero"], mirrored: bool) -> None:
        num, height, width, channels = images.shape
        self.num, self.height, self.width, self.channels = num, height, width, channels
        self.padding, self.mode = padding, mode
        padded_width = width + 2 * padding
        copies = 2 if mirrored else 1
        # one more row, of zeros: what lies above and below the image in mode "zero"
        rows = images.new_zeros((copies * num * height + 1, padded_width, channels))
        for copy in range(copies):
            table = rows[copy * num * height : (copy + 1) * num * height].view(num, height, padded_width, channels)
            source = images.flip(2) if copy else images
            table[:, :, padding : padding + width] = source
            if mode == "reflect" and padding:
                table[:, :, :padding] = source[:, :, 1 : padding + 1].flip(2)
                table[:, :, padding + width :] = source[:, :, -padding - 1 : -1].flip(2)
        self._padded_width = padded_width
        flat = rows.view(-1)
        self._windows = flat.as_strided(
            (rows.shape[0] * padded_width - width + 1, width * channels), (channels, 1), flat.storage_offset()
        )

    def gather(self, indices: Tensor, top: Tensor, left: Tensor, mirror: Tensor | None = None) -> Tensor:
        """Crops (N, H, W, C) whose upper left corners are at ``(top, left)`` of the padded images, 0 to 2 * padding.

        Args:
            indices: Which images, int64 (N,).
            top: int64 (N,).
            left: int64 (N,), counted in the mirrored image where ``mirror`` is true.
            mirror: bool (N,).
        """
        rows = top[:, None] - self.padding + torch.arange(self.height, device=indices.device)
        image = indices if mirror is None else indices + mirror * self.num
        if self.mode == "reflect":
            last = self.height - 1
            rows = last - (last - rows.abs()).abs()
            rows = image[:, None] * self.height + rows
        else:
            outside = (rows < 0) | (rows >= self.height)
            rows = image[:, None] * self.height + rows
            rows[outside] = (self._windows.shape[0] + self.width - 1) // self._padded_width - 1
        starts = rows * self._padded_width + left[:, None]
        windows = self._windows.index_select(0, starts.view(-1))
        return windows.view(indices.shape[0], self.height, self.width, self.channels)


class Flip:
    """Mirror left and right.

    Args:
        p: Probability.
        alternating: Mirror a sample in every second epoch instead, half of the samples in the even ones, so that two
            epochs in a row show both sides of each (airbench, Jordan, 2404.00498).
    """

    num_draws = 1

    def __init__(self, p: float = 0.5, *, alternating: bool = False) -> None:
        self.p = check_probability("flip", p)
        self.alternating = alternating

    def mirror(self, draws: Tensor, samples: Samples) -> Tensor:
        """Which samples are mirrored: bool (N,)."""
        if not self.alternating:
            return draws[0] < self.p
        first = uniform(samples.seed, 0, range(1), samples.indices)[0] < self.p
        return first ^ bool(samples.epoch % 2)

    def __call__(self, images: Tensor, draws: Tensor, samples: Samples) -> Tensor:
        return torch.where(self.mirror(draws, samples)[:, None, None, None], images.flip(2), images)


class Crop:
    """Pad each side and cut the original size out at a random place.

    Args:
        padding: Pixels.
        mode: ``"reflect"`` mirrors about the border pixel, ``"zero"`` pads with black.
    """

    num_draws = 2

    def __init__(self, padding: int = 4, mode: Literal["reflect", "zero"] = "reflect") -> None:
        if padding < 0:
            raise ValueError(f"crop: padding (={padding}) must not be negative.")
        if mode not in ("reflect", "zero"):
            raise ValueError(f"crop: mode (={mode!r}) must be reflect or zero.")
        self.padding = padding
        self.mode: Literal["reflect", "zero"] = mode

    def corner(self, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Upper left corners in the padded images: two int64 (N,), 0 to 2 * padding."""
        top, left = (draws[:2] * (2 * self.padding + 1)).long()
        return top, left

    def check_size(self, height: int, width: int) -> None:
        if self.mode == "reflect" and self.padding >= min(height, width):
            raise ValueError(
                f"crop: padding (={self.padding}) must be below the image size ({height} x {width} pixels)."
            )

    def __call__(self, images: Tensor, draws: Tensor, samples: Samples) -> Tensor:
        table = RowTable(images, padding=self.padding, mode=self.mode, mirrored=False)
        return table.gather(torch.arange(len(images), device=images.device), *self.corner(draws))


class Cutout:
    """Fill a square at a random place, cut off at the border (DeVries & Taylor, 1708.04552).

    Args:
        size: Side in pixels.
        p: Probability.
        fill: Grey level 0 to 255, or ``"mean"`` for the data's mean colour.
    """

    num_draws = 3

    def __init__(self, size: int = 8, p: float = 1.0, fill: int | Literal["mean"] = "mean") -> None:
        if size < 1:
            raise ValueError(f"cutout: size (={size}) must be at least 1 pixel.")
        if fill != "mean" and not (isinstance(fill, int) and 0 <= fill <= 255):
            raise ValueError(f"cutout: fill (={fill!r}) must be a grey level from 0 to 255 or 'mean'.")
        self.size, self.p, self.fill = size, check_probability("cutout", p), fill
        self.mean_level: tuple[int, ...] = (128,)

    def check_size(self, height: int, width: int) -> None:
        if self.size > min(height, width):
            raise ValueError(f"cutout: size (={self.size}) must not exceed the image size ({height} x {width} pixels).")

    def __call__(self, images: Tensor, draws: Tensor, samples: Samples) -> Tensor:
        num, height, width, channels = images.shape
        # The centre is anywhere in the image, so that the square may lie partly outside.
        top = (draws[0] * height).long() - self.size // 2
        left = (draws[1] * width).long() - self.size // 2
        side = torch.arange(self.size, device=images.device)
        # A pixel outside is moved onto the nearest one of the square inside: it is written twice, which does no harm.
        rows = (top[:, None] + side).clamp(0, height - 1)
        columns = (left[:, None] + side).clamp(0, width - 1)
        image = torch.arange(num, device=images.device)
        if self.p < 1:
            chosen = draws[2] < self.p
            image, rows, columns = image[chosen], rows[chosen], columns[chosen]
        pixels = (image[:, None, None] * height + rows[:, :, None]) * width + columns[:, None, :]
        level = self.mean_level if self.fill == "mean" else (self.fill,)
        value = torch.tensor(level, dtype=torch.uint8, device=images.device).expand(pixels.numel(), channels)
        return images.reshape(-1, channels).index_copy(0, pixels.view(-1), value).view_as(images)


def check_probability(name: str, p: float) -> float:
    """``p``, if it is a probability."""
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: p (={p}) must be a probability, between 0 and 1.")
    return p


Augmentation: TypeAlias = Flip | Crop | Cutout
# A name, or a name with its strength, or a name with its arguments: flip, {crop: 4}, {crop: {padding: 4, mode: zero}}
Argument: TypeAlias = bool | int | float | str
Spec: TypeAlias = str | Mapping[str, Argument | Mapping[str, Argument]]

BY_NAME: dict[str, type[Augmentation]] = {"flip": Flip, "crop": Crop, "cutout": Cutout}


def build(specs: Sequence[Spec]) -> list[Augmentation]:
    """The augmentations that a list of plain values names, as it stands in a YAML file.

    >>> [type(operation).__name__ for operation in build(["flip", {"crop": 4}, {"cutout": {"size": 8, "p": 0.5}}])]
    ['Flip', 'Crop', 'Cutout']

    Raises:
        ValueError: An unknown name, unknown arguments or values out of range.
    """
    if isinstance(specs, str):
        raise ValueError(f"augment (={specs!r}) must be a list, such as [flip, {{crop: 4}}].")
    return [_build_one(spec) for spec in specs]


_NO_ARGUMENTS: Argument | Mapping[str, Argument] = {}


def _build_one(spec: Spec) -> Augmentation:
    if isinstance(spec, str):
        name, arguments = spec, _NO_ARGUMENTS
    elif isinstance(spec, Mapping) and len(spec) == 1:
        name, arguments = next(iter(spec.items()))
    else:
        raise ValueError(f"augment: {spec!r} must be a name or one name with its settings, such as {{crop: 4}}.")
    if name not in BY_NAME:
        near = difflib.get_close_matches(name, BY_NAME, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(BY_NAME)}."
        raise ValueError(f"augment: there is no {name!r}; {hint}")
    kind: Callable[..., Augmentation] = BY_NAME[name]
    try:
        return kind(**arguments) if isinstance(arguments, Mapping) else kind(arguments)
    except TypeError as error:
        accepted = ", ".join(inspect.signature(kind).parameters)
        raise ValueError(f"augment: {name} cannot be made from {arguments!r}; its settings are {accepted}.") from error


class Pipeline:
    """Uint8 images in memory to augmented, normalised batches.

    Args:
        operations: Applied in order.
        mean: Per channel, of images in [0, 1].
        std: Likewise.
    """

    def __init__(self, operations: Sequence[Augmentation], *, mean: Sequence[float], std: Sequence[float]) -> None:
        self.operations = list(operations)
        self.mean, self.std = tuple(mean), tuple(std)
        for operation in self.operations:
            if isinstance(operation, Cutout):
                operation.mean_level = tuple(round(255 * value) for value in self.mean)
        # Flip and crop at the front cost nothing but the lookup: see RowTable.
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
        """Make the images (M, H, W, C), uint8, ready to be gathered from, on the device where they are."""
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
        """The numbers that the operations need for these samples: float32 (num_draws, N)."""
        return uniform(seed, epoch, range(self.num_draws), indices)

    def __call__(self, samples: Samples, draws: Tensor) -> Tensor:
        """Normalised images, float32 (N, C, H, W), in channels_last memory format."""
        return self.normalise(self.augment(samples, draws))

    def augment(self, samples: Samples, draws: Tensor) -> Tensor:
        """Augmented images, uint8 (N, H, W, C)."""
        if self._images is None:
            raise RuntimeError("Pipeline.load has to come before the first batch.")
        images = self._images.index_select(0, samples.indices) if self._table is None else self._gather(samples, draws)
        for i in range(len(self._front), len(self.operations)):
            images = self.operations[i](images, self._draws_of(i, draws), samples)
        return images

    def normalise(self, images: Tensor) -> Tensor:
        num, height, width, channels = images.shape
        # One long row an image: broadcasting over a last axis of 3 is 4 times slower on a CPU.
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
                if i > 0:  # cropped before: the same place, counted from the other side
                    left = torch.where(mirror, 2 * self._table.padding - left, left)
            elif isinstance(operation, Crop):
                top, left = operation.corner(self._draws_of(i, draws))
        return self._table.gather(samples.indices, top, left, mirror)
