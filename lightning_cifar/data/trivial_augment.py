"""TrivialAugment: one random operation of random strength on each image (Müller & Hutter, arXiv:2103.10158)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as kernels

from lightning_cifar.data.checks import check_whole
from lightning_cifar.data.geometry import Samples

# The ranges of the paper's wide space.
_MAX_SHEAR, _MAX_SHIFT, _MAX_ANGLE, _MAX_CHANGE = 0.99, 32, 135.0, 0.99

GEOMETRIC = ("shear x", "shear y", "translate x", "translate y", "rotate")
SIGNED = (*GEOMETRIC, "brightness", "colour", "contrast", "sharpness")  # with a strength in [-1, 1]
UNSIGNED = ("identity", "posterize", "solarize", "autocontrast", "equalize")  # with a strength in [0, 1]
OPERATIONS = (*SIGNED, *UNSIGNED)


class _Tables(NamedTuple):
    """What the strengths mean for images of one size, with S signed strengths: S/2 positive, each with its negative."""

    sources: Tensor
    """int32 (1 + 5 * S, H * W): pixel of the source + 1, or 0 for black; identity, then each geometric operation."""
    factor: Tensor
    """float32 (S, 1, 1, 1): factor of the image in a blend."""
    rest: Tensor
    """float32 (S, 1, 1, 1): factor of what the image is blended with."""
    bits: Tensor
    """uint8 (S, 1, 1, 1): mask of posterize."""
    threshold: Tensor
    """float32 (S, 1, 1, 1): threshold of solarize."""


_Operation = Callable[[Tensor, _Tables], Tensor]
"""From uint8 (N, C, H, W) and the tables, whose rows belong to the images, to uint8 (N, C, H, W)."""


def _move(pixels: Tensor, name: str, strength: float) -> Tensor:
    """Apply a geometric operation to pixels (1, C, H, W)."""
    shear, shift = [0.0, 0.0], [0, 0]
    if name == "rotate":
        rotated: Tensor = kernels.rotate(pixels, _MAX_ANGLE * strength)
        return rotated
    axis = name.endswith("y")
    if name.startswith("shear"):
        shear[axis] = math.degrees(math.atan(_MAX_SHEAR * strength))
    else:
        shift[axis] = int(_MAX_SHIFT * strength)
    centre = [0.0, 0.0] if name.startswith("shear") else None
    moved: Tensor = kernels.affine(pixels, angle=0.0, translate=shift, scale=1.0, shear=shear, center=centre)
    return moved


class TrivialAugment:
    """Apply one of 14 operations of a random strength to each image.

    The results are those of torchvision's kernels on each image. No value is read from a GPU: geometric operations are
    one lookup of source pixels, and each of the others is calculated for all images. A CPU calculates it for the images
    that need it.

    Args:
        num_strengths: Number of different strengths of an operation.
    """

    num_draws = 3

    def __init__(self, num_strengths: int = 31) -> None:
        check_whole("trivial_augment", 2, num_strengths=num_strengths)
        self.num_strengths = num_strengths
        self._tables: dict[tuple[int, int, torch.device], _Tables] = {}

    def __call__(self, images: Tensor, draws: Tensor, samples: Samples) -> Tensor:
        num, height, width, channels = images.shape
        key = height, width, images.device
        if key not in self._tables:
            self._tables[key] = self._make_tables(height, width, images.device)
        tables = self._tables[key]
        kind = (draws[0] * len(OPERATIONS)).long()
        strength = (draws[1] * self.num_strengths).long() * 2 + (draws[2] < 0.5)  # odd numbers are negative

        row = torch.where(kind < len(GEOMETRIC), 1 + kind * 2 * self.num_strengths + strength, 0)
        padded = F.pad(images.reshape(num, -1, channels), (0, 0, 1, 0)).view(-1, channels)
        first = torch.arange(num, device=images.device)[:, None] * (height * width + 1)
        moved = padded.index_select(0, (first + tables.sources[row]).view(-1)).view(images.shape)

        x = moved.permute(0, 3, 1, 2).contiguous()
        of_image = _Tables(tables.sources, *(table.index_select(0, strength) for table in tables[1:]))
        for name, operation in _BY_VALUE.items():
            x = _apply(operation, x, of_image, kind == OPERATIONS.index(name))
        return x.permute(0, 2, 3, 1).contiguous()

    def _make_tables(self, height: int, width: int, device: torch.device) -> _Tables:
        levels = [level / (self.num_strengths - 1) for level in range(self.num_strengths)]
        signed = [strength for level in levels for strength in (level, -level)]
        numbers = torch.arange(1.0, height * width + 1).view(1, 1, height, width)  # exact in float32 up to 2**24
        moved = [_move(numbers, name, strength) for name in GEOMETRIC for strength in signed]
        sources = torch.cat([numbers, *moved]).to(torch.int32).flatten(1)
        values = {
            "factor": torch.tensor([1 + _MAX_CHANGE * s for s in signed]),
            "rest": torch.tensor([1 - (1 + _MAX_CHANGE * s) for s in signed]),
            "bits": torch.tensor([256 - 2 ** (8 - round(8 - 6 * abs(s))) for s in signed], dtype=torch.uint8),
            "threshold": torch.tensor([255 * (1 - abs(s)) for s in signed]),
        }
        return _Tables(sources.to(device), **{name: v[:, None, None, None].to(device) for name, v in values.items()})


def _apply(operation: _Operation, x: Tensor, tables: _Tables, chosen: Tensor) -> Tensor:
    """Apply an operation to the chosen images; ``chosen`` is bool (N,)."""
    if not _is_free_to_read(x):
        return torch.where(chosen[:, None, None, None], operation(x, tables), x)
    rows = chosen.nonzero()[:, 0]
    part = _Tables(tables.sources, *(table[rows] for table in tables[1:]))
    return x.index_copy_(0, rows, operation(x[rows], part))


def _is_free_to_read(x: Tensor) -> bool:
    """Return whether reading a value, such as the number of chosen images, does not stop a queue of kernels."""
    return x.device.type == "cpu"


def _blend(base: Tensor, other: Tensor, tables: _Tables) -> Tensor:
    # Contiguous operands are rounded like torch's add with `alpha`, which torchvision uses.
    other, rest = other.expand_as(base).contiguous(), tables.rest.expand_as(base).contiguous()
    return torch.addcmul(base, other, rest).clamp_(0, 255).to(torch.uint8)


def _brightness(x: Tensor, tables: _Tables) -> Tensor:
    return (x * tables.factor).clamp_(0, 255).to(torch.uint8)


def _saturation(x: Tensor, tables: _Tables) -> Tensor:
    return x if x.shape[1] == 1 else _blend(x * tables.factor, _grey(x), tables)


def _contrast(x: Tensor, tables: _Tables) -> Tensor:
    return _blend(x * tables.factor, _grey(x).mean(dim=(1, 2, 3), keepdim=True), tables)


def _sharpness(x: Tensor, tables: _Tables) -> Tensor:
    """Move the values inside the border away from or towards a blurred version: centre 5/13, neighbours 1/13."""
    values = x.to(torch.float32)
    if min(x.shape[2:]) <= 2:
        return x
    inside = values[:, :, 1:-1, 1:-1]
    sums = values.unfold(2, 3, 1).sum(-1).unfold(3, 3, 1).sum(-1)
    blurred = (sums + 4 * inside).div_(13).round_()
    return _blend(values, F.pad(blurred - inside, (1, 1, 1, 1)), tables)


def _grey(x: Tensor) -> Tensor:
    """Return integer grey levels, float32 (N, 1, H, W)."""
    grey: Tensor = kernels.rgb_to_grayscale(x) if x.shape[1] == 3 else x
    return grey.to(torch.float32)


_BY_VALUE: dict[str, _Operation] = {
    "brightness": _brightness,
    "colour": _saturation,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": lambda x, tables: x & tables.bits,
    "solarize": lambda x, tables: torch.where(x >= tables.threshold, x.bitwise_not(), x),
    "autocontrast": lambda x, tables: kernels.autocontrast(x),
    "equalize": lambda x, tables: kernels.equalize(x),
}
