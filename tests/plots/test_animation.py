"""Animations contain the given frames, in order, with the right durations."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lightning_cifar.plots import animation
from lightning_cifar.plots.animation import encode_animation, evenly

BOTH = pytest.mark.parametrize("kind", ["gif", "webp"])
Frames = list[NDArray[np.uint8]]


def encode(kind: str, frames: Frames, seconds: float = 0.2, last: int = 1) -> tuple[Frames, list[int], Image.Image]:
    """Encode and decode: frames, durations in ms, and the image."""
    data = encode_animation(frames, lambda shown: shown, seconds, last=last)[kind]
    image = Image.open(io.BytesIO(data))
    found, durations = [], []
    for index in range(getattr(image, "n_frames", 1)):
        image.seek(index)
        image.load()
        found.append(np.asarray(image.convert("RGB")))
        durations.append(int(image.info.get("duration", 0)))
    return found, durations, image


def random_frames(count: int, colors: int, shape: tuple[int, int] = (21, 33)) -> Frames:
    rng = np.random.default_rng(0)
    return [
        rng.integers(0, 256, (colors, 3), dtype=np.uint8)[rng.integers(0, colors, shape)] for _ in range(count)
    ]  # different colours in each


@BOTH
@pytest.mark.parametrize("count", [1, 2, 5])
def test_frames_are_exact_and_in_order(kind: str, count: int) -> None:
    frames = random_frames(count, 256)
    found, durations, image = encode(kind, frames)
    assert len(found) == count
    assert all(np.array_equal(*pair) for pair in zip(found, frames, strict=True))
    assert image.size == (33, 21)
    if count > 1:
        assert durations == [200] * count
        assert image.info["loop"] == 0  # forever


@BOTH
def test_equal_neighbours_become_one_frame_with_their_total_duration(kind: str) -> None:
    one, two, three = random_frames(3, 9)
    found, durations, _ = encode(kind, [one, one, two, three, three, three, one])
    assert durations == [400, 200, 600, 200]
    assert all(np.array_equal(*pair) for pair in zip(found, [one, two, three, one], strict=True))
    _, durations, _ = encode(kind, [one] * 7 + [two], last=5)
    assert durations == [1400, 1000]
    assert len(encode(kind, [one] * 3)[0]) == 1


@BOTH
@pytest.mark.parametrize(("seconds", "total"), [(1 / 30, 1000), (0.02, 600), (2.675, 80250)])
def test_rounding_does_not_add_up(kind: str, seconds: float, total: int) -> None:
    _, durations, _ = encode(kind, random_frames(30, 9, (4, 4)), seconds)
    assert len(durations) == 30
    assert sum(durations) == total


def test_webp_is_lossless_with_more_than_256_colors() -> None:
    frames = [np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8) for seed in range(2)]
    found, _, _ = encode("webp", frames)
    assert all(np.array_equal(*pair) for pair in zip(found, frames, strict=True))
    found, _, _ = encode("gif", frames)
    assert all(np.abs(a.astype(int) - b).mean() < 20 for a, b in zip(found, frames, strict=True))


@pytest.mark.parametrize("count", [1, 2, 7, 240, 241, 1000])
@pytest.mark.parametrize("most", [2, 7, 240])
def test_an_even_selection_keeps_the_first_and_the_last(count: int, most: int) -> None:
    chosen = evenly(range(count), most)
    assert len(chosen) == min(count, most)
    assert (chosen[0], chosen[-1]) == (0, count - 1)
    steps = np.diff(chosen)
    assert count == 1 or 1 <= steps.min() <= steps.max() <= steps.min() + 1


def test_memory_is_bounded_by_the_number_and_the_size_of_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def draw(items: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        drawn.clear()
        for item in items:
            drawn.append(item)
            yield np.full((4, 4, 3), item % 256, np.uint8)

    encode_animation(range(1000), draw, 0.2)
    assert drawn == evenly(range(1000), 240)
    encode_animation(range(1000), draw, 0.2, most=300)
    assert len(drawn) == 240
    encode_animation(range(1000), draw, 0.2, most=50)
    assert drawn == evenly(range(1000), 50)
    monkeypatch.setattr(animation, "_MOST_PIXELS", 10 * 16)
    encode_animation(range(1000), draw, 0.2)
    assert drawn == evenly(range(1000), 10)
    monkeypatch.setattr(animation, "_MOST_PIXELS", 1)
    encode_animation(range(1000), draw, 0.2)
    assert drawn == [0, 999]
