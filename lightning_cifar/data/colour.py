"""Augmentations of pixel values: brightness, contrast, saturation, grayscale, cutout, erasing."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from lightning_cifar.data.checks import check_between, check_whole
from lightning_cifar.data.geometry import Samples, choose


class Brightness:
    """Multiply the grey levels by a factor.

    Args:
        strength: The factor is drawn from ``1 - strength`` to ``1 + strength``.
    """

    num_draws = 1

    def __init__(self, strength: float = 0.4) -> None:
        check_between(type(self).__name__.lower(), strength=strength)
        self.strength = strength

    def other(self, images: Tensor) -> Tensor:
        """Return what the images are blended with."""
        return torch.zeros((), device=images.device)

    def __call__(self, images: Tensor, draws: Tensor, samples: Samples) -> Tensor:
        # Truncated to integer grey levels, as in torchvision.
        factor = (1 + (2 * draws[0] - 1) * self.strength)[:, None, None, None]
        return images.mul(factor).add_((1 - factor) * self.other(images)).clamp_(0, 255).to(torch.uint8)


class Contrast(Brightness):
    """Move the grey levels away from or towards the mean of the image by a factor, as in ``Brightness``."""

    def other(self, images: Tensor) -> Tensor:
        # The sum of integers below 2**24 is exact in any order, so that the mean does not depend on the batch.
        return _grey(images).sum(dim=(1, 2, 3), keepdim=True) / (images.shape[1] * images.shape[2])


class Saturation(Brightness):
    """Move the colours away from or towards grey by a factor, as in ``Brightness``. Grey images are unchanged."""

    def other(self, images: Tensor) -> Tensor:
        return _grey(images)

    def __call__(self, images: Tensor, draws: Tensor, samples: Samples) -> Tensor:
        return images if images.shape[3] == 1 else super().__call__(images, draws, samples)


class Grayscale:
    """Remove the colours; the number of channels is unchanged.

    Args:
        p: Probability.
    """

    num_draws = 1

    def __init__(self, p: float = 0.1) -> None:
        check_between("grayscale", p=p)
        self.p = p

    def __call__(self, images: Tensor, draws: Tensor, samples: Samples) -> Tensor:
        return choose(draws[0] < self.p, _grey(images).to(torch.uint8).expand_as(images), images)


class Cutout:
    """Fill a square at a random position, cut off at the border (DeVries & Taylor, arXiv:1708.04552).

    Args:
        size: Side of the square, pixels.
        p: Probability.
        fill: Grey level 0 to 255, or ``"mean"`` for the mean colour of the data.
    """

    num_draws = 3

    def __init__(self, size: int = 8, p: float = 1.0, fill: int | Literal["mean"] = "mean") -> None:
        check_whole("cutout", 1, size=size)
        check_between("cutout", p=p)
        self.size, self.p, self.fill = size, p, _check_fill("cutout", fill)
        self.mean_level: tuple[int, ...] = (128,)

    def check_size(self, height: int, width: int) -> None:
        if self.size > min(height, width):
            raise ValueError(f"cutout: size (={self.size}) must not exceed the image size ({height} x {width} pixels).")

    def __call__(self, images: Tensor, draws: Tensor, samples: Samples) -> Tensor:
        num, height, width, channels = images.shape
        # The centre is anywhere in the image; the square may lie partly outside.
        top = (draws[0] * height).long() - self.size // 2
        left = (draws[1] * width).long() - self.size // 2
        side = torch.arange(self.size, device=images.device)
        # A pixel outside is moved to the nearest pixel inside, which is then written twice.
        rows = (top[:, None] + side).clamp(0, height - 1)
        columns = (left[:, None] + side).clamp(0, width - 1)
        image = torch.arange(num, device=images.device)
        pixels = (image[:, None, None] * height + rows[:, :, None]) * width + columns[:, None, :]
        value = _fill_level(self.fill, self.mean_level, images).expand(pixels.numel(), channels)
        cut = images.reshape(-1, channels).index_copy(0, pixels.view(-1), value).view_as(images)
        return choose(draws[2] < self.p, cut, images) if self.p < 1 else cut


class Erasing:
    """Fill a random rectangle (random erasing: Zhong et al., arXiv:1708.04896).

    Difference from torchvision: a rectangle that does not fit is cut to the image instead of drawn again.

    Args:
        p: Probability.
        smallest: Smallest area, as a fraction of the image.
        largest: Largest area, as a fraction of the image.
        ratio: Largest aspect ratio, in either direction.
        fill: Grey level 0 to 255, or ``"mean"`` for the mean colour of the data.
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
                f"erasing: smallest (={smallest}) and largest (={largest}) must satisfy 0 < smallest <= largest <= 1."
            )
        if not (math.isfinite(ratio) and ratio >= 1):
            raise ValueError(f"erasing: ratio (={ratio}) must be at least 1.")
        check_between("erasing", p=p)
        self.p, self.smallest, self.largest, self.ratio = p, smallest, largest, ratio
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


def _check_fill(name: str, fill: int | Literal["mean"]) -> int | Literal["mean"]:
    if fill != "mean" and not (isinstance(fill, int) and 0 <= fill <= 255):
        raise ValueError(f"{name}: fill (={fill!r}) must be a grey level from 0 to 255 or 'mean'.")
    return fill


def _fill_level(fill: int | Literal["mean"], mean_level: tuple[int, ...], images: Tensor) -> Tensor:
    """Return uint8 (C,) or (1,), filled on the device: a copy from the host would wait for its queue of kernels."""
    levels = mean_level if fill == "mean" else (fill,)
    return torch.cat([torch.full((1,), level, dtype=torch.uint8, device=images.device) for level in levels])


def _grey(images: Tensor) -> Tensor:
    """Return integer grey levels, float (N, H, W, 1), with the weights of ITU-R BT.601 for three channels."""
    if images.shape[3] == 1:
        return images.to(torch.float32)
    red, green, blue = images.to(torch.float32).unbind(3)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_().unsqueeze(3)
