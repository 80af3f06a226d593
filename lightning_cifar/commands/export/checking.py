"""Comparison of an exported network with the trained one, on test images of its run or on random images."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cifar.commands.export.reading import Run
from lightning_cifar.data import ImageDataModule
from lightning_cifar.errors import one_line
from lightning_cifar.models import Classifier

# Relative to the largest logit. Another order of summation changes it by a millionth, a wrong computation far more.
TOLERANCE = 1e-3
BATCH = 100


class Sample(NamedTuple):
    """Images, and the logits of the trained network."""

    images: Tensor
    """float32 (M, C, H, W) in [0, 1]."""
    logits: Tensor
    """float32 (M, K)."""
    labels: Tensor | None
    """int64 (M,), if they are known."""
    source: str
    """Description, such as ``all 10,000 test images``."""
    reason: str
    """Reason why they are not test images; empty if they are."""


class Comparison(NamedTuple):
    """Comparison of logits for the same images."""

    total: int
    agree: int
    """Number of equal predictions."""
    ties: int
    """Number of other predictions whose logits in the trained network are equal within the tolerance."""
    largest: float
    """Largest difference of a logit."""
    reach: float
    """Largest absolute logit."""
    tolerance: float
    """Largest difference that is attributed to rounding."""

    @property
    def equal(self) -> bool:
        """Whether nothing differs by more than rounding; False if a logit is NaN."""
        return self.agree + self.ties == self.total and self.largest <= self.tolerance


def draw_sample(model: Classifier, data: ImageDataModule, count: int) -> Sample:
    """Return evenly spaced test images, or random images if test images are not available."""
    try:
        return _test_images(model, data, count)
    except Exception as error:  # data may be missing or damaged in any way
        return _random_images(model, data, count, one_line(error).split(": pass")[0][:160])


def _test_images(model: Classifier, data: ImageDataModule, count: int) -> Sample:
    data.setup("test")
    loader = data.loader("test")
    total, start = loader.num_samples, 0
    count = min(count, total)
    chosen = torch.arange(count) * total // count
    images, logits, labels = [], [], []
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (data.mean, data.std))
    for batch, batch_labels in loader:
        inside = chosen[(chosen >= start) & (chosen < start + len(batch_labels))] - start
        start += len(batch_labels)
        if len(inside):
            batch = batch[inside]
            logits.append(_logits(model, batch))
            # Restore the original bytes, so that rounding errors of the normalization are removed.
            images.append(((batch * std + mean) * 255).round().clamp(0, 255).contiguous() / 255)
            labels.append(batch_labels[inside])
    source = f"all {total:,} test images" if count == total else f"{count:,} of {total:,} test images"
    return Sample(torch.cat(images), torch.cat(logits), torch.cat(labels), source, "")


def _random_images(model: Classifier, data: ImageDataModule, count: int, reason: str) -> Sample:
    """Make smooth patches of color with noise."""
    generator = torch.Generator().manual_seed(0)
    shape, side = (count, model.in_channels), data.image_size
    patches = torch.rand(*shape, 4, 4, generator=generator)
    noise = torch.rand(*shape, side, side, generator=generator)
    images = F.interpolate(patches, (side, side), mode="bilinear") * 0.8 + noise * 0.2
    images = (images * 255).round() / 255
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (data.mean, data.std))
    return Sample(images, _logits(model, (images - mean) / std), None, f"{count:,} random images", reason)


def run_on(run: Run, images: Tensor) -> Tensor:
    """Compute logits (M, K): first of one image, then in batches, so that files for a fixed batch size fail."""
    with torch.no_grad():
        return torch.cat([run(images[:1]), *(run(part) for part in torch.split(images[1:], BATCH) if len(part))])


def compare(expected: Tensor, given: Tensor) -> Comparison:
    """Compare logits (M, K)."""
    if given.shape != expected.shape:
        raise ValueError(f"the output has the shape {tuple(given.shape)}, not {tuple(expected.shape)}.")
    expected, given = expected.double(), given.double()
    reach = float(expected.abs().max())
    tolerance = TOLERANCE * reach
    mine, other = expected.argmax(1, keepdim=True), given.argmax(1, keepdim=True)
    margin = expected.gather(1, mine) - expected.gather(1, other)
    differs = mine != other
    return Comparison(
        total=len(expected),
        agree=int((~differs).sum()),
        ties=int((differs & (margin <= tolerance)).sum()),
        largest=float((expected - given).abs().max()),
        reach=reach,
        tolerance=tolerance,
    )


def _logits(model: Classifier, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(part) for part in torch.split(images, BATCH)])
