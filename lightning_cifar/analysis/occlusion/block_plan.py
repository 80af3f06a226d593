"""Plan of an occlusion map: blocks of windows, and the layers up to which only the changed part is computed."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from torch import fx

from lightning_cifar.analysis.occlusion.receptive_field import Sizes, Span, Step, hull
from lightning_cifar.analysis.occlusion.winograd_convolution import AxisExtent

# Costs in multiplications of a convolution: copying a number, an activation of a number, a call of an operation.
COPY, POINT, CALL = 16.0, 8.0, 2.5e5


class Block(NamedTuple):
    """Neighbouring windows along an axis, computed together."""

    first: int
    last: int
    """Exclusive."""
    spans: dict[fx.Node, Span]
    """Part of each map that the windows change."""


class Layout(NamedTuple):
    """Steps that are computed in part, for blocks of rows times columns; the other steps use whole maps."""

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
    """Find the layout with the lowest estimated cost.

    Args:
        steps: From :func:`~lightning_cifar.analysis.occlusion.receptive_field.local_steps`.
        image: Node of the images.
        sizes: Shapes of the maps of one image.
        windows: Pixels that the windows cover, along each axis.
        num_images: Number of images.
        chunk: Largest number of windows that are computed at once.
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
    """The image and the maps of the steps, if the rest of the network reads them."""
    inside = [image, *(step.node for step in steps)]
    return [node for node in inside if any(user not in inside for user in node.users)]


def _costs(steps: list[Step], sizes: Sizes, blocks: list[list[Block]], num_images: int, chunk: int) -> list[float]:
    """Cost of each step that is computed in part, for all windows and images."""
    # Most blocks have the same size, which is computed once.
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
    """Cost of an area (height, width) of the output of a step, for one image."""
    points = math.prod(area) * sizes[step.node][1] * POINT
    if step.axes is None:
        copied = math.prod(area) * sum(sizes[source][1] for source in step.sources) if len(step.sources) > 1 else 0
        return points + COPY * copied * in_part
    needed = math.prod(_length(axis.needed((0, length))) for axis, length in zip(step.axes, area, strict=True))
    copied = needed * sizes[step.sources[0]][1]
    if step.convolution is None:
        work = points * math.prod(axis.kernel for axis in step.axes)
    elif in_part:
        work = step.convolution.cost(*_extents(step, area))
    else:
        work = step.convolution.cost(*step.convolution.extents(*sizes[step.sources[0]][2:]))
    return work + COPY * copied * in_part


def _extents(step: Step, area: Sequence[int]) -> tuple[AxisExtent, AxisExtent]:
    """Extents of a convolution that computes an area inside the image."""
    assert step.axes is not None
    down, across = (
        AxisExtent(0, _length(axis.needed((0, length))), length) for axis, length in zip(step.axes, area, strict=True)
    )
    return down, across


def _calls(step: Step, area: Sequence[int]) -> int:
    """Number of calls of torch operations, including copies."""
    if step.axes is None:
        return 1
    return 6 + (1 if step.convolution is None else step.convolution.calls(*_extents(step, area)))


def _length(span: Span) -> int:
    return span[1] - span[0]


def _blocks(
    steps: list[Step], image: fx.Node, sizes: Sizes, axis: int, windows: Sequence[Span], length: int
) -> list[Block]:
    """Blocks of ``length`` windows along an axis, counted from both ends, so that equal blocks are most frequent."""
    count = len(windows)
    cuts = {cut for i in range(count // 2 // length + 1) for cut in (i * length, count - i * length)}
    middle = count // 2 // length * length
    if count - 2 * middle > length:
        cuts.add(count // 2)
    return [
        Block(first, last, _changed_spans(steps, image, sizes, axis, (windows[first][0], windows[last - 1][1])))
        for first, last in itertools.pairwise(sorted(cuts))
    ]


def _changed_spans(steps: list[Step], image: fx.Node, sizes: Sizes, axis: int, covered: Span) -> dict[fx.Node, Span]:
    spans = {image: covered}
    for step in steps:
        inputs = [spans[source] for source in step.sources]
        if step.axes is None:
            spans[step.node] = hull(inputs)
        else:
            spans[step.node] = step.axes[axis].changed(inputs[0], sizes[step.node][2 + axis])
    return spans
