"""Logits of a network for images with a covered window at many positions, computing little but the changed parts.

A window changes a rectangle of the first map, a larger rectangle of the next map, and so on. While this is cheaper than
whole maps, only the rectangle is computed, from a part of the map of the original image with the changed values
inserted. The steps after that use whole maps in larger batches.

Shapes: ``N`` images, ``B`` windows of a block, ``C H W`` a map, ``K`` outputs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from lightning_cifar.analysis.occlusion.block_plan import Block, joints_of, lay_out
from lightning_cifar.analysis.occlusion.receptive_field import (
    Slide,
    Span,
    Step,
    image_of,
    local_steps,
    map_sizes,
)
from lightning_cifar.analysis.occlusion.windows import Windows, coverage
from lightning_cifar.analysis.occlusion.winograd_convolution import AxisExtent


class _Patch(NamedTuple):
    """Values of a rectangle of a map for the windows of a block."""

    values: Tensor
    """(N * B, C, height, width)."""
    spans: tuple[Span, Span]
    """Rows and columns."""


class PartialForward:
    """Forward pass of a traced network for covered images of one size.

    Args:
        traced: From :func:`~lightning_cifar.analysis.occlusion.tracing.trace`.
        example: (1, C, H, W), like the images.
        windows: Windows that cover the images.
        num_images: Expected number of images in a call.
        chunk: Largest number of covered images that are computed at once.
        tail_chunk: The same for the layers after the partial steps.
    """

    def __init__(
        self, traced: fx.GraphModule, example: Tensor, windows: Windows, num_images: int, chunk: int, tail_chunk: int
    ) -> None:
        sizes = map_sizes(traced, example)
        image = image_of(traced)
        self.image, self.windows, self.chunk, self.tail_chunk = image, windows, chunk, tail_chunk
        self.layout = lay_out(local_steps(traced, sizes), image, sizes, windows, num_images, chunk)
        self.joints = joints_of(self.layout.steps, image)
        self.tail = _rest(traced, self.layout.steps, self.joints)

    def __call__(self, images: Tensor, fills: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Compute logits of images (N, C, H, W) with each window replaced by the fills (N, C, H, W).

        Yields:
            Flat indices (M,) into (N, rows, columns), each once in any order, and their logits (M, K).
        """
        clean = self._clean(images)
        shape = len(images), len(self.windows.rows), len(self.windows.columns)
        flat = torch.arange(math.prod(shape)).view(shape)
        for bundle in self._bundles(len(images)):
            indices = [
                flat[part, rows.first : rows.last, columns.first : columns.last].flatten()
                for part, rows, columns in bundle
            ]
            ends = list(itertools.accumulate(map(len, indices)))
            joints = [
                torch.empty_like(clean[node][:1].expand(ends[-1], -1, -1, -1), memory_format=torch.channels_last)
                for node in self.joints
            ]
            for (part, rows, columns), index, end in zip(bundle, indices, ends, strict=True):
                patches = self._head({node: maps[part] for node, maps in clean.items()}, fills[part], rows, columns)
                for node, joint in zip(self.joints, joints, strict=True):
                    target = joint[end - len(index) : end].unflatten(0, (len(fills[part]), -1))  # type: ignore[no-untyped-call]
                    _cut_out(target, clean[node][part], patches[node], (0, 0))
            yield torch.cat(indices), self.tail(*joints)

    def _bundles(self, num_images: int) -> Iterator[list[tuple[slice, Block, Block]]]:
        """Lists of (images, rows, columns): partial steps use one entry at a time, the rest one list at a time."""
        bundle: list[tuple[slice, Block, Block]] = []
        size = 0
        for rows, columns in itertools.product(self.layout.rows, self.layout.columns):
            num_windows = (rows.last - rows.first) * (columns.last - columns.first)
            step = max(1, self.chunk // num_windows)
            for first in range(0, num_images, step):
                part = slice(first, min(first + step, num_images))
                added = (part.stop - part.start) * num_windows
                if bundle and size + added > self.tail_chunk:
                    yield bundle
                    bundle, size = [], 0
                bundle.append((part, rows, columns))
                size += added
        yield bundle

    def _clean(self, images: Tensor) -> dict[fx.Node, Tensor]:
        """The maps of the original images."""
        maps = {self.image: images.contiguous(memory_format=torch.channels_last)}
        for step in self.layout.steps:
            sources = [maps[source] for source in step.sources]
            if step.axes is None:
                maps[step.node] = step.apply(*(source.clone() for source in sources))  # may work in place
            else:
                (top, bottom), (left, right) = (axis.padding for axis in step.axes)
                maps[step.node] = step.apply(F.pad(sources[0], (left, right, top, bottom), value=step.border))
        return maps

    def _head(self, clean: dict[fx.Node, Tensor], fills: Tensor, rows: Block, columns: Block) -> dict[fx.Node, _Patch]:
        """Changed parts of the image and of each step, for N images times B windows."""
        patches = {self.image: self._cover(clean[self.image], fills, rows, columns)}
        for step in self.layout.steps:
            sources = [patches[source] for source in step.sources]
            maps = [clean[source] for source in step.sources]
            spans = rows.spans[step.node], columns.spans[step.node]
            if step.axes is not None:
                values = _slide(step, step.axes, maps[0], sources[0], spans)
            else:
                values = step.apply(*(_grown(*item, spans) for item in zip(maps, sources, strict=True)))
            patches[step.node] = _Patch(values, spans)
        return patches

    def _cover(self, images: Tensor, fills: Tensor, rows: Block, columns: Block) -> _Patch:
        spans = rows.spans[self.image], columns.spans[self.image]
        down = coverage(self.windows.rows[rows.first : rows.last], spans[0], images.device)
        across = coverage(self.windows.columns[columns.first : columns.last], spans[1], images.device)
        covered = (down[:, None, :, None] & across[None, :, None, :]).flatten(0, 1)[..., None]
        image, fill = (
            maps[:, :, slice(*spans[0]), slice(*spans[1])].permute(0, 2, 3, 1)[:, None] for maps in (images, fills)
        )
        return _Patch(torch.where(covered, fill, image).flatten(0, 1).permute(0, 3, 1, 2), spans)


def _slide(step: Step, axes: tuple[Slide, Slide], clean: Tensor, patch: _Patch, spans: tuple[Span, Span]) -> Tensor:
    """Compute a rectangle (N * B, C, height, width) of the output of a sliding step."""
    needed = [axis.needed(span) for axis, span in zip(axes, spans, strict=True)]
    present = [(max(begin, 0), min(end, size)) for (begin, end), size in zip(needed, clean.shape[2:], strict=True)]
    down, across = (
        AxisExtent(given[0] - asked[0], given[1] - given[0], span[1] - span[0])
        for given, asked, span in zip(present, needed, spans, strict=True)
    )
    num, batch = len(clean), len(patch.values) // len(clean)
    if step.convolution is not None and step.convolution.saves(down, across):
        x = clean.new_empty(down.inputs, across.inputs, num, batch, clean.shape[1]).permute(2, 3, 4, 0, 1)
        _cut_out(x, clean, patch, (present[0][0], present[1][0]))
        return step.convolution.by_products(x.flatten(0, 1), down, across)
    height, width = (end - begin for begin, end in needed)
    x = clean.new_empty(num, batch, height, width, clean.shape[1]).permute(0, 1, 4, 2, 3)
    if needed != present:
        x.fill_(step.border)
    inside = x[..., down.before : down.before + down.inputs, across.before : across.before + across.inputs]
    _cut_out(inside, clean, patch, (present[0][0], present[1][0]))
    return step.apply(x.flatten(0, 1))


def _grown(clean: Tensor, patch: _Patch, spans: tuple[Span, Span]) -> Tensor:
    """Values of a larger rectangle."""
    if patch.spans == spans:
        return patch.values
    num, channels = clean.shape[:2]
    (top, bottom), (left, right) = spans
    x = clean.new_empty(num, len(patch.values) // num, bottom - top, right - left, channels).permute(0, 1, 4, 2, 3)
    _cut_out(x, clean, patch, (top, left))
    return x.flatten(0, 1)


def _cut_out(out: Tensor, clean: Tensor, patch: _Patch, corner: tuple[int, int]) -> None:
    """Write maps (N, C, H, W), starting at the corner, into out (N, B, C, height, width), and insert the patch.

    Each value is written once.
    """
    values = patch.values.unflatten(0, out.shape[:2])  # type: ignore[no-untyped-call]
    (top, left), (height, width) = corner, out.shape[3:]
    (a, b), (c, d) = (
        (min(max(begin, first), first + length), max(min(end, first + length), first))
        for (begin, end), first, length in zip(patch.spans, corner, out.shape[3:], strict=True)
    )
    source = clean[:, None, :, top : top + height, left : left + width]
    a, b, c, d = a - top, b - top, c - left, d - left
    for rows, columns in (
        (slice(0, a), slice(0, width)),
        (slice(b, height), slice(0, width)),
        (slice(a, b), slice(0, c)),
        (slice(a, b), slice(d, width)),
    ):
        if rows.start < rows.stop and columns.start < columns.stop:
            out[..., rows, columns] = source[..., rows, columns]
    if a < b and c < d:
        i, j = a + top - patch.spans[0][0], c + left - patch.spans[1][0]
        out[..., a:b, c:d] = values[..., i : i + b - a, j : j + d - c]


def _rest(traced: fx.GraphModule, steps: Sequence[Step], joints: Sequence[fx.Node]) -> fx.GraphModule:
    """The layers after the steps, as a network that takes the maps of the joints."""
    graph = fx.Graph()
    copies = {joint: graph.placeholder(joint.name) for joint in joints}
    done = {step.node for step in steps}
    for node in traced.graph.nodes:
        if node.op != "placeholder" and node not in done:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    return fx.GraphModule(traced, graph)


def whole_forward(
    ask: Callable[[Tensor], Tensor], windows: Windows, chunk: int
) -> Callable[[Tensor, Tensor], Iterator[tuple[Tensor, Tensor]]]:
    """The same as :class:`PartialForward` for any network: each covered image passes the whole network."""

    def forward(images: Tensor, fills: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        down, across = (
            coverage(spans, (0, length), images.device) for spans, length in zip(windows, images.shape[2:], strict=True)
        )
        count = len(images) * len(down) * len(across)
        for index in torch.arange(count, device=images.device).split(chunk):  # type: ignore[no-untyped-call]
            n, p, q = index // (len(down) * len(across)), index // len(across) % len(down), index % len(across)
            covered = down[p][:, None, :, None] & across[q][:, None, None, :]
            yield index, ask(torch.where(covered, fills[n], images[n]))

    return forward
