"""Predictions of a classifier, and its most confident mistakes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Predictions(NamedTuple):
    """N images and their predicted classes."""

    images: Tensor
    """(N, C, H, W)"""
    indices: Tensor
    """(N,): numbers of the images."""
    true: Tensor
    """(N,): true classes; -1 is not counted."""
    predicted: Tensor
    """(N,): predicted classes."""
    log_odds: Tensor
    """(N,): log-odds of the predicted class against all others. They have the order of the probabilities, and differ
    where the probabilities are rounded to 1."""

    @property
    def probabilities(self) -> Tensor:
        """Probability of the predicted class, (N,)."""
        return self.log_odds.sigmoid()

    @property
    def wrong(self) -> Tensor:
        """Mask of the mistakes, (N,)."""
        return (self.predicted != self.true) & (self.true >= 0)


def read_predictions(images: Tensor, logits: Tensor, labels: Tensor, indices: Tensor) -> Predictions:
    """Read the most probable class of each image.

    Args:
        images: (N, C, H, W).
        logits: (N, K), with K of 2 or more.
        labels: (N,); a label outside [0, K) is not counted.
        indices: (N,), numbers of the images.
    """
    logits = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
    top, predicted = logits.max(dim=1)
    others = logits.scatter(1, predicted[:, None], float("-inf")).logsumexp(dim=1)
    labels = torch.where((labels >= 0) & (labels < logits.shape[1]), labels.long(), -1)
    return Predictions(images.detach(), indices, labels, predicted, top - others)


def keep_worst(kept: Predictions | None, new: Predictions, count: int) -> Predictions:
    """Return the ``count`` most confident mistakes of both, the most confident first; ties are sorted by index.

    The function does not wait for the device: if there are fewer mistakes, correct predictions fill the rest, see
    :attr:`Predictions.wrong`. The result shares no memory with the arguments.
    """
    both = new if kept is None else Predictions(*(torch.cat(pair) for pair in zip(kept, new, strict=True)))
    # A mistake with NaN among its logits has no known confidence: it is the last of the mistakes.
    lowest = torch.finfo(both.log_odds.dtype).min
    score = torch.where(both.wrong, both.log_odds.nan_to_num(nan=lowest), float("-inf"))
    order = both.indices.argsort()
    order = order[score[order].argsort(descending=True, stable=True)][:count]
    return Predictions(*(part[order] for part in both))
