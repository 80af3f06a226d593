"""Augmentations that move pixels: flip, crop, shift-scale-rotate, random resized crop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cifar.data.checks import check_between, check_whole
from lightning_cifar.data.counter_rng import ALTERNATING, uniform
from lightning_cifar.data.crop_table import RowTable


@dataclass(frozen=True)
class Samples:
    """The samples of a batch, as the addresses of their random numbers."""

    seed: int
    epoch: int
    indices: Tensor  # int64 (N,)


class Augmentation(Protocol):
    """An augmentation of images (N, H, W, C) with ``num_draws`` rows of random numbers (num_draws, N) in [0, 1)."""

    num_draws: int

    def __call__(self, images: Tensor, draws: Tensor, samples: Samples) -> Tensor: ...


class Flip:
    """Mirror left and right.

    Args:
        p: Probability.
        alternating: Whether to mirror each sample in every second epoch instead, half of the samples in the even ones,
            so that two consecutive epochs show both versions (airbench: Jordan, arXiv:2404.00498).
    """

    num_draws = 1

    def __init__(self, p: float = 0.5, *, alternating: bool = False) -> None:
        check_between("flip", p=p)
        self.p = p
        if not isinstance(alternating, bool):
            raise ValueError(f"flip: alternating (={alternating!r}) must be true or false.")
        self.alternating = alternating

    def mirror(self, draws: Tensor, samples: Samples) -> Tensor:
        """Return which samples are mirrored: bool (N,)."""
        if not self.alternating:
            return draws[0] < self.p
        start = range(ALTERNATING, ALTERNATING + 1)
        first = uniform(samples.seed, 0, start, samples.indices)[0] < self.p
        return first ^ bool(samples.epoch % 2)

    def __call__(self, images: Tensor, draws: Tensor, samples: Samples) -> Tensor:
        return torch.where(self.mirror(draws, samples)[:, None, None, None], images.flip(2), images)


class Crop:
    """Pad each side and cut out the original size at a random position.

    Args:
        padding: Number of pixels on each side.
        mode: ``"reflect"`` mirrors about the border pixel, ``"zero"`` pads with black.
    """

    num_draws = 2

    def __init__(self, padding: int = 4, mode: Literal["reflect", "zero"] = "reflect") -> None:
        check_whole("crop", 0, padding=padding)
        if mode not in ("reflect", "zero"):
            raise ValueError(f"crop: mode (={mode!r}) must be reflect or zero.")
        self.padding = padding
        self.mode: Literal["reflect", "zero"] = mode

    def corner(self, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Return the upper left corners in the padded images: two int64 (N,), 0 to 2 * padding."""
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


class ShiftScaleRotate:
    """Shift, scale and rotate about the centre, with bilinear interpolation and reflection at the border.

    Args:
        shift: Largest shift along each axis, as a fraction of the image size.
        scale: Largest change of the scale: 0.1 gives factors from 0.9 to 1.1.
        rotate: Largest angle in either direction, degrees.
        p: Probability.
    """

    num_draws = 5

    def __init__(self, shift: float = 0.0625, scale: float = 0.1, rotate: float = 45.0, p: float = 0.5) -> None:
        check_between("shift_scale_rotate", shift=shift, p=p)
        check_between("shift_scale_rotate", 0.99, scale=scale)
        check_between("shift_scale_rotate", 180, rotate=rotate)
        self.shift, self.scale, self.rotate, self.p = shift, scale, rotate, p

    def __call__(self, images: Tensor, draws: Tensor, samples: Samples) -> Tensor:
        height, width = images.shape[1:3]
        signed = 2 * draws - 1
        angle = signed[3] * math.radians(self.rotate)
        factor = 1 + signed[2] * self.scale
        cos, sin = angle.cos() / factor, angle.sin() / factor
        # From a position in the result to its source in the image, both in pixels from the centre.
        x = torch.arange(width, device=images.device) - (width - 1) / 2
        y = torch.arange(height, device=images.device) - (height - 1) / 2
        x = x - (signed[0] * self.shift * width)[:, None]
        y = y - (signed[1] * self.shift * height)[:, None]
        source_x = (cos[:, None] * x)[:, None, :] + (sin[:, None] * y)[:, :, None]
        source_y = (cos[:, None] * y)[:, :, None] - (sin[:, None] * x)[:, None, :]
        grid = torch.stack([source_x * (2 / (width - 1)), source_y * (2 / (height - 1))], dim=3)
        return choose(draws[4] < self.p, interpolate(images, grid, outside="reflection"), images)


class ResizedCrop:
    """Cut out a random box and resize it to the image size, with bilinear interpolation (Szegedy et al., 1409.4842).

    Differences from torchvision: a box that does not fit is cut to the image instead of drawn again, and its position
    is not rounded to whole pixels.

    Args:
        scale: Smallest area of the box, as a fraction of the image; the largest is the whole image.
        ratio: Largest aspect ratio, in either direction.
    """

    num_draws = 4

    def __init__(self, scale: float = 0.08, ratio: float = 4 / 3) -> None:
        if not 0 < scale <= 1:
            raise ValueError(f"resized_crop: scale (={scale}) must be above 0 and at most 1.")
        if not (math.isfinite(ratio) and ratio >= 1):
            raise ValueError(f"resized_crop: ratio (={ratio}) must be at least 1.")
        self.scale, self.ratio = scale, ratio

    def __call__(self, images: Tensor, draws: Tensor, samples: Samples) -> Tensor:
        height, width = images.shape[1:3]
        area = self.scale + (1 - self.scale) * draws[0]
        stretch = ((2 * draws[1] - 1) * math.log(self.ratio)).exp()
        box_width = (area * stretch).sqrt().clamp(max=1.0)  # as fractions of the image
        box_height = (area / stretch).sqrt().clamp(max=1.0)
        x = (torch.arange(width, device=images.device) + 0.5) / width
        y = (torch.arange(height, device=images.device) + 0.5) / height
        source_x = ((1 - box_width) * draws[2])[:, None] + box_width[:, None] * x
        source_y = ((1 - box_height) * draws[3])[:, None] + box_height[:, None] * y
        # see interpolate for the coordinates
        grid_x = ((source_x * width - 0.5) * (2 / (width - 1)) - 1)[:, None, :].expand(-1, height, -1)
        grid_y = ((source_y * height - 0.5) * (2 / (height - 1)) - 1)[:, :, None].expand(-1, -1, width)
        return interpolate(images, torch.stack([grid_x, grid_y], dim=3), outside="border")


def interpolate(images: Tensor, grid: Tensor, *, outside: Literal["reflection", "border"]) -> Tensor:
    """Return interpolated and rounded grey levels, uint8 (N, H, W, C), at (x, y) of ``grid``, float (N, H, W, 2).

    Coordinates are -1 at the centre of the first pixel and 1 at the centre of the last one.
    """
    pixels = images.permute(0, 3, 1, 2).to(torch.float32)
    values = F.grid_sample(pixels, grid, mode="bilinear", padding_mode=outside, align_corners=True)
    return values.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def choose(chosen: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    """Return ``changed`` where ``chosen`` (N,) is true, else ``images``, both (N, H, W, C)."""
    return torch.where(chosen[:, None, None, None], changed, images)
