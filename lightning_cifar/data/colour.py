"""Augmentations that change what pixels show: brightness, contrast, saturation, grayscale, cutout, erasing."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from lightning_cifar.data.geometry import Samples, check_probability, check_whole, choose


class Brightness:
    """Multiply the grey levels by a factor.

    Args:
        strength: The factor is drawn from ``1 - strength`` to ``1 + strength``.
    """

    num_draws = 1

    def __init__(self, strength: float = 0.4) -> None:
        self.strength = _check_strength("brightness", strength)

    def __call__(self, images: Tensor, draws: Tensor, samples: Samples) -> Tensor:
        return _blend(images, torch.zeros((), device=images.device), _factor(draws[0], self.strength))


class Contrast:
    """Move the grey levels away from the image's mean, or towards it.

    Args:
        strength: The factor is drawn from ``1 - strength`` to ``1 + strength``.
    """

    num_draws = 1

    def __init__(self, strength: float = 0.4) -> None:
        self.strength = _check_strength("contrast", strength)

    def __call__(self, images: Tensor, draws: Tensor, samples: Samples) -> Tensor:
        # Whole numbers below 2**24 add up exactly, in any order: the mean does not depend on the batch.
        mean = _grey(images).sum(dim=(1, 2, 3), keepdim=True) / (images.shape[1] * images.shape[2])
        return _blend(images, mean, _factor(draws[0], self.strength))


class Saturation:
    """Move the colours away from grey, or towards it. Grey images stay as they are.

    Args:
        strength: The factor is drawn from ``1 - strength`` to ``1 + strength``.
    """

    num_draws = 1

    def __init__(self, strength: float = 0.4) -> None:
        self.strength = _check_strength("saturation", strength)

    def __call__(self, images: Tensor, draws: Tensor, samples: Samples) -> Tensor:
        if images.shape[3] == 1:
            return images
        return _blend(images, _grey(images), _factor(draws[0], self.strength))


class Grayscale:
    """Take the colours away, keeping the number of channels.

    Args:
        p: Probability.
    """

    num_draws = 1

    def __init__(self, p: float = 0.1) -> None:
        self.p = check_probability("grayscale", p)

    def __call__(self, images: Tensor, draws: Tensor, samples: Samples) -> Tensor:
        return choose(draws[0] < self.p, _grey(images).to(torch.uint8).expand_as(images), images)


class Cutout:
    """Fill a square at a random place, cut off at the border (DeVries & Taylor, 1708.04552).

    Args:
        size: Side in pixels.
        p: Probability.
        fill: Grey level 0 to 255, or ``"mean"`` for the data's mean colour.
    """

    num_draws = 3

    def __init__(self, size: int = 8, p: float = 1.0, fill: int | Literal["mean"] = "mean") -> None:
        if check_whole("cutout", "size", size) < 1:
            raise ValueError(f"cutout: size (={size}) must be at least 1 pixel.")
        self.size, self.p, self.fill = size, check_probability("cutout", p), _check_fill("cutout", fill)
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
        value = _fill_level(self.fill, self.mean_level, images).expand(pixels.numel(), channels)
        return images.reshape(-1, channels).index_copy(0, pixels.view(-1), value).view_as(images)


class Erasing:
    """Fill a random rectangle (random erasing: Zhong et al., 1708.04896).

    Differs from torchvision's in that a rectangle that would not fit is cut to the image instead of drawn again.

    Args:
        p: Probability.
        smallest: Smallest area, as a fraction of the image.
        largest: Largest area.
        ratio: Largest ratio of the sides, either way.
        fill: Grey level 0 to 255, or ``"mean"`` for the data's mean colour.
    """

    num_draws = 5

    def __init__(
        self,
        p: float = 0.5,
        smallest: float = 0.02,
        largest: float = 0.33,
        ratio: float = 3.3,
        fill: int | Literal["mean"] = "mean",
    ) -> None:
        if not 0 < smallest <= largest <= 1:
            raise ValueError(
                f"erasing: smallest (={smallest}) and largest (={largest}) must be areas in order, up to 1."
            )
        if not (math.isfinite(ratio) and ratio >= 1):
            raise ValueError(f"erasing: ratio (={ratio}) must be at least 1.")
        self.p, self.smallest, self.largest, self.ratio = check_probability("erasing", p), smallest, largest, ratio
        self.fill = _check_fill("erasing", fill)
        self.mean_level: tuple[int, ...] = (128,)

    def __call__(self, images: Tensor, draws: Tensor, samples: Samples) -> Tensor:
        height, width = images.shape[1:3]
        area = self.smallest + (self.largest - self.smallest) * draws[0]
        stretch = ((2 * draws[1] - 1) * math.log(self.ratio)).exp()
        box_height = (height * (area * stretch).sqrt()).round().clamp(1, height).long()
        box_width = (width * (area / stretch).sqrt()).round().clamp(1, width).long()
        top = (draws[2] * (height - box_height + 1)).long()[:, None]
        left = (draws[3] * (width - box_width + 1)).long()[:, None]
        y, x = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
        inside = ((y >= top) & (y < top + box_height[:, None]))[:, :, None, None]
        inside = inside & ((x >= left) & (x < left + box_width[:, None]))[:, None, :, None]
        inside = inside & (draws[4] < self.p)[:, None, None, None]
        return torch.where(inside, _fill_level(self.fill, self.mean_level, images), images)


def _check_strength(name: str, strength: float) -> float:
    if not 0 <= strength <= 1:
        raise ValueError(f"{name}: strength (={strength}) must be between 0 and 1.")
    return strength


def _check_fill(name: str, fill: int | Literal["mean"]) -> int | Literal["mean"]:
    if fill != "mean" and not (isinstance(fill, int) and 0 <= fill <= 255):
        raise ValueError(f"{name}: fill (={fill!r}) must be a grey level from 0 to 255 or 'mean'.")
    return fill


def _fill_level(fill: int | Literal["mean"], mean_level: tuple[int, ...], images: Tensor) -> Tensor:
    return torch.tensor(mean_level if fill == "mean" else (fill,), dtype=torch.uint8, device=images.device)


def _factor(draw: Tensor, strength: float) -> Tensor:
    return (1 + (2 * draw - 1) * strength)[:, None, None, None]


def _grey(images: Tensor) -> Tensor:
    """Whole grey levels, float (N, H, W, 1); the weights of ITU-R BT.601 for three channels."""
    if images.shape[3] == 1:
        return images.to(torch.float32)
    red, green, blue = images.to(torch.float32).unbind(3)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_().unsqueeze(3)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """``factor * images + (1 - factor) * other``, cut off to whole grey levels as torchvision does."""
    return images.mul(factor).add_((1 - factor) * other).clamp_(0, 255).to(torch.uint8)
