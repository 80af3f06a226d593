"""TrivialAugment: one random operation of random strength on each image (Müller & Hutter, arXiv:2103.10158)."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor
from torchvision.transforms.v2 import functional as kernels

from lightning_cifar.data.checks import check_whole
from lightning_cifar.data.geometry import Samples

# Images (N, C, H, W) and a strength in [-1, 1], or in [0, 1] for an unsigned operation.
Operation = Callable[[Tensor, float], Tensor]

# The ranges of the paper's wide space.
_MAX_SHEAR, _MAX_SHIFT, _MAX_ANGLE, _MAX_CHANGE = 0.99, 32, 135.0, 0.99


def _tensor(value: Tensor) -> Tensor:
    """Give the result of an untyped kernel its type."""
    return value


def _shear(images: Tensor, x: float, y: float) -> Tensor:
    degrees = [math.degrees(math.atan(value)) for value in (x, y)]
    return _tensor(kernels.affine(images, angle=0.0, translate=[0, 0], scale=1.0, shear=degrees, center=[0, 0]))


def _shift(images: Tensor, x: float, y: float) -> Tensor:
    return _tensor(kernels.affine(images, angle=0.0, translate=[int(x), int(y)], scale=1.0, shear=[0.0, 0.0]))


SIGNED: dict[str, Operation] = {
    "shear x": lambda images, s: _shear(images, _MAX_SHEAR * s, 0.0),
    "shear y": lambda images, s: _shear(images, 0.0, _MAX_SHEAR * s),
    "translate x": lambda images, s: _shift(images, _MAX_SHIFT * s, 0.0),
    "translate y": lambda images, s: _shift(images, 0.0, _MAX_SHIFT * s),
    "rotate": lambda images, s: kernels.rotate(images, _MAX_ANGLE * s),
    "brightness": lambda images, s: kernels.adjust_brightness(images, 1 + _MAX_CHANGE * s),
    "colour": lambda images, s: kernels.adjust_saturation(images, 1 + _MAX_CHANGE * s),
    "contrast": lambda images, s: kernels.adjust_contrast(images, 1 + _MAX_CHANGE * s),
    "sharpness": lambda images, s: kernels.adjust_sharpness(images, 1 + _MAX_CHANGE * s),
}
UNSIGNED: dict[str, Operation] = {
    "identity": lambda images, s: images,
    "posterize": lambda images, s: kernels.posterize(images, round(8 - 6 * s)),
    "solarize": lambda images, s: kernels.solarize(images, 255 * (1 - s)),
    "autocontrast": lambda images, s: kernels.autocontrast(images),
    "equalize": lambda images, s: kernels.equalize(images),
}
OPERATIONS: dict[str, Operation] = {**SIGNED, **UNSIGNED}


class TrivialAugment:
    """Apply one of 14 operations of a random strength to each image.

    It is much slower than the other augmentations: it processes the images of a batch in groups of the same operation
    and strength, and these groups are many and small.

    Args:
        num_strengths: Number of different strengths of an operation.
    """

    num_draws = 3

    def __init__(self, num_strengths: int = 31) -> None:
        check_whole("trivial_augment", 2, num_strengths=num_strengths)
        self.num_strengths = num_strengths

    def __call__(self, images: Tensor, draws: Tensor, samples: Samples) -> Tensor:
        operations = list(OPERATIONS.items())
        kind = (draws[0] * len(operations)).long()
        level = (draws[1] * self.num_strengths).long()
        signed = kind < len(SIGNED)
        # One number for each group; unsigned operations have no negative strengths.
        group = (kind * self.num_strengths + level) * 2 + (signed & (draws[2] < 0.5))
        result = images.clone()
        for number in sorted(set(group.tolist())):
            members = (group == number).nonzero()[:, 0]
            index, negative = divmod(number, 2)
            _, operation = operations[index // self.num_strengths]
            strength = (index % self.num_strengths) / (self.num_strengths - 1) * (-1 if negative else 1)
            pixels = images[members].permute(0, 3, 1, 2).contiguous()
            result[members] = operation(pixels, strength).permute(0, 2, 3, 1)
        return result
