"""What a classifier said of images, and where it was most sure of what is wrong."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Predictions(NamedTuple):
    """N images and what was said of them."""

    images: Tensor
    """(N, C, H, W)"""
    indices: Tensor
    """(N,): the images' numbers."""
    true: Tensor
    """(N,): classes; -1 is not to be counted."""
    predicted: Tensor
    """(N,): classes."""
    log_odds: Tensor
    """(N,): of the predicted class against all others. It orders as the probability does, and two values differ where
    the probabilities of both are rounded to 1."""

    @property
    def probabilities(self) -> Tensor:
        """(N,): of the predicted class."""
        return self.log_odds.sigmoid()

    @property
    def wrong(self) -> Tensor:
        """(N,): which are mistakes."""
        return (self.predicted != self.true) & (self.true >= 0)


def read_predictions(images: Tensor, logits: Tensor, labels: Tensor, indices: Tensor) -> Predictions:
    """The most probable class of each image.

    Args:
        images: (N, C, H, W).
        logits: (N, K), K of 2 or more.
        labels: (N,); one outside [0, K) is not to be counted.
        indices: (N,).
    """
    logits = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
    top, predicted = logits.max(dim=1)
    others = logits.scatter(1, predicted[:, None], float("-inf")).logsumexp(dim=1)
    labels = torch.where((labels >= 0) & (labels < logits.shape[1]), labels.long(), -1)
    return Predictions(images.detach(), indices, labels, predicted, top - others)


def keep_worst(kept: Predictions | None, new: Predictions, count: int) -> Predictions:
    """The ``count`` most confident mistakes of both, the most confident first; of equals the lower index.

    Nothing waits for the device: where there are fewer mistakes, the rest is filled with what is no mistake, see
    :attr:`Predictions.wrong`. The result shares no memory with the arguments.
    """
    both = new if kept is None else Predictions(*(torch.cat(pair) for pair in zip(kept, new, strict=True)))
    # A mistake with NaN among its logits is one too, but nobody can say how confident.
    lowest = torch.finfo(both.log_odds.dtype).min
    score = torch.where(both.wrong, both.log_odds.nan_to_num(nan=lowest), float("-inf"))
    order = both.indices.argsort()
    order = order[score[order].argsort(descending=True, stable=True)][:count]
    return Predictions(*(part[order] for part in both))
