"""Animations hold the frames that went in, in order, for as long as they should be seen."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lightning_cifar.plots.animation import Encoder, GIFEncoder, WebPEncoder

BOTH = pytest.mark.parametrize("kind", [GIFEncoder, WebPEncoder])
Frames = list[NDArray[np.uint8]]


def encode(kind: type[Encoder], frames: Iterable[NDArray[np.uint8]], seconds: float = 0.2) -> bytes:
    file = io.BytesIO()
    encoder = kind(file, seconds)
    for frame in frames:
        encoder.add(frame)
    encoder.finish()
    return file.getvalue()


def decode(data: bytes) -> tuple[Frames, list[int], Image.Image]:
    """Frames, durations in ms, and the image that they came from."""
    image = Image.open(io.BytesIO(data))
    frames, durations = [], []
    for index in range(getattr(image, "n_frames", 1)):
        image.seek(index)
        image.load()
        frames.append(np.asarray(image.convert("RGB")))
        durations.append(int(image.info["duration"]))
    return frames, durations, image


def random_frames(count: int, colors: int, shape: tuple[int, int] = (21, 33)) -> Frames:
    rng = np.random.default_rng(0)
    palette = rng.integers(0, 256, (colors, 3), dtype=np.uint8)
    return [palette[rng.integers(0, colors, shape)] for _ in range(count)]


@BOTH
def test_frames_come_back_in_order_and_exactly(kind: type[Encoder]) -> None:
    frames = random_frames(5, 256)
    found, durations, image = decode(encode(kind, frames))
    assert len(found) == 5
    assert all(np.array_equal(*pair) for pair in zip(found, frames, strict=True))
    assert durations == [200] * 5
    assert image.size == (33, 21)
    assert image.info["loop"] == 0  # for ever


@BOTH
def test_equal_neighbours_are_one_frame_of_their_time_together(kind: type[Encoder]) -> None:
    one, two, three = random_frames(3, 9)
    found, durations, _ = decode(encode(kind, [one, one, two, three, three, three, one]))
    assert durations == [400, 200, 600, 200]
    assert all(np.array_equal(*pair) for pair in zip(found, [one, two, three, one], strict=True))
    _, durations, _ = decode(encode(kind, [one] * 7 + [two]))
    assert durations == [1400, 200]


@BOTH
def test_rounding_does_not_add_up(kind: type[Encoder]) -> None:
    _, durations, _ = decode(encode(kind, random_frames(30, 9, (4, 4)), seconds=1 / 30))
    assert len(durations) == 30
    assert sum(durations) == 1000


def test_a_longer_stay_than_a_gif_can_say_is_two_frames() -> None:
    one, two = random_frames(2, 9, (4, 4))
    _, durations, _ = decode(encode(GIFEncoder, [one] * 12 + [two], seconds=60))
    assert sum(durations) == 13 * 60_000


def test_webp_has_no_loss_where_a_gif_must_choose_its_colors() -> None:
    frames = [np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8) for seed in range(2)]
    found, _, _ = decode(encode(WebPEncoder, frames))
    assert all(np.array_equal(*pair) for pair in zip(found, frames, strict=True))
    found, _, _ = decode(encode(GIFEncoder, frames))
    assert all(np.abs(a.astype(int) - b).mean() < 20 for a, b in zip(found, frames, strict=True))


@BOTH
def test_a_single_frame(kind: type[Encoder]) -> None:
    (frame,) = random_frames(1, 9)
    found, _, _ = decode(encode(kind, [frame]))
    assert np.array_equal(found[0], frame)


@BOTH
def test_memory_does_not_grow_with_the_frames(kind: type[Encoder], tmp_path: Path) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            with (tmp_path / "file").open("wb") as file:
                encoder = kind(file, 0.2)
                for index in range(count):
                    encoder.add(np.full((64, 64, 3), index, np.uint8))
                encoder.finish()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(2)
    assert peak(60) < peak(4) + 20_000  # a frame has 12,288 bytes


@BOTH
def test_mistakes(kind: type[Encoder]) -> None:
    with pytest.raises(ValueError, match=r"seconds_per_frame \(=0\.01\) must be 0\.02 to 60"):
        kind(io.BytesIO(), 0.01)
    with pytest.raises(ValueError, match="at least one frame"):
        encode(kind, [])
    with pytest.raises(ValueError, match=r"a frame of \(4, 6, 3\) does not go with frames of \(4, 5, 3\)"):
        encode(kind, [np.zeros((4, width, 3), np.uint8) for width in (5, 6)])
    with pytest.raises(ValueError, match="16384 x 1 pixels is too large for WebP"):
        encode(WebPEncoder, [np.zeros((1, 16384, 3), np.uint8)])
