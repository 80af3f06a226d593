"""Image grids show the given pixels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lightning_cifar.plots import draw_image_grid, to_displayable


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def test_mean_and_std_undo_the_normalisation(generator: np.random.Generator) -> None:
    images = generator.random((5, 3, 4, 6), dtype=np.float32)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    normalised = (images - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    shown = to_displayable(normalised, mean, std)
    np.testing.assert_allclose(shown, images.transpose(0, 2, 3, 1), atol=1e-6)
    assert to_displayable(normalised + 9, mean, std).max() == 1


def test_without_them_the_range_decides() -> None:
    grey = np.array([0, 51, 255], dtype=np.uint8).reshape(1, 1, 1, 3)
    assert to_displayable(grey).flatten().tolist() == pytest.approx([0, 0.2, 1])
    assert to_displayable(np.array([0.2, 0.3]).reshape(1, 1, 1, 2)).flatten().tolist() == pytest.approx([0.2, 0.3])
    assert to_displayable(np.array([-1.0, 0, 3]).reshape(1, 1, 1, 3)).flatten().tolist() == [0, 0.25, 1]
    assert to_displayable(np.full((1, 1, 2, 2), -3.0)).max() == 0
    # three values do not match one channel
    assert to_displayable(grey, (0.5, 0.5, 0.5), (1, 1, 1)).max() == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_titles_and_places(generator: np.random.Generator, channels: int, dtype: type) -> None:
    images = (generator.random((5, 4, 4, channels)) * (255 if dtype is np.uint8 else 1)).astype(dtype)
    titles = ["airplane", "automobile", "bird", "cat", "deer"]
    figure = draw_image_grid(images, titles, columns=3, suptitle="samples")
    (axes,) = figure.axes
    assert not axes.axison
    assert [text.get_text() for text in axes.texts] == titles
    lefts, tops = zip(*((tile.get_extent()[0], tile.get_extent()[3]) for tile in axes.images), strict=True)
    assert [sorted(set(lefts)).index(left) for left in lefts] == [0, 1, 2, 0, 1]
    assert [sorted(set(tops)).index(top) for top in tops] == [0, 0, 0, 1, 1]
    for tile, text, image in zip(axes.images, axes.texts, images, strict=True):
        assert np.array_equal(np.asarray(tile.get_array()), np.squeeze(image, 2) if channels == 1 else image)
        assert tile.get_interpolation() == "nearest"
        left, right, _, top = tile.get_extent()
        assert text.get_position()[0] == pytest.approx((left + right) / 2)
        assert 0 < top - text.get_position()[1] < 0.1, "just above its image"
        if channels == 1:  # one grey scale for all of them
            assert tile.get_clim() == (0, 255 if dtype is np.uint8 else 1)
            assert tile.get_cmap().name == "gray"
    assert figure.get_suptitle() == "samples"


def test_titles_do_not_touch_and_small_images_are_enlarged() -> None:
    names = ["automobile"] * 32
    figure = draw_image_grid(np.zeros((32, 32, 32, 3)), names, suptitle="training images as the network gets them")
    figure.set_dpi(120)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (axes,) = figure.axes
    row = [text.get_window_extent() for text in axes.texts[:8]]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(row))
    assert min(tile.get_window_extent().width for tile in axes.images) >= 3 * 32
    width, height = canvas.get_width_height()
    assert row[0].x0 >= 0
    assert row[-1].x1 <= width
    assert row[0].y1 <= height


def test_invalid_images_and_titles_raise() -> None:
    with pytest.raises(ValueError, match=r"not \(2, 3, 4, 4\)"):
        draw_image_grid(np.zeros((2, 3, 4, 4)))
    with pytest.raises(ValueError, match="1 titles do not match 2 images"):
        draw_image_grid(np.zeros((2, 4, 4, 3)), ["a"])
