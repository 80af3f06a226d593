"""One pass over labelled images: the patches that activate each channel most, and the mean activation of each class.

Shapes: ``N`` images, ``C H W`` a map, ``K`` classes, ``T`` patches of a channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_cifar.analysis.microscope.layers import Network

CHUNK = 50
"""Number of images in a forward pass, which bounds the memory."""


class TopPatches(NamedTuple):
    """For each channel of a layer, the images in which it is most active, the largest value first."""

    values: Tensor
    """(T, C): largest value of the map."""
    images: Tensor
    """int64 (T, C): numbers of the images, all different for a channel."""
    positions: Tensor
    """int64 (T, C): flat position of the value in the map."""


class Survey(NamedTuple):
    """Results for all images, on the CPU."""

    patches: list[TopPatches]
    """One for each layer of the network, the image included."""
    means: list[Tensor]
    """(K, C) for each layer: mean over the images of a class and all positions; NaN for a class without images."""
    logits: Tensor
    """(N, K)."""
    labels: Tensor
    """int64 (N,)."""


def survey(
    network: Network,
    batches: Iterable[tuple[Tensor, Tensor]],
    num_patches: int = 9,
    advance: Callable[[int], object] = lambda count: None,
) -> Survey:
    """Read all images once. The memory does not depend on their number, except for the logits.

    Equal values are sorted by the number of the image, and by the position in the map.

    Args:
        network: The traced network.
        batches: Images (N, C, H, W) on the device of the network, and labels int64 (N,); a label outside [0, K) belongs
            to no class.
        num_patches: Largest number of patches of a channel.
        advance: Called with the number of images after each forward pass, for a progress bar.

    Raises:
        ValueError: There are no images.

    Example:
        >>> from torch import nn
        >>> from lightning_cifar.analysis.microscope.reading import read_network
        >>> network = read_network(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.zeros(1, 3, 2, 2))
        >>> found = survey(network, [(torch.rand(20, 3, 2, 2), torch.arange(20) % 2)])
        >>> found.patches[1].images.shape, found.means[1].shape
        (torch.Size([9, 2]), torch.Size([2, 2]))
    """
    kept: list[TopPatches | None] = [None] * len(network.layers)
    num_classes = network.layers[network.output].shape[0]
    sums = [torch.zeros(num_classes, layer.shape[0], dtype=torch.float64) for layer in network.layers]
    logits: list[Tensor] = []
    labels, seen = [], 0

    def visit(number: int, values: Tensor) -> None:
        kept[number] = _keep(kept[number], values, seen, num_patches)
        means = values.mean((2, 3)).cpu().double()
        sums[number].index_add_(0, part_labels[counted], means[counted])
        if number == network.output:
            logits.append(values.flatten(1).cpu())

    for images, targets in batches:
        for part, part_labels in zip(torch.split(images, CHUNK), torch.split(targets.cpu(), CHUNK), strict=True):
            counted = (part_labels >= 0) & (part_labels < num_classes)
            network.forward(part, visit)
            labels.append(part_labels)
            seen += len(part)
            advance(len(part))
    if not seen:
        raise ValueError("there are no images: the validation split is empty")
    every = torch.cat(labels)
    counts = torch.bincount(every[(every >= 0) & (every < num_classes)], minlength=num_classes)
    patches = [found for found in kept if found is not None]
    return Survey(patches, [(total / counts[:, None]).float() for total in sums], torch.cat(logits), every)


def _keep(kept: TopPatches | None, values: Tensor, first: int, count: int) -> TopPatches:
    best, positions = values.flatten(2).max(2)
    images = torch.arange(first, first + len(values))[:, None].expand(best.shape)
    new = TopPatches(best.cpu(), images, positions.cpu())
    both = TopPatches(*(torch.cat(pair) for pair in zip(kept, new, strict=True))) if kept is not None else new
    order = both.values.argsort(dim=0, descending=True, stable=True)[:count]
    return TopPatches(*(each.gather(0, order) for each in both))


def choose_images(logits: Tensor, labels: Tensor, count: int) -> list[int]:
    """Choose correctly and wrongly classified images, half of each if there are enough, of different classes first.

    Args:
        logits: (N, K).
        labels: int64 (N,).
        count: Number of images.

    Returns:
        Numbers of the images: the correct ones, then the mistakes.

    Example:
        >>> choose_images(torch.eye(3)[[0, 0, 1, 1, 2]], torch.tensor([0, 0, 1, 2, 2]), 3)
        [0, 2, 3]
    """
    right = logits.argmax(1) == labels
    groups = []
    for mask in (right, ~right):
        numbers = mask.nonzero()[:, 0].tolist()
        turn = torch.zeros(int(labels.max()) + 2, dtype=torch.int64)
        order = []
        for number in numbers:
            order.append((int(turn[labels[number]]), number))
            turn[labels[number]] += 1
        groups.append([number for _, number in sorted(order)])
    correct, wrong = groups
    num_wrong = min(len(wrong), max(count // 2, count - len(correct)))
    return correct[: count - num_wrong] + wrong[:num_wrong]
