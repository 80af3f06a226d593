"""Content of the microscope page: plain descriptions of the layers, and arrays.

Shapes: ``N`` images, ``C H W`` a map, ``K`` classes, ``P Q`` window positions, ``T`` patches of a channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_cifar.analysis.microscope.layers import Network, Source
from lightning_cifar.analysis.microscope.reading import read_network
from lightning_cifar.analysis.microscope.survey import Survey, choose_images, survey
from lightning_cifar.analysis.occlusion.maps import occlusion_map
from lightning_cifar.analysis.occlusion.windows import place_windows

Arrays = dict[str, NDArray[Any]]
Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]
Progress = Callable[[str, int | None], AbstractContextManager[Callable[[int], object]]]
"""Takes a unit and the number of units, if it is known; the context is a function that adds to the finished ones."""

LARGEST_TILE = 64
"""Side in pixels to which larger images are reduced from which patches are shown."""


class Content(NamedTuple):
    """Everything that the page displays of a network."""

    layers: list[dict[str, Any]]
    """Plain values. ``rows`` and ``columns`` are the receptive field of each row and column of a map, in pixels."""
    output: int
    """Number of the layer with the logits."""
    states: list[tuple[str, Arrays]]
    """Title and arrays: ``<layer>.values`` (N, C, H, W), ``.weight``, ``.bias``, ``.scale<i>`` and ``.shift<i>``."""
    shared: Arrays
    """Arrays of the last state: ``<layer>.top`` (T, C, 3) with value, tile and position, ``<layer>.means`` (K, C),
    ``<layer>.index<i>`` for moved values, and ``occlusion`` (N, P, Q, K), the probabilities."""
    windows: tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]
    """Rows and columns of the occluding windows."""
    labels: list[int | None]
    """True classes of the N images."""
    tiles: NDArray[np.float32]
    """(M, C, h, w): normalised images from which patches are shown."""
    tile_labels: list[int]
    accuracy: float | None
    """Accuracy on all images of the batches, if there are any."""
    left_out: list[str]
    """What was left out because of ``most_values``."""


def collect(
    model: nn.Module,
    title: str,
    *,
    earlier: Iterable[tuple[str, nn.Module]] = (),
    images: Tensor | None = None,
    batches: Batches | None = None,
    num_images: int = 8,
    window: int | None = None,
    most_values: int | None = None,
    progress: Progress = lambda unit, total: nullcontext(lambda count: None),
) -> Content:
    """Compute the content of the page.

    Args:
        model: Maps images (N, C, H, W) to logits (N, K). It is evaluated in evaluation mode and does not change.
        title: Title of its state, such as ``epoch 10``.
        earlier: Titles and networks of earlier states, each used before the next one is requested.
        images: (N, C, H, W), normalised as for the model; None chooses ``num_images`` from the batches.
        batches: Returns the batches (images, labels) of the validation split; it is called twice. None leaves out the
            patches and the means of classes.
        num_images: Number of correctly and wrongly classified images that are chosen.
        window: Side of the occluding window in pixels; None is a quarter of the image's shorter side.
        most_values: Largest number of values in the maps of all layers and images of a state. Images above it are left
            out, but the first one. None is unlimited.
        progress: Shows the progress of the passes that may take long.

    Raises:
        ValueError: The network cannot be traced or there are no images.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
        >>> found = collect(model, "untrained", images=torch.rand(2, 3, 8, 8))
        >>> found.states[0][1]["1.values"].shape, found.shared["occlusion"].shape
        ((2, 4, 4, 4), (2, 7, 7, 2))
    """
    if images is None and batches is None:
        raise ValueError("there are no images: pass images, or batches of the validation split")
    example = images[:1] if images is not None else next(iter(batches()))[0][:1]  # type: ignore[misc]
    network = read_network(model, example)
    height, width = example.shape[2:]
    size, stride = window or max(1, min(height, width) // 4), max(1, min(height, width) // 32)
    spans = place_windows((height, width), size, stride)
    wanted = num_images if images is None else len(images)
    each = sum(math.prod(layer.shape) for layer in network.layers)
    num_images = wanted if most_values is None else min(wanted, max(1, most_values // each))
    left_out = []
    if num_images < wanted:
        left_out.append(f"{wanted - num_images} of {wanted} images ({each:,} values of maps in each)")
    images = None if images is None else images[:num_images]
    shared: Arrays = {}
    accuracy: float | None = None
    labels: list[int | None] = [None] * (0 if images is None else len(images))
    tiles, tile_labels = torch.empty(0, *example.shape[1:]), torch.empty(0, dtype=torch.int64)
    if batches is not None:
        with progress("validation images", None) as advance:
            found = survey(network, batches(), advance=advance)
        chosen = choose_images(found.logits, found.labels, num_images) if images is None else []
        numbers = sorted({int(number) for each in found.patches[1:] for number in each.images.flatten().tolist()})
        tiles, chosen_images = _gather(batches(), numbers, chosen)
        tile_labels = found.labels[numbers]
        shared |= _shared(found, numbers)
        accuracy = float((found.logits.argmax(1) == found.labels).float().mean())
        if images is None:
            images, labels = chosen_images, found.labels[chosen].tolist()
    assert images is not None
    states = [(name, read_state(read_network(other, example), images)) for name, other in earlier]
    states.append((title, read_state(network, images)))
    with progress("windows", len(images) * len(spans.rows) * len(spans.columns)) as advance:
        covered = occlusion_map(model, images, window=size, stride=stride, all_classes=True, advance=advance)
    assert covered.outputs is not None
    shared["occlusion"] = covered.outputs.float().cpu().numpy()
    for number, layer in enumerate(network.layers):
        for i, source in enumerate(layer.sources):
            if source.moves is not None:
                shared[f"{number}.index{i}"] = source.moves.cpu().numpy().astype(np.int32)
    layers = describe(network, [arrays for _, arrays in states])
    return Content(
        layers,
        network.output,
        states,
        shared,
        (spans.rows, spans.columns),
        labels,
        tiles.numpy(),
        tile_labels.tolist(),
        accuracy,
        left_out,
    )


def read_state(network: Network, images: Tensor) -> Arrays:
    """Values of all layers for images (N, C, H, W), one image at a time, and the weights."""
    arrays: Arrays = {}
    parts: dict[int, list[Tensor]] = {}
    for image in torch.split(images, 1):
        network.forward(image, lambda i, values: parts.setdefault(i, []).append(values.float().cpu().clone()))
    for number, layer in enumerate(network.layers):
        arrays[f"{number}.values"] = torch.cat(parts[number]).numpy()
        for name, weight in layer.weights.items():
            arrays[f"{number}.{name}"] = weight.float().cpu().numpy()
    return arrays


def describe(network: Network, states: Sequence[Mapping[str, NDArray[Any]]]) -> list[dict[str, Any]]:
    """Describe the layers in plain values, with the range of colours: the 99.5 % quantile of nonzero values."""
    described = []
    for number, layer in enumerate(network.layers):
        _, height, width = layer.shape
        values = np.concatenate([state[f"{number}.values"].ravel() for state in states])
        sizes = np.abs(values[np.isfinite(values) & (values != 0)])
        described.append(
            {
                "name": layer.name,
                "kind": layer.kind,
                "title": ", ".join(layer.titles),
                "shape": layer.shape,
                "parameters": layer.num_parameters,
                "sources": [_plain(source, f"{number}.index{i}") for i, source in enumerate(layer.sources)],
                **layer.settings,
                "steps": layer.steps,
                "signed": bool((values < 0).any()),
                "limit": float(np.quantile(sizes, 0.995)) if len(sizes) else 1.0,
                "rows": [network.field_of(number, (y, y + 1), (0, width))[0] for y in range(height)],
                "columns": [network.field_of(number, (0, height), (x, x + 1))[1] for x in range(width)],
            }
        )
    return described


def _plain(source: Source, index: str) -> dict[str, Any]:
    return {"layer": source.layer, "shape": source.shape, "index": None if source.moves is None else index}


def _shared(found: Survey, numbers: Sequence[int]) -> Arrays:
    """Arrays of patches and of means."""
    arrays: Arrays = {}
    for number, (patches, means) in enumerate(zip(found.patches, found.means, strict=True)):
        arrays[f"{number}.means"] = means.numpy()
        if number:
            tile = np.searchsorted(np.asarray(numbers), patches.images.numpy())
            arrays[f"{number}.top"] = np.stack([patches.values.float().numpy(), tile, patches.positions.numpy()], 2)
    return arrays


def _gather(batches: Iterable[tuple[Tensor, Tensor]], tiles: Sequence[int], chosen: Sequence[int]) -> list[Tensor]:
    """Return the images of the tiles, on the CPU and reduced in size, and the chosen images."""
    small: list[Tensor] = []
    kept: dict[int, Tensor] = {}
    wanted, picked, seen = torch.tensor(tiles, dtype=torch.int64), set(chosen), 0
    for images, _ in batches:
        inside = wanted[(wanted >= seen) & (wanted < seen + len(images))] - seen
        part = images[inside.to(images.device)].float()
        if max(part.shape[2:]) > LARGEST_TILE and len(part):
            part = F.interpolate(part, size=(LARGEST_TILE, LARGEST_TILE), mode="area")
        small.append(part.cpu())
        kept |= {i: images[i - seen] for i in picked if seen <= i < seen + len(images)}
        seen += len(images)
    return [torch.cat(small), torch.stack([kept[i] for i in chosen]) if chosen else torch.empty(0)]
