"""Outputs of a sliding operation that depend on an input, against a count one by one."""

from itertools import product

import pytest

from lightning_cifar.analysis.occlusion.receptive_field import Slide

SLIDES = [
    Slide(kernel, stride, (before, after), 1)
    for kernel, stride, before, after in product((1, 2, 3, 5), (1, 2, 3), (0, 1, 2), (0, 1))
]
SIZE = 11


@pytest.mark.parametrize("slide", SLIDES, ids=str)
def test_spans_are_exact(slide: Slide) -> None:
    length = (SIZE + sum(slide.padding) - slide.kernel) // slide.stride + 1
    inputs = [
        range(i * slide.stride - slide.padding[0], i * slide.stride - slide.padding[0] + slide.kernel)
        for i in range(length)
    ]
    for begin, end in ((b, e) for b in range(SIZE) for e in range(b + 1, SIZE + 1)):
        seeing = [i for i, seen in enumerate(inputs) if any(begin <= place < end for place in seen)]
        if seeing:  # a stride above the kernel skips inputs
            assert slide.changed((begin, end), length) == (seeing[0], seeing[-1] + 1)
    for begin, end in ((b, e) for b in range(length) for e in range(b + 1, length + 1)):
        assert slide.needed((begin, end)) == (inputs[begin][0], inputs[end - 1][-1] + 1)


def test_a_dilated_kernel_reaches_further() -> None:
    slide = Slide(kernel=3, stride=1, padding=(0, 0), dilation=2)
    assert slide.changed((4, 5), 7) == (0, 5)
    assert slide.needed((2, 4)) == (2, 8)
