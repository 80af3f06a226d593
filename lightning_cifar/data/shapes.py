"""A synthetic data set: ten classes of drawn shapes and textures, made from a seed in seconds, without files.

Image ``i`` is a pure function of ``(seed, i, image_size)``. Every random number is a SplitMix64 hash (Steele, Lea &
Flood, OOPSLA 2014) of (seed, stream, i), and the noise a hash of (seed, i, pixel): neither chunks nor the number of
images change a byte.

Colour, position and rotation do not depend on the class, and foreground and background are interchangeable: only the
form differs. A linear classifier stays near chance; after three epochs over 10,000 images a LeNet reaches 70 %, and
better networks and regularisation reach more. Every class is mirror-symmetric (before rotation, whose distribution is
symmetric) and remains recognisable in a crop shifted by 4 of 32 pixels.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_cifar.data.checks import check_at_least

Floats = NDArray[np.float32]
Hashes = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_CHUNK_PIXELS = 2**18  # a float32 plane of a chunk is 1 MiB, which fits into the cache
_NUM_STROKES = 2


class _Pattern(NamedTuple):
    """One class: its signed distance (negative inside, even in x) in units of its scale, and the range of that scale.

    x points right and y down. The scale is the circumradius of a shape or the period of a texture, in half image sizes.
    """

    distance: Callable[[Floats, Floats], Floats]
    smallest: float
    largest: float


def _disc(x: Floats, y: Floats) -> Floats:
    return np.sqrt(x * x + y * y) - np.float32(0.9)


def _ring(x: Floats, y: Floats) -> Floats:
    return np.abs(np.sqrt(x * x + y * y) - np.float32(0.75)) - np.float32(0.2)


def _square(x: Floats, y: Floats) -> Floats:
    return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.8)


def _triangle(x: Floats, y: Floats) -> Floats:
    return np.maximum(np.abs(x) * np.float32(3**0.5 / 2) - y / 2, y) - np.float32(0.55)


def _cross(x: Floats, y: Floats) -> Floats:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.maximum(x, y) - np.float32(1), np.minimum(x, y) - np.float32(0.28))


def _star(x: Floats, y: Floats) -> Floats:
    """A pentagram: the points inside at least four of five half-planes, given by the second largest distance."""
    largest = second = np.full_like(x, -np.inf)
    for angle in np.arange(5) * 2 * np.pi / 5:
        plane = x * np.float32(np.sin(angle)) - y * np.float32(np.cos(angle))
        second = np.maximum(second, np.minimum(largest, plane))
        largest = np.maximum(largest, plane)
    return second - np.float32(1.1 * np.cos(2 * np.pi / 5))


def _to_nearest_integer(x: Floats) -> Floats:
    return np.abs(x - np.rint(x))


def _stripes(x: Floats, _: Floats) -> Floats:
    return _to_nearest_integer(x) - np.float32(0.25)


def _checkerboard(x: Floats, y: Floats) -> Floats:
    x, y = _stripes(x, y), _stripes(y, x)
    distance: Floats = np.copysign(np.minimum(np.abs(x), np.abs(y)), x * y)
    return distance


def _dots(x: Floats, y: Floats) -> Floats:
    x, y = _to_nearest_integer(x), _to_nearest_integer(y)
    return np.sqrt(x * x + y * y) - np.float32(0.3)


def _zigzag(x: Floats, y: Floats) -> Floats:
    slope = np.float32(1.6)
    return _stripes(y + slope * _to_nearest_integer(x * np.float32(0.7)), x) / np.float32(1.5)


_PATTERNS = {
    "disc": _Pattern(_disc, 0.35, 0.7),
    "ring": _Pattern(_ring, 0.35, 0.7),
    "square": _Pattern(_square, 0.35, 0.7),
    "triangle": _Pattern(_triangle, 0.4, 0.75),
    "cross": _Pattern(_cross, 0.4, 0.75),
    "star": _Pattern(_star, 0.45, 0.8),
    "stripes": _Pattern(_stripes, 0.35, 0.7),
    "checkerboard": _Pattern(_checkerboard, 0.5, 0.9),
    "dots": _Pattern(_dots, 0.4, 0.65),
    "zigzag": _Pattern(_zigzag, 0.45, 0.7),
}

CLASS_NAMES: tuple[str, ...] = tuple(_PATTERNS)
"""Names in the order of the labels."""


def draw_shapes(
    num_images: int, *, seed: int, first: int = 0, image_size: int = 32
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw the images ``first`` to ``first + num_images - 1`` of the endless data set of ``seed``.

    Args:
        num_images: Number N of images.
        seed: Seed of the data set, in [0, 2**64).
        first: Index of the first image. Disjoint ranges of one seed are disjoint samples, such as train and test.
        image_size: Height and width S in pixels, at least 8.

    Returns:
        Images ``(N, S, S, 3)`` as uint8, and labels ``(N,)`` as int64. Each block of ten images that begins at a
        multiple of ten contains each class once.

    Raises:
        ValueError: An argument is out of range.
    """
    check_at_least(1, num_images=num_images)
    check_at_least(0, first=first)
    check_at_least(8, image_size=image_size)
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed (={seed}) must be in [0, 2**64).")
    images = np.empty((num_images, image_size, image_size, 3), np.uint8)
    labels = _draw_labels(num_images, seed, first)
    size = max(1, _CHUNK_PIXELS // image_size**2)
    for start in range(0, num_images, size):
        chunk = slice(start, start + size)
        _draw_chunk(images[chunk], labels[chunk], seed, first + start)
    return images, labels


def _mix(x: Hashes) -> Hashes:
    """Apply the output function of SplitMix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _hash(seed: int, stream: int, counters: NDArray[np.int64]) -> Hashes:
    # Arrays of one element, because scalars warn of overflow and arrays do not.
    offset: Hashes = np.array([stream + 1], np.uint64) * _GOLDEN
    key = _mix(_mix(np.array([seed], np.uint64)) + offset)
    steps: Hashes = counters.astype(np.uint64) * _GOLDEN
    return _mix(key + steps)


def _draw_labels(num_images: int, seed: int, first: int) -> NDArray[np.int64]:
    """Shuffle the ten labels within every block of ten indices."""
    begin = first // 10 * 10
    end = -(-(first + num_images) // 10) * 10
    order = _hash(seed, 0, np.arange(begin, end)).reshape(-1, 10).argsort(axis=1)
    return order.reshape(-1)[first - begin :][:num_images].astype(np.int64)


class _Draws:
    """Uniform random numbers ``(n, 1, 1)`` for the images of a chunk; each call uses the next stream."""

    def __init__(self, seed: int, first: int, num_images: int) -> None:
        self.seed = seed
        self.indices = np.arange(first, first + num_images)[:, None, None]
        self.stream = 0  # stream of the labels

    def hashes(self) -> Hashes:
        self.stream += 1
        return _hash(self.seed, self.stream, self.indices)

    def uniform(self, low: float, high: float) -> Floats:
        fraction = (self.hashes() >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
        return np.float32(low) + np.float32(high - low) * fraction

    def direction(self) -> tuple[Floats, Floats]:
        angle = self.uniform(0, 2 * np.pi)
        return np.cos(angle), np.sin(angle)


def _draw_chunk(images: NDArray[np.uint8], labels: NDArray[np.int64], seed: int, first: int) -> None:
    """Fill ``images`` ``(n, S, S, 3)`` in place: gradient, pattern, strokes over both, noise."""
    num_images, image_size = images.shape[:2]
    draws = _Draws(seed, first, num_images)
    axis = ((np.arange(image_size) + 0.5) * (2 / image_size) - 1).astype(np.float32)
    x, y = axis[None, None, :], axis[None, :, None]
    pattern = _cover_pattern(draws, labels, x, y)
    strokes = [_cover_stroke(draws, x, y) for _ in range(_NUM_STROKES)]
    cos, sin = draws.direction()
    gradient = x * cos + y * sin
    amplitude = draws.uniform(0.03, 0.3) * np.float32(2**-20)
    pixels: Hashes = np.arange(image_size**2, dtype=np.uint64).reshape(1, image_size, image_size) * _GOLDEN
    noise = _mix(draws.hashes() + pixels)
    inverted = draws.uniform(0, 1) < np.float32(0.5)
    for channel in range(3):
        # One of the two is lighter in every channel, which gives contrast without a preferred colour.
        dark = draws.uniform(0, 0.5)
        light = dark + draws.uniform(0.08, 0.5)
        foreground, background = np.where(inverted, dark, light), np.where(inverted, light, dark)
        plane = background + gradient * draws.uniform(-0.2, 0.2)
        plane += pattern * (foreground - plane)
        for stroke in strokes:
            plane += stroke * (draws.uniform(0, 1) - plane)
        bits = (noise >> np.uint64(21 * channel)).astype(np.uint32) & np.uint32(2**21 - 1)
        plane += (bits.astype(np.float32) - np.float32(2**20)) * amplitude
        images[..., channel] = np.clip(plane, 0, 1) * np.float32(255) + np.float32(0.5)


def _cover(distance: Floats, pixels_per_unit: Floats | np.float32) -> Floats:
    """Return the share of each pixel that is inside: a ramp one pixel wide over the edge."""
    coverage: Floats = np.clip(np.float32(0.5) - distance * pixels_per_unit, 0, 1)
    return coverage


def _cover_pattern(draws: _Draws, labels: NDArray[np.int64], x: Floats, y: Floats) -> Floats:
    """Draw the class of each image at a random position, size, aspect and rotation: coverage ``(n, S, S)``."""
    angle = draws.uniform(-0.5, 0.5)  # radians; with the full circle a LeNet learns too slowly
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = x - draws.uniform(-0.3, 0.3), y - draws.uniform(-0.3, 0.3)
    aspect = draws.uniform(0.85, 1.15)
    x, y = (x * cos + y * sin) * aspect, (y * cos - x * sin) / aspect
    size = draws.uniform(0, 1)
    coverage = np.empty_like(x)
    for label, (distance, smallest, largest) in enumerate(_PATTERNS.values()):
        chosen = np.flatnonzero(labels == label)
        scale = np.float32(smallest) + np.float32(largest - smallest) * size[chosen]
        inside = distance(x[chosen] / scale, y[chosen] / scale)
        coverage[chosen] = _cover(inside, scale * np.float32(x.shape[-1] / 2))
    return coverage


def _cover_stroke(draws: _Draws, x: Floats, y: Floats) -> Floats:
    """Draw a distractor: a straight, translucent stroke from edge to edge, one to four pixels of 32 wide."""
    cos, sin = draws.direction()
    distance = np.abs(x * cos + y * sin - draws.uniform(-1, 1)) - draws.uniform(0.03, 0.12)
    return _cover(distance, np.float32(x.shape[-1] / 2)) * draws.uniform(0.2, 0.8)
