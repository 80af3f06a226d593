"""How the windows on an image go through a network: in which blocks, and how far only the changed part is computed."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from torch import fx

from lightning_cifar.analysis.occlusion.receptive_field import Sizes, Span, Step, hull
from lightning_cifar.analysis.occlusion.winograd_convolution import Place

# In multiplications of a convolution: a number that is copied, one that an activation passes, a call of an operation.
COPY, POINT, CALL = 16.0, 8.0, 2.5e5


class Block(NamedTuple):
    """Neighbouring windows along an axis, computed together."""

    first: int
    last: int
    """One beyond."""
    spans: dict[fx.Node, Span]
    """Of each map, what any of the windows changes."""


class Layout(NamedTuple):
    """The first steps are computed in part, by blocks, down times across; what follows them on whole maps."""

    steps: list[Step]
    rows: list[Block]
    columns: list[Block]


def lay_out(
    steps: list[Step],
    image: fx.Node,
    sizes: Sizes,
    windows: tuple[Sequence[Span], Sequence[Span]],
    num_images: int,
    chunk: int,
) -> Layout:
    """The cheapest layout, by an estimate, of windows (down, across) on each of the images.

    Args:
        steps: From :func:`~lightning_cifar.analysis.occlusion.receptive_field.local_steps`.
        image: The node that they begin at.
        sizes: Shapes of the maps of one image.
        windows: What the windows cover, along each axis.
        num_images: How many images there are.
        chunk: Most windows that may be computed at once.
    """
    count = num_images * len(windows[0]) * len(windows[1])
    whole = [_cost(step, sizes, sizes[step.node][2:], in_part=False) for step in steps]
    joints = [
        count * COPY * sum(math.prod(sizes[node][1:]) for node in joints_of(steps[:cut], image))
        for cut in range(len(steps) + 1)
    ]
    best = math.inf, Layout([], [], [])
    for length in range(1, math.isqrt(chunk) + 1):
        blocks = [_blocks(steps, image, sizes, axis, windows[axis], length) for axis in (0, 1)]
        in_part = _costs(steps, sizes, blocks, num_images, chunk)
        for cut in range(len(steps) + 1):
            cost = sum(in_part[:cut]) + count * sum(whole[cut:]) + joints[cut]
            if cost < best[0]:
                best = cost, Layout(steps[:cut], *blocks)
    return best[1]


def joints_of(steps: Sequence[Step], image: fx.Node) -> list[fx.Node]:
    """Of the image and the maps of the steps those that the rest of the network reads."""
    inside = [image, *(step.node for step in steps)]
    return [node for node in inside if any(user not in inside for user in node.users)]


def _costs(steps: list[Step], sizes: Sizes, blocks: list[list[Block]], num_images: int, chunk: int) -> list[float]:
    """Of each step computed in part, for all windows and images."""
    # Most blocks are alike: far from the border all are of one size.
    down, across = (
        Counter((block.last - block.first, *(_length(block.spans[step.node]) for step in steps)) for block in axis)
        for axis in blocks
    )
    costs = [0.0] * len(steps)
    for ((num_down, *heights), repeats_down), ((num_across, *widths), repeats_across) in itertools.product(
        down.items(), across.items()
    ):
        num_windows, repeats = num_down * num_across, repeats_down * repeats_across
        calls = repeats * -(-num_images // max(1, chunk // num_windows))
        for i, (step, *area) in enumerate(zip(steps, heights, widths, strict=True)):
            costs[i] += repeats * num_windows * num_images * _cost(step, sizes, area, in_part=True)
            costs[i] += calls * CALL * _calls(step, area)
    return costs


def _cost(step: Step, sizes: Sizes, area: Sequence[int], in_part: bool) -> float:
    """Of a step's output (height, width) for one image."""
    points = math.prod(area) * sizes[step.node][1] * POINT
    if step.axes is None:
        copied = math.prod(area) * sum(sizes[source][1] for source in step.sources) if len(step.sources) > 1 else 0
        return points + COPY * copied * in_part
    needed = math.prod(_length(axis.needed((0, length))) for axis, length in zip(step.axes, area, strict=True))
    copied = needed * sizes[step.sources[0]][1]
    if step.convolution is not None:
        work = step.convolution.cost(*_places(step, area, in_part))
    else:
        work = points * math.prod(axis.kernel for axis in step.axes)
    return work + COPY * copied * in_part


def _places(step: Step, area: Sequence[int], in_part: bool) -> tuple[Place, Place]:
    """Of a convolution, inside the image or on all of it."""
    assert step.axes is not None
    down, across = (
        Place(0, _length(axis.needed((0, length))), length)
        if in_part
        else Place(axis.padding[0], _length(axis.needed((0, length))) - sum(axis.padding), length)
        for axis, length in zip(step.axes, area, strict=True)
    )
    return down, across


def _calls(step: Step, area: Sequence[int]) -> int:
    """Of torch's operations, cutting out included."""
    if step.axes is None:
        return 1
    return 6 + (1 if step.convolution is None else step.convolution.calls(*_places(step, area, in_part=True)))


def _length(span: Span) -> int:
    return span[1] - span[0]


def _blocks(
    steps: list[Step], image: fx.Node, sizes: Sizes, axis: int, windows: Sequence[Span], length: int
) -> list[Block]:
    """Windows along an axis, ``length`` together, counted from both ends: a change is cut off at both alike."""
    count = len(windows)
    cuts = {cut for i in range(count // 2 // length + 1) for cut in (i * length, count - i * length)}
    middle = count // 2 // length * length
    if count - 2 * middle > length:
        cuts.add(count // 2)
    return [
        Block(first, last, _spans(steps, image, sizes, axis, (windows[first][0], windows[last - 1][1])))
        for first, last in itertools.pairwise(sorted(cuts))
    ]


def _spans(steps: list[Step], image: fx.Node, sizes: Sizes, axis: int, covered: Span) -> dict[fx.Node, Span]:
    spans = {image: covered}
    for step in steps:
        inputs = [spans[source] for source in step.sources]
        if step.axes is None:
            spans[step.node] = hull(inputs)
        else:
            spans[step.node] = step.axes[axis].changed(inputs[0], sizes[step.node][2 + axis])
    return spans
