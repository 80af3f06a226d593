"""Whether an exported network predicts what the trained one does: on test images of its run, or on drawn ones."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_cifar.commands.export.reading import Run
from lightning_cifar.data import ImageDataModule
from lightning_cifar.errors import one_line
from lightning_cifar.models import Classifier

# Of the largest logit. Other orders of summation change a millionth of it, what is computed wrongly far more.
TOLERANCE = 1e-3
BATCH = 100


class Sample(NamedTuple):
    """Images, and what the trained network makes of them in its own way."""

    images: Tensor
    """float32 (M, C, H, W) in [0, 1]."""
    logits: Tensor
    """float32 (M, K)."""
    labels: Tensor | None
    """int64 (M,), where they are known."""
    source: str
    """What they are, as in ``all 10,000 test images``."""
    reason: str
    """Why they are not test images; empty where they are."""


class Comparison(NamedTuple):
    """What came out for the same images in two ways."""

    total: int
    agree: int
    """Equal predictions."""
    ties: int
    """Others, of two classes that the trained network itself holds for equal within the tolerance."""
    largest: float
    """Difference of a logit."""
    reach: float
    """The largest logit."""
    tolerance: float
    """The largest difference that rounding explains."""

    @property
    def equal(self) -> bool:
        """Whether nothing differs by more than rounding; not, where something is not a number."""
        return self.agree + self.ties == self.total and self.largest <= self.tolerance


def draw_sample(model: Classifier, data: ImageDataModule, count: int) -> Sample:
    """Images to compare on: evenly spaced test images of the data; where there are none, drawn from a seed.

    Args:
        model: The trained network, on the CPU.
        data: As it was trained with. Nothing is downloaded.
        count: How many images at most.
    """
    try:
        return _test_images(model, data, count)
    except Exception as error:  # data can be missing or broken in any way, and the file can be checked without
        return _drawn_images(model, data, count, one_line(error).split(": pass")[0][:160])


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
            # The bytes that they were: nothing of how the data normalises is left in them.
            images.append(((batch * std + mean) * 255).round().clamp(0, 255).contiguous() / 255)
            labels.append(batch_labels[inside])
    source = f"all {total:,} test images" if count == total else f"{count:,} of {total:,} test images"
    return Sample(torch.cat(images), torch.cat(logits), torch.cat(labels), source, "")


def _drawn_images(model: Classifier, data: ImageDataModule, count: int, reason: str) -> Sample:
    """Soft patches of colour with noise on them."""
    generator = torch.Generator().manual_seed(0)
    shape, side = (count, model.in_channels), data.image_size
    patches = torch.rand(*shape, 4, 4, generator=generator)
    noise = torch.rand(*shape, side, side, generator=generator)
    images = F.interpolate(patches, (side, side), mode="bilinear") * 0.8 + noise * 0.2
    images = (images * 255).round() / 255
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (data.mean, data.std))
    return Sample(images, _logits(model, (images - mean) / std), None, f"{count:,} drawn images", reason)


def run_on(run: Run, images: Tensor) -> Tensor:
    """Logits (M, K), of the first image alone and the others in batches: files made for one size of batch fail here."""
    with torch.no_grad():
        return torch.cat([run(images[:1]), *(run(part) for part in torch.split(images[1:], BATCH) if len(part))])


def compare(expected: Tensor, given: Tensor) -> Comparison:
    """Compare logits (M, K)."""
    if given.shape != expected.shape:
        raise ValueError(f"the file gives {tuple(given.shape)}, and not {tuple(expected.shape)}.")
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
