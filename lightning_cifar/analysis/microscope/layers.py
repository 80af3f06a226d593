"""Layers of a network as the microscope page displays them.

A displayed layer is an operation (convolution, pooling, dense layer, sum of two maps, ...) with the batch norm and the
activation after it. Its values are those after the last of these steps. Operations that only move values, such as
flatten, dropout in evaluation mode or zero padding, are part of the layer that reads the result.

Shapes: ``N`` images, ``C H W`` a map; the units of a dense layer are ``C 1 1``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from lightning_cifar.analysis.occlusion.receptive_field import Slide, Span, hull

Shape = tuple[int, int, int]


class Source(NamedTuple):
    """Values that a layer reads."""

    layer: int
    """Number of the layer that computed them."""
    shape: Shape
    moves: Tensor | None = None
    """int64 (C * H * W): flat index of each value in the map of that layer, -1 for zero; None if nothing moves."""


@dataclass
class Layer:
    """A displayed layer."""

    name: str
    kind: str
    """image, conv, dense, max, mean, add, concat, or other, whose values are shown without their computation."""
    shape: Shape
    sources: list[Source]
    node: fx.Node
    """Node of the displayed values."""
    titles: list[str]
    settings: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    steps: list[dict[str, str]] = field(default_factory=list)
    """Batch norms and activations. A norm multiplies by the weights ``scale`` and adds ``shift``, which it names."""
    num_parameters: int = 0

    def spans(self, rows: Span, columns: Span) -> tuple[Span, Span]:
        """Rows and columns of the inputs from which a rectangle is computed, also beyond the border."""
        if self.kind == "conv":
            down, across = (Slide(*self.settings[axis]) for axis in ("down", "across"))
            return down.needed(rows), across.needed(columns)
        if self.kind in ("max", "mean") or (self.kind == "other" and self.settings):
            down_, across_ = self.settings["down"], self.settings["across"]
            return hull(down_[rows[0] : rows[1]]), hull(across_[columns[0] : columns[1]])
        if self.kind in ("add", "concat"):
            return rows, columns
        return (0, self.sources[0].shape[1]), (0, self.sources[0].shape[2])


class Network(NamedTuple):
    """A traced network in evaluation mode, which shares the weights of the model."""

    traced: fx.GraphModule
    layers: list[Layer]
    """The image, then the layers in the order of their computation."""
    output: int
    """Number of the layer with the logits."""

    def forward(self, images: Tensor, visit: Callable[[int, Tensor], None]) -> None:
        """Call ``visit`` with the number and the values (N, C, H, W) of each layer for images (N, C, H, W).

        The values must be used at once, since the next layer may work in place on them.
        """
        numbers = {layer.node: number for number, layer in enumerate(self.layers)}

        class Reader(fx.Interpreter):
            def run_node(reader, n: fx.Node) -> Any:  # noqa: N805 - self is the network
                value = super().run_node(n)
                if n in numbers:
                    visit(numbers[n], value.reshape(len(images), *self.layers[numbers[n]].shape))
                return value

        with torch.no_grad():
            Reader(self.traced).run(images)

    def field_of(self, number: int, rows: Span, columns: Span) -> tuple[Span, Span]:
        """Part of the image on which a rectangle of a layer depends, inside the image."""
        spans = {number: (rows, columns)}
        for i in range(number, 0, -1):
            if i not in spans:
                continue
            layer = self.layers[i]
            # Padding does not depend on the image.
            inside = (_clipped(span, size) for span, size in zip(spans[i], layer.shape[1:], strict=True))
            needed = layer.spans(*inside)
            for source in layer.sources:
                found = _moved(source, self.layers[source.layer].shape, *needed)
                both = [found, *([spans[source.layer]] if source.layer in spans else [])]
                spans[source.layer] = hull([down for down, _ in both]), hull([across for _, across in both])
        size = self.layers[0].shape[1:]
        down, across = spans.get(0, ((0, size[0]), (0, size[1])))
        return _clipped(down, size[0]), _clipped(across, size[1])


def _moved(source: Source, shape: Shape, rows: Span, columns: Span) -> tuple[Span, Span]:
    """Rectangle of a layer of a shape that a rectangle of the source reads."""
    if source.moves is None and source.shape == shape:
        return rows, columns
    index = torch.arange(math.prod(shape)) if source.moves is None else source.moves.cpu()
    (top, bottom), (left, right) = _clipped(rows, source.shape[1]), _clipped(columns, source.shape[2])
    index = index.view(source.shape)[:, top:bottom, left:right]
    index = index[index >= 0] % (shape[1] * shape[2])
    if not len(index):
        return (0, 1), (0, 1)
    down, across = index // shape[2], index % shape[2]
    return (int(down.min()), int(down.max()) + 1), (int(across.min()), int(across.max()) + 1)


def _clipped(span: Span, length: int) -> Span:
    begin = min(max(span[0], 0), length - 1)
    return begin, max(min(span[1], length), begin + 1)
