"""TrivialAugment of a batch equals torchvision's kernels on each image by itself."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as kernels

from lightning_cifar.data.augment import Pipeline, build
from lightning_cifar.data.counter_rng import uniform
from lightning_cifar.data.geometry import Samples
from lightning_cifar.data.trivial_augment import OPERATIONS, SIGNED, UNSIGNED, TrivialAugment

NAMES = list(OPERATIONS)
NUM = 400
SIZES = [(32, 32, 3), (11, 8, 3), (9, 12, 1)]


# More threads would wait for each other: thousands of tiny kernels take several times as long.
pytestmark = pytest.mark.usefixtures("one_thread")


def sheared(image: Tensor, x: float, y: float) -> Tensor:
    degrees = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    result: Tensor = kernels.affine(image, angle=0.0, translate=[0, 0], scale=1.0, shear=degrees, center=[0, 0])
    return result


def moved(image: Tensor, x: float, y: float) -> Tensor:
    result: Tensor = kernels.affine(image, angle=0.0, translate=[int(x), int(y)], scale=1.0, shear=[0.0, 0.0])
    return result


# The wide space of the paper (table 1 of 2103.10158); the strength goes from 0 to 1, or from -1 to 1.
KERNELS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "identity": lambda image, s: image,
    "shear x": lambda image, s: sheared(image, 0.99 * s, 0),
    "shear y": lambda image, s: sheared(image, 0, 0.99 * s),
    "translate x": lambda image, s: moved(image, 32 * s, 0),
    "translate y": lambda image, s: moved(image, 0, 32 * s),
    "rotate": lambda image, s: kernels.rotate(image, 135 * s),
    "brightness": lambda image, s: kernels.adjust_brightness(image, 1 + 0.99 * s),
    "colour": lambda image, s: kernels.adjust_saturation(image, 1 + 0.99 * s),
    "contrast": lambda image, s: kernels.adjust_contrast(image, 1 + 0.99 * s),
    "sharpness": lambda image, s: kernels.adjust_sharpness(image, 1 + 0.99 * s),
    "posterize": lambda image, s: kernels.posterize(image, round(8 - 6 * s)),
    "solarize": lambda image, s: kernels.solarize(image, 255 - 255 * s),
    "autocontrast": lambda image, s: kernels.autocontrast(image),
    "equalize": lambda image, s: kernels.equalize(image),
}
WITHOUT_SIGN = {"identity", "posterize", "solarize", "autocontrast", "equalize"}


def random_images(num: int, height: int, width: int, channels: int) -> Tensor:
    """Noise of a few levels about a colour of its own: with something to stretch for autocontrast and equalize."""
    generator = torch.Generator().manual_seed(height + width + channels)
    colour = torch.randint(60, 190, (num, 1, 1, channels), generator=generator)
    noise = torch.randint(-60, 61, (num, height, width, channels), generator=generator)
    return (colour + noise).to(torch.uint8)


def by_hand(image: Tensor, draws: list[float], num_strengths: int) -> tuple[str, Tensor]:
    """One image (H, W, C) and the name of what was done to it."""
    kind, size, sign = draws
    name = NAMES[math.floor(kind * 14)]
    strength = math.floor(size * num_strengths) / (num_strengths - 1)
    if name not in WITHOUT_SIGN and sign < 0.5:
        strength = -strength
    return name, KERNELS[name](image.permute(2, 0, 1).contiguous(), strength).permute(1, 2, 0)


def at(name: str, level: float, sign: float, num: int = 1) -> Tensor:
    """Draws that choose an operation and one of its strengths, the same for all samples."""
    return torch.tensor([(NAMES.index(name) + 0.5) / 14, level, sign])[:, None].repeat(1, num)


def samples(num: int) -> Samples:
    return Samples(0, 0, torch.arange(num))


def test_there_are_the_14_operations_of_the_paper() -> None:
    assert [*SIGNED, *UNSIGNED] == NAMES
    assert set(NAMES) == set(KERNELS)
    assert set(UNSIGNED) == WITHOUT_SIGN
    assert len(NAMES) == 14


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("seed", "epoch", "num_strengths"), [(0, 0, 31), (5, 3, 31), (0, 1, 2)])
def test_equals_the_kernels_image_by_image(
    size: tuple[int, int, int], seed: int, epoch: int, num_strengths: int
) -> None:
    images = random_images(NUM, *size)
    pipeline = Pipeline(build([{"trivial_augment": num_strengths}]), mean=(0.5,) * size[2], std=(0.5,) * size[2])
    pipeline.load(images)
    indices = torch.arange(NUM).flip(0)
    result = pipeline.augment(Samples(seed, epoch, indices), pipeline.draw(seed, epoch, indices))
    assert result.dtype == torch.uint8
    assert result.shape == images.shape
    counts = dict.fromkeys(NAMES, 0)
    for place, index in enumerate(indices.tolist()):
        draws = uniform(seed, epoch, range(3), torch.tensor([index]))[:, 0].tolist()
        name, expected = by_hand(images[index], draws, num_strengths)
        counts[name] += 1
        assert torch.equal(result[place], expected), (name, index, draws)
    assert min(counts.values()) > NUM / 14 / 3  # each of them occurs
    assert max(counts.values()) < NUM / 14 * 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sign", [0.1, 0.9])
def test_strengths_span_the_range_of_the_paper(name: str, sign: float) -> None:
    images = random_images(4, 32, 32, 3)
    trivial = TrivialAugment(31)
    negative = sign < 0.5 and name not in WITHOUT_SIGN
    for level in (0, 15, 30):
        result = trivial(images, at(name, (level + 0.5) / 31, sign, 4), samples(4))
        strength = level / 30 * (-1 if negative else 1)
        expected = torch.stack([KERNELS[name](image.permute(2, 0, 1), strength).permute(1, 2, 0) for image in images])
        assert torch.equal(result, expected)


def test_identity_and_a_strength_of_zero_leave_the_images() -> None:
    images = random_images(6, 11, 8, 3)
    assert images.max() < 255  # solarize of no strength turns pure white around
    for level in (0.0, 0.5, 0.99):
        assert torch.equal(TrivialAugment()(images, at("identity", level, 0.3, 6), samples(6)), images)
    for name in NAMES:
        if name not in ("autocontrast", "equalize"):
            for sign in (0.1, 0.9):
                assert torch.equal(TrivialAugment()(images, at(name, 0.0, sign, 6), samples(6)), images), name


def test_by_hand_what_the_strongest_ones_do() -> None:
    image = torch.tensor([[0, 100], [200, 250]], dtype=torch.uint8).view(1, 2, 2, 1)

    def strongest(name: str, sign: float) -> list[list[int]]:
        result: list[list[int]] = TrivialAugment()(image, at(name, 0.999, sign), samples(1))[0, :, :, 0].tolist()
        return result

    assert strongest("posterize", 0.9) == [[0, 64], [192, 192]]  # two bits are left
    assert strongest("solarize", 0.9) == [[255, 155], [55, 5]]  # all of it turned around
    assert strongest("brightness", 0.9) == [[0, 199], [255, 255]]  # 1.99 times as bright
    assert strongest("brightness", 0.1) == [[0, 1], [2, 2]]  # or 0.01 times
    assert strongest("translate x", 0.9) == [[0, 0], [0, 0]]  # 32 pixels away


def test_groups_do_not_mix_images_up() -> None:
    images = random_images(NUM, 7, 10, 3)
    trivial = TrivialAugment(3)  # few strengths make groups of several images
    draws = uniform(1, 0, range(3), torch.arange(NUM))
    before = images.clone()
    result = trivial(images, draws, samples(NUM))
    assert torch.equal(images, before)
    order = torch.arange(NUM) * 37 % NUM  # 37 and 400 have no common divisor
    assert torch.equal(trivial(images[order], draws[:, order], samples(NUM)), result[order])
    halves = [trivial(images[part], draws[:, part], samples(NUM // 2)) for part in (slice(0, 200), slice(200, 400))]
    assert torch.equal(torch.cat(halves), result)
