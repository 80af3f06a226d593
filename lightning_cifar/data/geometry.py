"""Augmentations that move pixels: flip, crop, shift-scale-rotate, random resized crop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cifar.data.counter_rng import ALTERNATING, uniform
from lightning_cifar.data.crop_table import RowTable


@dataclass(frozen=True)
class Samples:
    """Which samples a batch holds: their addresses for draws."""

    seed: int
    epoch: int
    indices: Tensor  # int64 (N,)


def check_probability(name: str, p: float) -> float:
    """``p``, if it is a probability."""
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: p (={p}) must be a probability, between 0 and 1.")
    return p


def check_whole(name: str, setting: str, value: int) -> int:
    """``value``, if it is a whole number."""
    if not isinstance(value, int | float):
        raise TypeError(f"{name}: {setting} (={value!r}) must be a number.")
    if isinstance(value, bool | float):
        raise ValueError(f"{name}: {setting} (={value!r}) must be a whole number.")
    return value


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
        if not isinstance(alternating, bool):
            raise ValueError(f"flip: alternating (={alternating!r}) must be true or false.")
        self.alternating = alternating

    def mirror(self, draws: Tensor, samples: Samples) -> Tensor:
        """Which samples are mirrored: bool (N,)."""
        if not self.alternating:
            return draws[0] < self.p
        start = range(ALTERNATING, ALTERNATING + 1)
        first = uniform(samples.seed, 0, start, samples.indices)[0] < self.p
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
        if check_whole("crop", "padding", padding) < 0:
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


class ShiftScaleRotate:
    """Move, scale and turn about the centre, with bilinear interpolation; what lies outside is mirrored in.

    Args:
        shift: Largest move along each axis, as a fraction of the image size.
        scale: Largest change of the scale, as a fraction of 1.
        rotate: Largest angle in degrees, either way.
        p: Probability.
    """

    num_draws = 5

    def __init__(self, shift: float = 0.0625, scale: float = 0.1, rotate: float = 45.0, p: float = 0.5) -> None:
        for name, value, limit in (("shift", shift, 1.0), ("scale", scale, 0.99), ("rotate", rotate, 180.0)):
            if not 0 <= value <= limit:
                raise ValueError(f"shift_scale_rotate: {name} (={value}) must be between 0 and {limit:g}.")
        self.shift, self.scale, self.rotate = shift, scale, rotate
        self.p = check_probability("shift_scale_rotate", p)

    def __call__(self, images: Tensor, draws: Tensor, samples: Samples) -> Tensor:
        height, width = images.shape[1:3]
        signed = 2 * draws - 1
        angle = signed[3] * math.radians(self.rotate)
        factor = 1 + signed[2] * self.scale
        cos, sin = angle.cos() / factor, angle.sin() / factor
        # From a place in the result to the place in the image that it shows, both in pixels from the centre.
        x = torch.arange(width, device=images.device) - (width - 1) / 2
        y = torch.arange(height, device=images.device) - (height - 1) / 2
        x = x - (signed[0] * self.shift * width)[:, None]
        y = y - (signed[1] * self.shift * height)[:, None]
        source_x = (cos[:, None] * x)[:, None, :] + (sin[:, None] * y)[:, :, None]
        source_y = (cos[:, None] * y)[:, :, None] - (sin[:, None] * x)[:, None, :]
        grid = torch.stack([source_x * (2 / (width - 1)), source_y * (2 / (height - 1))], dim=3)
        return choose(draws[4] < self.p, interpolate(images, grid, outside="reflection"), images)


class ResizedCrop:
    """Cut a random box out and resize it to the image size, with bilinear interpolation (Szegedy et al., 1409.4842).

    Differs from torchvision's in that a box that would not fit is cut to the image instead of drawn again, and in that
    its place is not rounded to whole pixels.

    Args:
        scale: Smallest area of the box, as a fraction of the image; the largest is the whole image.
        ratio: Largest ratio of the sides, either way.
    """

    num_draws = 4

    def __init__(self, scale: float = 0.08, ratio: float = 4 / 3) -> None:
        if not 0 < scale <= 1:
            raise ValueError(f"resized_crop: scale (={scale}) must be an area above 0, up to 1.")
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
        # interpolate counts from -1 at the first pixel's centre to 1 at the last one's
        grid_x = ((source_x * width - 0.5) * (2 / (width - 1)) - 1)[:, None, :].expand(-1, height, -1)
        grid_y = ((source_y * height - 0.5) * (2 / (height - 1)) - 1)[:, :, None].expand(-1, -1, width)
        return interpolate(images, torch.stack([grid_x, grid_y], dim=3), outside="border")


def interpolate(images: Tensor, grid: Tensor, *, outside: Literal["reflection", "border"]) -> Tensor:
    """Grey levels between pixels, rounded: uint8 (N, H, W, C) at the places (x, y) of ``grid``, float (N, H, W, 2).

    Places count from -1 at the first pixel's centre to 1 at the last one's.
    """
    pixels = images.permute(0, 3, 1, 2).to(torch.float32)
    values = F.grid_sample(pixels, grid, mode="bilinear", padding_mode=outside, align_corners=True)
    return values.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def choose(chosen: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    """``changed`` where ``chosen`` (N,) is true, else ``images``, both (N, H, W, C)."""
    return torch.where(chosen[:, None, None, None], changed, images)
