"""Batch augmentations equal slow references for one image, and their random numbers depend only on the sample.

The references follow the docstrings, not the code: they process one image at a time, in NumPy and plain Python, with
the random numbers of its address (seed, epoch, stream, sample index).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as kernels

from lightning_cifar.data.augment import BY_NAME, Pipeline, Spec, build
from lightning_cifar.data.batches import BatchLoader
from lightning_cifar.data.counter_rng import ALTERNATING, uniform
from lightning_cifar.data.crop_table import RowTable
from lightning_cifar.data.geometry import Crop, Flip, ResizedCrop, Samples, ShiftScaleRotate

Image = NDArray[np.uint8]  # (H, W, C)

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
SIZES = [(11, 8, 3), (8, 11, 1), (32, 32, 3), (5, 9, 3)]
ADDRESSES = [(0, 0), (0, 1), (7, 4)]  # seed, epoch


# More threads would wait for each other: thousands of tiny kernels take several times as long.
pytestmark = pytest.mark.usefixtures("one_thread")


def random_images(num: int, height: int, width: int, channels: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * height + 10 * width + channels)
    return torch.randint(0, 256, (num, height, width, channels), dtype=torch.uint8, generator=generator)


def pipeline_of(specs: Sequence[Spec], images: Tensor) -> Pipeline:
    channels = images.shape[3]
    pipeline = Pipeline(build(specs), mean=MEAN[:channels], std=STD[:channels])
    pipeline.load(images)
    return pipeline


def augment(specs: Sequence[Spec], images: Tensor, seed: int, epoch: int, indices: Tensor | None = None) -> Tensor:
    """Return the images augmented by the package."""
    indices = torch.arange(len(images)) if indices is None else indices
    pipeline = pipeline_of(specs, images)
    return pipeline.augment(Samples(seed, epoch, indices), pipeline.draw(seed, epoch, indices))


# ---------------------------------------------------------------------------------------------------------------------
# One image at a time
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """Address of the random numbers of one operation for one sample."""

    seed: int
    epoch: int
    index: int
    first_stream: int

    def draws(self, num: int) -> list[float]:
        streams = range(self.first_stream, self.first_stream + num)
        return [float(row[0]) for row in uniform(self.seed, self.epoch, streams, torch.tensor([self.index]))]


def flip(image: Image, sample: Sample, p: float = 0.5, alternating: bool = False) -> Image:
    if alternating:
        start = range(ALTERNATING, ALTERNATING + 1)
        mirrored = float(uniform(sample.seed, 0, start, torch.tensor([sample.index]))) < p
        for _ in range(sample.epoch):
            mirrored = not mirrored
    else:
        mirrored = sample.draws(1)[0] < p
    return image[:, ::-1] if mirrored else image


def crop(image: Image, sample: Sample, padding: int = 4, mode: str = "reflect") -> Image:
    top, left = (math.floor(draw * (2 * padding + 1)) for draw in sample.draws(2))
    around = ((padding, padding), (padding, padding), (0, 0))
    padded = np.pad(image, around, mode="reflect") if mode == "reflect" else np.pad(image, around, mode="constant")
    return padded[top : top + image.shape[0], left : left + image.shape[1]]


def level_of(fill: int | str, channels: int) -> Image:
    return np.array([round(255 * value) for value in MEAN[:channels]] if fill == "mean" else [fill] * channels)


def cutout(image: Image, sample: Sample, size: int = 8, p: float = 1.0, fill: int | str = "mean") -> Image:
    height, width, channels = image.shape
    down, right, chance = sample.draws(3)
    centre_y, centre_x = math.floor(down * height), math.floor(right * width)
    result = image.copy()
    for y in range(height):
        for x in range(width):
            in_square = 0 <= y - centre_y + size // 2 < size and 0 <= x - centre_x + size // 2 < size
            if in_square and chance < p:
                result[y, x] = level_of(fill, channels)
    return result


def erasing(
    image: Image,
    sample: Sample,
    p: float = 0.5,
    smallest: float = 0.02,
    largest: float = 0.33,
    ratio: float = 3.3,
    fill: int | str = "mean",
) -> Image:
    height, width, channels = image.shape
    size, shape, down, right, chance = sample.draws(5)
    area, stretch = smallest + (largest - smallest) * size, ratio ** (2 * shape - 1)
    rows = min(max(round(height * math.sqrt(area * stretch)), 1), height)
    columns = min(max(round(width * math.sqrt(area / stretch)), 1), width)
    top, left = math.floor(down * (height - rows + 1)), math.floor(right * (width - columns + 1))
    result = image.copy()
    if chance < p:
        result[top : top + rows, left : left + columns] = level_of(fill, channels)
    return result


def between_pixels(image: Image, y: float, x: float) -> NDArray[np.float64]:
    """Return the bilinear interpolation at a point inside the image, in pixels from the centre of the first pixel."""
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, image.shape[0] - 1), min(left + 1, image.shape[1] - 1)
    below, beside = y - top, x - left
    upper = (1 - beside) * image[top, left] + beside * image[top, right]
    lower = (1 - beside) * image[bottom, left] + beside * image[bottom, right]
    level: NDArray[np.float64] = (1 - below) * upper + below * lower
    return level


def reflected(place: float, size: int) -> float:
    """Mirror a coordinate about the centres of the first and the last pixel until it is inside."""
    last = size - 1
    while not 0 <= place <= last:
        place = -place if place < 0 else 2 * last - place
    return place


def shift_scale_rotate(
    image: Image, sample: Sample, shift: float = 0.0625, scale: float = 0.1, rotate: float = 45.0, p: float = 0.5
) -> Image:
    height, width, _ = image.shape
    *numbers, chance = sample.draws(5)
    if chance >= p:
        return image
    right, down, larger, turn = (2 * number - 1 for number in numbers)
    angle, factor = math.radians(turn * rotate), 1 + larger * scale
    forward = factor * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    back = np.linalg.inv(forward)
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    moved = np.array([right * shift * width, down * shift * height])
    result = np.empty_like(image)
    for y in range(height):
        for x in range(width):
            source_x, source_y = back @ (np.array([x, y]) - centre - moved) + centre
            level = between_pixels(image, reflected(source_y, height), reflected(source_x, width))
            result[y, x] = np.rint(level)
    return result


def resized_crop(image: Image, sample: Sample, scale: float = 0.08, ratio: float = 4 / 3) -> Image:
    height, width, _ = image.shape
    size, shape, right, down = sample.draws(4)
    area, stretch = scale + (1 - scale) * size, ratio ** (2 * shape - 1)
    box_width, box_height = width * min(math.sqrt(area * stretch), 1), height * min(math.sqrt(area / stretch), 1)
    left, top = (width - box_width) * right, (height - box_height) * down
    result = np.empty_like(image)
    for y in range(height):
        for x in range(width):
            source_y = top + (y + 0.5) / height * box_height - 0.5
            source_x = left + (x + 0.5) / width * box_width - 0.5
            level = between_pixels(image, min(max(source_y, 0), height - 1), min(max(source_x, 0), width - 1))
            result[y, x] = np.rint(level)
    return result


def by_torchvision(kernel: Callable[..., Any], image: Image, *args: Any) -> Image:
    changed: Tensor = kernel(torch.from_numpy(image.copy()).permute(2, 0, 1), *args)
    return changed.permute(1, 2, 0).numpy()


def brightness(image: Image, sample: Sample, strength: float = 0.4) -> Image:
    return by_torchvision(kernels.adjust_brightness, image, 1 + (2 * sample.draws(1)[0] - 1) * strength)


def contrast(image: Image, sample: Sample, strength: float = 0.4) -> Image:
    return by_torchvision(kernels.adjust_contrast, image, 1 + (2 * sample.draws(1)[0] - 1) * strength)


def saturation(image: Image, sample: Sample, strength: float = 0.4) -> Image:
    return by_torchvision(kernels.adjust_saturation, image, 1 + (2 * sample.draws(1)[0] - 1) * strength)


def grayscale(image: Image, sample: Sample, p: float = 0.1) -> Image:
    return by_torchvision(kernels.rgb_to_grayscale, image, image.shape[2]) if sample.draws(1)[0] < p else image


REFERENCES: dict[str, tuple[Callable[..., Image], int]] = {  # and the number of draws
    "flip": (flip, 1),
    "crop": (crop, 2),
    "cutout": (cutout, 3),
    "erasing": (erasing, 5),
    "shift_scale_rotate": (shift_scale_rotate, 5),
    "resized_crop": (resized_crop, 4),
    "brightness": (brightness, 1),
    "contrast": (contrast, 1),
    "saturation": (saturation, 1),
    "grayscale": (grayscale, 1),
}


def one_by_one(specs: Sequence[dict[str, Any]], images: Tensor, seed: int, epoch: int, indices: Tensor) -> Tensor:
    """Return the images augmented by the references."""
    results = []
    for index in indices.tolist():
        image, stream = images[index].numpy(), 0
        for spec in specs:
            [(name, settings)] = spec.items()
            reference, num_draws = REFERENCES[name]
            image = reference(image, Sample(seed, epoch, index, stream), **settings)
            stream += num_draws
        results.append(torch.from_numpy(image.copy()))
    return torch.stack(results)


def largest_difference(one: Tensor, other: Tensor) -> int:
    assert one.shape == other.shape
    assert one.dtype == other.dtype == torch.uint8
    return int((one.int() - other.int()).abs().max())


EXACT: list[list[dict[str, Any]]] = [
    [{"flip": {}}],
    [{"flip": {"p": 0.2}}],
    [{"flip": {"alternating": True}}],
    [{"crop": {}}],
    [{"crop": {"padding": 0}}],
    [{"crop": {"padding": 1, "mode": "zero"}}],
    [{"crop": {"padding": 12, "mode": "zero"}}],
    [{"cutout": {"size": 5}}],
    [{"cutout": {"size": 4, "p": 0.4, "fill": 0}}],
    [{"cutout": {"size": 1, "fill": 255}}],
    [{"erasing": {}}],
    [{"erasing": {"p": 1.0, "smallest": 0.2, "largest": 1.0, "fill": 77}}],
    [{"grayscale": {"p": 0.5}}],
    [{"flip": {}}, {"crop": {"padding": 2}}],
    [{"crop": {"padding": 3, "mode": "zero"}}, {"flip": {}}, {"cutout": {"size": 3}}],
    [{"grayscale": {"p": 0.3}}, {"flip": {}}, {"crop": {"padding": 2}}, {"erasing": {}}, {"flip": {}}],
]
ROUNDED: list[list[dict[str, Any]]] = [
    [{"shift_scale_rotate": {}}],
    [{"shift_scale_rotate": {"shift": 0.3, "scale": 0.5, "rotate": 180, "p": 1.0}}],
    [{"resized_crop": {}}],
    [{"resized_crop": {"scale": 1.0, "ratio": 3.0}}],
    [{"brightness": {}}],
    [{"brightness": {"strength": 1.0}}],
    [{"contrast": {}}],
    [{"contrast": {"strength": 1.0}}],
    [{"saturation": {}}],
    [{"saturation": {"strength": 1.0}}],
    [{"flip": {}}, {"crop": {"padding": 2}}, {"shift_scale_rotate": {"p": 0.9}}, {"cutout": {"size": 3}}],
]


def label(value: Any) -> str | None:
    if isinstance(value, list):
        return "-".join(
            f"{name}{sorted(settings.values(), key=str) or ''}" for [(name, settings)] in map(dict.items, value)
        )
    return "x".join(map(str, value)) if isinstance(value, tuple) else None


@pytest.mark.parametrize("size", SIZES, ids=label)
@pytest.mark.parametrize("specs", EXACT, ids=label)
def test_equals_the_reference_bit_for_bit(specs: list[dict[str, Any]], size: tuple[int, int, int]) -> None:
    images = random_images(16, *size)
    indices = torch.tensor([3, 15, 0, 8, 8, 7, 1, 12, 5])  # in any order, one of them twice
    for seed, epoch in ADDRESSES:
        ours = augment(specs, images, seed, epoch, indices)
        assert largest_difference(ours, one_by_one(specs, images, seed, epoch, indices)) == 0


@pytest.mark.parametrize(
    ("specs", "size"),
    # grey images are unchanged, see the test below
    [(specs, size) for specs in ROUNDED for size in SIZES if "saturation" not in specs[0] or size[2] == 3],
    ids=label,
)
def test_equals_the_reference_to_one_grey_level(specs: list[dict[str, Any]], size: tuple[int, int, int]) -> None:
    images = random_images(16, *size)
    indices = torch.tensor([3, 15, 0, 8])
    for seed, epoch in ADDRESSES:
        ours, reference = (f(specs, images, seed, epoch, indices) for f in (augment, one_by_one))
        assert largest_difference(ours, reference) <= 1
        assert (ours != reference).float().mean() < 0.02  # and rarely


# ---------------------------------------------------------------------------------------------------------------------
# By hand
# ---------------------------------------------------------------------------------------------------------------------

ANYWHERE = Samples(0, 0, torch.arange(1))


def column(*numbers: float) -> Tensor:
    return torch.tensor(numbers)[:, None]


def test_a_right_angle_turns_the_image_clockwise() -> None:
    image = random_images(1, 7, 7, 3)
    turned = ShiftScaleRotate(shift=0, scale=0, rotate=90, p=1)(image, column(0.5, 0.5, 0.5, 1, 0), ANYWHERE)
    assert torch.equal(turned, image.rot90(-1, dims=(1, 2)))
    turned = ShiftScaleRotate(shift=0, scale=0, rotate=90, p=1)(image, column(0.5, 0.5, 0.5, 0, 0), ANYWHERE)
    assert torch.equal(turned, image.rot90(1, dims=(1, 2)))


def test_a_shift_of_one_pixel_reflects_the_second_pixel() -> None:
    image = torch.tensor([[10, 20, 30, 40]] * 3, dtype=torch.uint8).view(1, 3, 4, 1)
    shift = ShiftScaleRotate(shift=0.25, scale=0, rotate=0, p=1)
    assert shift(image, column(1, 0.5, 0.5, 0.5, 0), ANYWHERE)[0, 0, :, 0].tolist() == [20, 10, 20, 30]
    assert shift(image, column(0, 0.5, 0.5, 0.5, 0), ANYWHERE)[0, 0, :, 0].tolist() == [20, 30, 40, 30]


def test_a_larger_scale_enlarges() -> None:
    image = torch.tensor([[0, 100, 200, 100, 0]] * 5, dtype=torch.uint8).view(1, 5, 5, 1)
    enlarge = ShiftScaleRotate(shift=0, scale=0.6, rotate=0, p=1)
    # 1.6 times as large: the neighbours of the middle show what is 1 / 1.6 = 0.625 pixels from it.
    levels = enlarge(image, column(0.5, 0.5, 1, 0.5, 0), ANYWHERE)[0, 2, :, 0].tolist()
    assert levels[1:4] == [138, 200, 138]


def test_a_resized_crop_of_the_whole_image_is_the_image() -> None:
    image = random_images(1, 9, 6, 3)
    assert torch.equal(ResizedCrop(scale=1.0)(image, column(0, 0.5, 0.3, 0.9), ANYWHERE), image)


def test_padding_modes_of_the_row_table() -> None:
    image = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=torch.uint8).view(1, 3, 3, 1)
    corner = torch.tensor([0])
    expected = {"reflect": [[5, 4, 5], [2, 1, 2], [5, 4, 5]], "zero": [[0, 0, 0], [0, 1, 2], [0, 4, 5]]}
    for mode in ("reflect", "zero"):
        table = RowTable(image, padding=1, mode=mode, mirrored=False)
        assert table.gather(corner, corner, corner)[0, :, :, 0].tolist() == expected[mode]


def test_zero_strength_and_probability_do_not_change_images() -> None:
    images = random_images(20, 9, 11, 3)
    specs: list[Spec] = [{"flip": 0.0}, {"crop": 0}, {"shift_scale_rotate": {"p": 0}}, {"cutout": {"p": 0}}]
    specs += [{"brightness": 0}, {"contrast": 0}, {"saturation": 0}, {"grayscale": 0}, {"erasing": 0}]
    for spec in [[spec] for spec in specs] + [specs]:
        assert torch.equal(augment(spec, images, 0, 0), images), spec


@pytest.mark.parametrize("p", [0.5, 0.2])
@pytest.mark.parametrize("specs", [[], [{"cutout": 2}], [{"crop": 0}]], ids=["first", "behind cutout", "behind crop"])
def test_an_alternating_flip_shows_both_versions_in_two_epochs(specs: list[Spec], p: float) -> None:
    images = random_images(64, 8, 8, 1)
    before = [{"cutout": {"p": 0}} if spec == {"cutout": 2} else spec for spec in specs]
    specs = [*before, {"flip": {"p": p, "alternating": True}}]
    zeroth, *later = (augment(specs, images, 5, epoch) for epoch in range(5))
    mirrored = (zeroth == images.flip(2)).flatten(1).all(1)
    assert torch.equal(torch.where(mirrored[:, None, None, None], images.flip(2), images), zeroth)
    assert 0 < mirrored.sum() < 64
    for epoch, result in enumerate(later, 1):
        assert torch.equal(result, zeroth.flip(2) if epoch % 2 else zeroth)


def test_an_alternating_flip_is_independent_of_the_crop_before_it() -> None:
    height, width, padding = 11, 8, 3
    numbers = torch.arange(1, height * width + 1, dtype=torch.uint8).view(1, height, width, 1)
    images = numbers.repeat(2000, 1, 1, 1)
    result = augment([{"crop": padding}, {"flip": {"alternating": True}}], images, 0, 0)[:, :, :, 0].int()
    mirrored = result[:, 5, 4] < result[:, 5, 3]
    high = result[:, 5, 4] // width < 5  # the upper half of the places
    assert abs(mirrored[high].float().mean() - mirrored[~high].float().mean()) < 0.1


@pytest.mark.parametrize("strength", [0.1, 0.4, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_saturation_does_not_change_grey_images(strength: float, seed: int) -> None:
    images = random_images(64, 8, 8, 1)
    assert torch.equal(augment([{"saturation": strength}], images, seed, 0), images)


# ---------------------------------------------------------------------------------------------------------------------
# Flip and crop at the front, gathered at once
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=label)
@pytest.mark.parametrize("mode", ["reflect", "zero"])
@pytest.mark.parametrize("alternating", [False, True])
@pytest.mark.parametrize(
    "names", ["flip", "crop", "flip crop", "crop flip", "flip crop flip", "crop flip crop", "flip flip", "crop crop"]
)
def test_the_front_equals_one_operation_after_another(
    names: str, alternating: bool, mode: str, size: tuple[int, int, int]
) -> None:
    settings: dict[str, dict[str, Any]] = {
        "flip": {"alternating": alternating},
        "crop": {"padding": min(4, *size[:2]) - (mode == "reflect"), "mode": mode},
    }
    images = random_images(40, *size)
    pipeline = pipeline_of([{name: settings[name]} for name in names.split()], images)
    indices = torch.arange(40).flip(0)
    for seed, epoch in ADDRESSES:
        samples, draws = Samples(seed, epoch, indices), pipeline.draw(seed, epoch, indices)
        expected, first = images[indices], 0
        for operation in pipeline.operations:
            assert isinstance(operation, Flip | Crop)
            expected = operation(expected, draws[first : first + operation.num_draws], samples)
            first += operation.num_draws
        assert first == len(draws) == pipeline.num_draws
        assert torch.equal(pipeline.augment(samples, draws), expected)


# ---------------------------------------------------------------------------------------------------------------------
# Through the loader: a pure function of (seed, epoch, sample index)
# ---------------------------------------------------------------------------------------------------------------------

MEMORY = random_images(71, 31, 32, 3)
LISTS: dict[str, list[Spec]] = {
    **{name: [name] for name in BY_NAME},
    "long": ["flip", {"crop": 4}, "brightness", "contrast", "saturation", "grayscale", {"cutout": 8}],
    "longer": ["resized_crop", {"flip": {"alternating": True}}, "trivial_augment", "shift_scale_rotate", "erasing"],
}


def by_label(specs: list[Spec], *, epoch: int = 0, seed: int = 3, world_size: int = 1, **kwargs: Any) -> Tensor:
    """Return the images of an epoch of all ranks, by label; NaN for an image that no rank has."""
    images, labels = [], []
    for rank in range(world_size):
        pipeline = Pipeline(build(specs), mean=MEAN, std=STD)
        loader = BatchLoader(
            MEMORY,
            torch.arange(len(MEMORY)),
            pipeline=pipeline,
            seed=seed,
            rank=rank,
            world_size=world_size,
            **kwargs,
        )
        loader.set_epoch(epoch)
        for some_images, some_labels in loader:
            assert some_images.dtype == torch.float32
            assert some_images.shape == (len(some_labels), 3, 31, 32)
            assert some_images.is_contiguous(memory_format=torch.channels_last)
            images.append(some_images)
            labels.append(some_labels)
    order = torch.cat(labels)
    result = torch.full((len(MEMORY), 3, 31, 32), math.nan)
    result[order] = torch.cat(images)
    assert len(set(order.tolist())) == len(order)
    return result


@pytest.mark.parametrize("name", LISTS)
def test_a_sample_depends_only_on_its_address(name: str) -> None:
    specs, before = LISTS[name], MEMORY.clone()
    expected = by_label(specs, batch_size=64, shuffle=True)
    assert not expected.isnan().any()
    for batch_size in (1, 7):
        assert torch.equal(by_label(specs, batch_size=batch_size, shuffle=True), expected)
    assert torch.equal(by_label(specs, batch_size=7, shuffle=False, world_size=2), expected)
    shared = by_label(specs, batch_size=64, shuffle=True, world_size=2)
    seen = ~shared.isnan().flatten(1).any(1)
    assert seen.sum() == 70
    assert torch.equal(shared[seen], expected[seen])
    assert torch.equal(MEMORY, before)


@pytest.mark.parametrize("name", LISTS)
def test_a_sample_does_not_depend_on_the_number_of_threads(name: str) -> None:
    expected = by_label(LISTS[name], batch_size=64)
    torch.set_num_threads(3)  # the fixture sets it back
    assert torch.equal(by_label(LISTS[name], batch_size=64), expected)


@pytest.mark.parametrize("name", LISTS)
def test_epochs_and_seeds_differ(name: str) -> None:
    base = by_label(LISTS[name], batch_size=64)
    assert not torch.equal(by_label(LISTS[name], batch_size=64, epoch=1), base)
    assert not torch.equal(by_label(LISTS[name], batch_size=64, seed=4), base)


@pytest.mark.parametrize("name", BY_NAME)
def test_an_operation_does_not_change_its_input(name: str) -> None:
    images = random_images(33, 12, 10, 3)
    before, indices = images.clone(), torch.arange(33)
    (operation,) = build([name])
    draws = uniform(0, 0, range(operation.num_draws), indices)
    numbers = draws.clone()
    operation(images, draws, Samples(0, 0, indices))
    assert torch.equal(images, before)
    assert torch.equal(draws, numbers)


def test_a_pipeline_must_be_loaded_first() -> None:
    pipeline = Pipeline(build(["flip"]), mean=MEAN, std=STD)
    indices = torch.arange(3)
    with pytest.raises(RuntimeError, match=r"Call Pipeline\.load before the first batch"):
        pipeline(Samples(0, 0, indices), pipeline.draw(0, 0, indices))


# ---------------------------------------------------------------------------------------------------------------------
# Statistics, read from the images alone
# ---------------------------------------------------------------------------------------------------------------------

NUM = 4000


def copies(image: Tensor) -> Tensor:
    return image.to(torch.uint8).repeat(NUM, 1, 1, 1)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("epoch", [0, 3])
def test_share_of_mirrored_images(p: float, epoch: int) -> None:
    images = copies(torch.arange(6).view(1, 2, 3, 1))
    mirrored = (augment([{"flip": p}], images, 2, epoch) != images).flatten(1).any(1).float().mean()
    assert abs(mirrored - p) <= (0 if p in (0, 1) else 0.03)


@pytest.mark.parametrize("mode", ["reflect", "zero"])
def test_crop_positions_are_uniform(mode: str) -> None:
    padding, height, width = 2, 9, 7
    images = copies(torch.arange(height * width).view(1, height, width, 1))
    middle = augment([{"crop": {"padding": padding, "mode": mode}}], images, 0, 0)[:, 4, 3, 0].long()
    down, right = middle // width - 4 + padding, middle % width - 3 + padding
    counts = torch.bincount(down * 5 + right, minlength=25)
    assert len(counts) == 25
    chi_square = ((counts - NUM / 25) ** 2 / (NUM / 25)).sum()
    assert chi_square < 60  # 24 degrees of freedom: the 99.99 % point


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_cutout_has_the_given_probability_and_uniform_positions(p: float) -> None:
    images = copies(torch.full((1, 6, 5, 1), 200))
    changed = augment([{"cutout": {"size": 1, "p": p, "fill": 0}}], images, 0, 0) == 0
    assert abs(changed.flatten(1).any(1).float().mean() - p) <= (0 if p in (0, 1) else 0.03)
    if p:
        counts = changed.sum(0).flatten().float()
        assert ((counts - NUM * p / 30) ** 2 / (NUM * p / 30)).sum() < 67  # 29 degrees of freedom: 99.99 %


@pytest.mark.parametrize("name", ["grayscale", "erasing"])
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_share_of_changed_images(name: str, p: float) -> None:
    images = copies(torch.tensor([200, 100, 0]).expand(1, 5, 4, 3))
    changed = (augment([{name: p}], images, 0, 0) != images).flatten(1).any(1).float().mean()
    assert abs(changed - p) <= (0 if p in (0, 1) else 0.03)


def test_rotations_have_both_signs_and_the_given_range() -> None:
    image = torch.zeros(1, 17, 17, 1)
    image[0, 7:10, 13:16] = 200  # a spot on the right of the centre, at a distance of 6 pixels
    y = torch.arange(17)[None, :, None] - 8.0
    x = torch.arange(17)[None, None, :] - 8.0
    spec: Spec = {"shift_scale_rotate": {"shift": 0, "scale": 0, "rotate": 30, "p": 1}}
    turned = augment([spec], copies(image), 0, 0)[:, :, :, 0].float() * ((x**2 + y**2).sqrt() < 8)
    angle = torch.atan2((turned * y).sum((1, 2)), (turned * x).sum((1, 2))).rad2deg()
    assert angle.abs().max() < 31
    assert angle.max() > 28
    assert angle.min() < -28
    assert abs((angle > 0).float().mean() - 0.5) < 0.03
    assert abs(angle.mean()) < 1


def test_probability_of_shift_scale_rotate() -> None:
    images = copies(random_images(1, 6, 7, 1))
    changed = augment([{"shift_scale_rotate": {"p": 0.3}}], images, 0, 0) != images
    assert abs(changed.flatten(1).any(1).float().mean() - 0.3) < 0.03


@pytest.mark.parametrize("scale", [0.08, 0.5])
def test_areas_of_resized_crops(scale: float) -> None:
    image = torch.zeros(1, 32, 32, 3)
    image[0, :, :, 0] = 8 * torch.arange(32)  # one channel is the column, another one the row
    image[0, :, :, 1] = 8 * torch.arange(32)[:, None]
    result = augment([{"resized_crop": scale}], copies(image), 0, 0).float()
    box_width = (result[:, 16, 24, 0] - result[:, 16, 8, 0]) / (8 * 16)
    box_height = (result[:, 24, 16, 1] - result[:, 8, 16, 1]) / (8 * 16)
    area, ratio = box_width * box_height, box_width / box_height
    assert area.min() > scale - 0.02
    assert area.min() < scale + 0.05
    assert 0.95 < area.max() < 1.02
    assert ratio.min() > 0.75 * 0.92
    assert ratio.max() < 4 / 3 * 1.08
    # up to three quarters of the image no box is cut: the share below is that of a uniform area
    assert abs((area < 0.7).float().mean() - (0.7 - scale) / (1 - scale)) < 0.03
    left = result[:, 16, 8, 0] / 8 + 0.5 - 8.5 * box_width
    room = box_width < 0.7
    place = (left / (32 * (1 - box_width)))[room]
    assert -0.05 < place.min() < 0.05
    assert 0.95 < place.max() < 1.05
    assert abs(place.mean() - 0.5) < 0.03


def test_areas_of_erased_rectangles() -> None:
    result = augment([{"erasing": {"p": 1.0, "fill": 0}}], copies(torch.full((1, 32, 32, 1), 255)), 0, 0)
    erased = (result == 0)[:, :, :, 0]
    rows, columns = erased.any(2).sum(1), erased.any(1).sum(1)
    assert torch.equal(erased.sum((1, 2)), rows * columns)  # full rectangles
    area, ratio = rows * columns / 32**2, rows / columns
    # the sides are whole pixels: half a pixel of a side of 3 pixels, the smallest, is a sixth
    assert 0.02 * 0.8 < area.min() < 0.04
    assert 0.30 < area.max() < 0.33 * 1.08
    assert abs(area.mean() - 0.175) < 0.015
    assert ratio.min() > 1 / 4
    assert ratio.max() < 4
    assert abs((ratio > 1).float().mean() - (ratio < 1).float().mean()) < 0.05
    touched = erased.float().mean(0)
    assert torch.allclose(touched, touched.flip(0), atol=0.05)
    assert torch.allclose(touched, touched.flip(1), atol=0.05)


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_brightness_factors_are_uniform_about_one(strength: float) -> None:
    levels = augment([{"brightness": strength}], copies(torch.full((1, 1, 1, 1), 100)), 0, 0).float()
    assert 100 * (1 - strength) - 1 <= levels.min() < 100 * (1 - strength) + 2
    assert 100 * (1 + strength) - 2 < levels.max() <= 100 * (1 + strength)
    assert abs(levels.mean() - 99.5) < 2.5


# ---------------------------------------------------------------------------------------------------------------------
# Errors
# ---------------------------------------------------------------------------------------------------------------------

PROBABILITY = r"must be between 0 and 1"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"flip": 1.5}, rf"flip: p \(=1\.5\) {PROBABILITY}"),
        ({"flip": -0.1}, rf"flip: p \(=-0\.1\) {PROBABILITY}"),
        ({"flip": math.nan}, rf"flip: p \(=nan\) {PROBABILITY}"),
        ({"flip": {"p": 2}}, rf"flip: p \(=2\) {PROBABILITY}"),
        ({"grayscale": 1.01}, rf"grayscale: p \(=1\.01\) {PROBABILITY}"),
        ({"cutout": {"p": -1}}, rf"cutout: p \(=-1\) {PROBABILITY}"),
        ({"erasing": 3}, rf"erasing: p \(=3\) {PROBABILITY}"),
        ({"shift_scale_rotate": {"p": 7}}, rf"shift_scale_rotate: p \(=7\) {PROBABILITY}"),
        ({"crop": -1}, r"crop: padding \(=-1\) must be an integer of at least 0"),
        ({"crop": {"mode": "wrap"}}, r"crop: mode \(='wrap'\) must be reflect or zero"),
        ({"shift_scale_rotate": 1.5}, r"shift_scale_rotate: shift \(=1\.5\) must be between 0 and 1\."),
        ({"shift_scale_rotate": {"shift": -0.1}}, r"shift \(=-0\.1\) must be between 0 and 1\."),
        ({"shift_scale_rotate": {"scale": 1}}, r"shift_scale_rotate: scale \(=1\) must be between 0 and 0\.99"),
        ({"shift_scale_rotate": {"rotate": 181}}, r"shift_scale_rotate: rotate \(=181\) must be between 0 and 180"),
        ({"resized_crop": 0}, r"resized_crop: scale \(=0\) must be above 0 and at most 1"),
        ({"resized_crop": 1.2}, r"resized_crop: scale \(=1\.2\) must be above 0 and at most 1"),
        ({"resized_crop": {"ratio": 0.75}}, r"resized_crop: ratio \(=0\.75\) must be at least 1"),
        ({"resized_crop": {"ratio": math.inf}}, r"resized_crop: ratio \(=inf\) must be at least 1"),
        ({"brightness": 1.1}, r"brightness: strength \(=1\.1\) must be between 0 and 1"),
        ({"contrast": -0.4}, r"contrast: strength \(=-0\.4\) must be between 0 and 1"),
        ({"saturation": {"strength": 2}}, r"saturation: strength \(=2\) must be between 0 and 1"),
        ({"cutout": 0}, r"cutout: size \(=0\) must be an integer of at least 1"),
        ({"cutout": {"fill": 256}}, r"cutout: fill \(=256\) must be a grey level from 0 to 255 or 'mean'"),
        ({"cutout": {"fill": "black"}}, r"cutout: fill \(='black'\) must be a grey level"),
        ({"erasing": {"fill": -1}}, r"erasing: fill \(=-1\) must be a grey level"),
        ({"erasing": {"fill": 0.5}}, r"erasing: fill \(=0\.5\) must be a grey level"),
        ({"erasing": {"smallest": 0}}, r"erasing: smallest \(=0\) and largest \(=0\.33\) must satisfy 0 < smallest"),
        (
            {"erasing": {"smallest": 0.5}},
            r"erasing: smallest \(=0\.5\) and largest \(=0\.33\) must satisfy 0 < smallest",
        ),
        ({"erasing": {"largest": 1.5}}, r"largest \(=1\.5\) must satisfy 0 < smallest <= largest <= 1"),
        ({"erasing": {"ratio": 0.5}}, r"erasing: ratio \(=0\.5\) must be at least 1"),
        ({"trivial_augment": 1}, r"trivial_augment: num_strengths \(=1\) must be an integer of at least 2"),
        ("flop", r"augment: unknown augmentation 'flop'\. Did you mean flip\?"),
        ({"cutuot": 8}, r"augment: unknown augmentation 'cutuot'\. Did you mean cutout\?"),
        ("greyscale", r"Did you mean grayscale\?"),
        ("xyz", rf"augment: unknown augmentation 'xyz'\. Pass one of {', '.join(BY_NAME)}\."),
        ({"crop": "four"}, r"augment: crop cannot be made from 'four'; its settings are padding, mode\."),
        ({"crop": None}, r"augment: crop cannot be made from None; its settings are padding, mode\."),
        ({"flip": "often"}, r"augment: flip cannot be made from 'often'; its settings are p, alternating\."),
        ({"flip": [0.5]}, r"augment: flip cannot be made from \[0\.5\]; its settings are p, alternating\."),
        ({"flip": 1, "crop": 4}, r"augment: \{'flip': 1, 'crop': 4\} must be a name or one name with its settings"),
        ({}, r"augment: \{\} must be a name or one name with its settings"),
        (None, r"augment: None must be a name or one name with its settings, such as \{crop: 4\}"),
        (["flip"], r"augment: \['flip'\] must be a name or one name with its settings"),
        ({"crop": 2.5}, r"crop: padding \(=2\.5\) must be an integer"),
        ({"crop": True}, r"crop: padding \(=True\) must be an integer"),
        ({"cutout": 3.5}, r"cutout: size \(=3\.5\) must be an integer"),
        ({"trivial_augment": 4.5}, r"trivial_augment: num_strengths \(=4\.5\) must be an integer"),
        ({4: 4}, "augment: 4 must be the name of an augmentation"),
        ({"flip": {"alternating": "no"}}, r"flip: alternating \(='no'\) must be true or false"),
    ],
)
def test_invalid_specs_are_refused(spec: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(["flip", spec])


SETTINGS = {
    "flip": "p, alternating",
    "crop": "padding, mode",
    "shift_scale_rotate": "shift, scale, rotate, p",
    "resized_crop": "scale, ratio",
    "brightness": "strength",
    "contrast": "strength",
    "saturation": "strength",
    "grayscale": "p",
    "cutout": "size, p, fill",
    "erasing": "p, smallest, largest, ratio, fill",
    "trivial_augment": "num_strengths",
}


@pytest.mark.parametrize("name", BY_NAME)
def test_unknown_settings_are_refused_with_the_known_ones(name: str) -> None:
    assert [type(operation) for operation in build([{name: {}}, name])] == [BY_NAME[name]] * 2
    message = rf"augment: {name} cannot be made from .*; its settings are {SETTINGS[name]}\."
    bad: list[Spec] = [{name: {"colour": 1}}, {name: "a word"}]
    for spec in bad:
        with pytest.raises(ValueError, match=message):
            build([spec])


@pytest.mark.parametrize("specs", ["flip", {"crop": 8}], ids=str)
def test_specs_must_be_a_list(specs: Any) -> None:
    with pytest.raises(ValueError, match=r"augment \(=.*\) must be a list, such as \[flip, \{crop: 4\}\]"):
        build(specs)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"crop": 8}, r"crop: padding \(=8\) must be below the image size \(11 x 8 pixels\)"),
        ({"crop": {"padding": 11}}, r"crop: padding \(=11\) must be below the image size \(11 x 8 pixels\)"),
        ({"cutout": 9}, r"cutout: size \(=9\) must not exceed the image size \(11 x 8 pixels\)"),
    ],
)
@pytest.mark.parametrize("before", [[], ["flip"], ["brightness"]], ids=str)
def test_settings_larger_than_the_image_are_refused(before: list[Spec], spec: Spec, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline_of([*before, spec], random_images(3, 11, 8, 3))


def test_largest_allowed_settings() -> None:
    fitting: list[Spec] = [{"crop": 7}, {"cutout": 8}, {"crop": {"padding": 30, "mode": "zero"}}]
    for spec in fitting:
        images = augment([spec], random_images(3, 11, 8, 3), seed=0, epoch=0)
        assert images.shape == (3, 11, 8, 3)
