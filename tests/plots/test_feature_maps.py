"""Pictures of feature maps: values, scale and texts."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from lightning_cifar.plots import draw_feature_maps, draw_maps_over_training


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def image(generator: np.random.Generator) -> np.ndarray:
    return generator.random((8, 8, 3))


def words(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.texts)


def crosses(grid: Axes) -> int:
    _, lines = (part for part in grid.collections if isinstance(part, LineCollection))
    return len(lines.get_segments()) // 2


def test_each_map_in_its_place_beside_the_image(generator: np.random.Generator, image: np.ndarray) -> None:
    maps = generator.normal(size=(7, 4, 5))
    figure = draw_feature_maps(image, maps, layer="network.0", columns=3, title="LeNet, epoch 3")
    picture, grid, bar = figure.axes
    np.testing.assert_array_equal(picture.images[0].get_array(), image)
    assert len(grid.images) == 7
    for drawn, values in zip(grid.images, maps, strict=True):
        np.testing.assert_allclose(drawn.get_array(), values, rtol=1e-6)
        assert drawn.get_interpolation() == "nearest"
    places = [(drawn.get_extent()[0], drawn.get_extent()[3]) for drawn in grid.images]
    columns, rows = sorted({x for x, _ in places}), sorted({y for _, y in places})
    assert [(rows.index(y), columns.index(x)) for x, y in places] == [(i // 3, i % 3) for i in range(7)]
    assert [text.get_text() for text in grid.texts] == ["map 0", *map(str, range(1, 7))]
    assert words(figure) == "LeNet, epoch 3 network.0: 7 maps of 4 x 5 pixels"
    assert bar.get_ylabel() == "output of the layer"
    assert crosses(grid) == 0


def test_signed_maps_share_a_scale_around_zero(generator: np.random.Generator, image: np.ndarray) -> None:
    maps = generator.normal(size=(4, 3, 3))
    maps[2, 1, 1] = -9
    _, grid, bar = draw_feature_maps(image, maps, layer="a").axes
    assert {drawn.get_clim() for drawn in grid.images} == {(-9, 9)}
    assert {drawn.get_cmap().name for drawn in grid.images} == {"RdBu_r"}
    assert bar.get_ylim() == (-9, 9)


def test_maps_after_a_relu_share_a_scale_from_zero(generator: np.random.Generator, image: np.ndarray) -> None:
    maps = 1 + generator.random((4, 3, 3))
    maps[3, 0, 0] = 7
    _, grid, bar = draw_feature_maps(image, maps, layer="a").axes
    assert {drawn.get_clim() for drawn in grid.images} == {(0, 7)}
    assert {drawn.get_cmap().name for drawn in grid.images} == {"viridis"}
    assert bar.get_ylim() == (0, 7)


def test_dead_maps_are_crossed_out(generator: np.random.Generator, image: np.ndarray) -> None:
    maps = generator.random((5, 3, 3))
    maps[1], maps[4] = 0, 0.25
    figure = draw_feature_maps(image, maps, layer="a")
    assert crosses(figure.axes[1]) == 2
    assert "5 maps of 3 x 3 pixels, crossed out if constant" in words(figure)
    all_dead = draw_feature_maps(image, np.zeros((2, 3, 3)), layer="a")
    assert all_dead.axes[1].images[0].get_clim() == (0, 1)
    assert crosses(all_dead.axes[1]) == 2


def test_maps_of_one_pixel_are_dead_at_zero_only(image: np.ndarray) -> None:
    figure = draw_feature_maps(image, np.array([0.0, 2.0, 1.0]).reshape(3, 1, 1), layer="pool")
    assert crosses(figure.axes[1]) == 1
    assert "3 maps of 1 x 1 pixels, crossed out if 0" in words(figure)


def test_only_the_first_of_many_maps_are_shown(generator: np.random.Generator, image: np.ndarray) -> None:
    maps = generator.normal(size=(128, 3, 3))
    maps[10:] *= 100
    figure = draw_feature_maps(image, maps, layer="a", max_maps=10)
    assert len(figure.axes[1].images) == 10
    assert figure.axes[1].images[0].get_clim()[1] == pytest.approx(np.abs(maps[:10]).max())
    assert "the first 10 of 128 maps" in words(figure)
    assert len(draw_feature_maps(image, maps, layer="a").axes[1].images) == 64


@pytest.mark.filterwarnings("error")
def test_values_that_are_not_finite_do_not_change_the_scale(image: np.ndarray) -> None:
    maps = np.full((3, 2, 2), np.nan)
    maps[0] = [[1, -2], [np.inf, -np.inf]]
    figure = draw_feature_maps(image, maps, layer="a")
    FigureCanvasAgg(figure).draw()
    assert figure.axes[1].images[0].get_clim() == (-2, 2)
    assert tuple(figure.axes[1].images[0].get_cmap().get_bad()) == (0.5, 0.5, 0.5, 1)
    assert crosses(figure.axes[1]) == 0
    assert "3 maps of 2 x 2 pixels, grey if not finite" in words(figure)
    FigureCanvasAgg(draw_feature_maps(image, maps[1:], layer="a")).draw()


def test_grey_images_and_bytes(generator: np.random.Generator) -> None:
    grey = (generator.random((6, 4, 1)) * 255).astype(np.uint8)
    picture = draw_feature_maps(grey, np.ones((1, 2, 2)), layer="a").axes[0]
    np.testing.assert_allclose(picture.images[0].get_array(), grey[:, :, 0] / 255)
    assert picture.images[0].get_clim() == (0, 1)
    assert picture.images[0].get_cmap().name == "gray"
    width, height = picture.get_window_extent().size
    assert height / width == pytest.approx(6 / 4)


def test_over_training_a_row_for_each_epoch(generator: np.random.Generator, image: np.ndarray) -> None:
    maps = generator.normal(size=(4, 3, 5, 5)) * np.array([1, 2, 3, 10])[:, None, None, None]
    figure = draw_maps_over_training(image, maps, [0, 1, 4.333, 20], layer="network.0", num_maps=16)
    grid = figure.axes[1]
    assert len(grid.images) == 12
    for index, drawn in enumerate(grid.images):
        np.testing.assert_allclose(drawn.get_array(), maps[index // 3, index % 3], rtol=1e-6)
    (limit,) = {drawn.get_clim()[1] for drawn in grid.images}
    assert limit == pytest.approx(np.abs(maps).max())
    labels = {text.get_text(): text.get_position()[1] for text in grid.texts}
    assert list(labels)[:3] == ["map 0", "1", "2"]
    for row, name in enumerate(["before\ntraining", "epoch 1", "epoch 4.33", "epoch 20"]):
        _, _, bottom, top = grid.images[3 * row].get_extent()
        assert top < labels[name] < bottom
    assert "the first 3 of 16 maps of 5 x 5 pixels" in words(figure)
    whole = draw_maps_over_training(image, maps, [0, 1, 2, 3], layer="network.0")
    assert "network.0: 3 maps of" in words(whole)


@pytest.mark.parametrize("shape", [(1, 28, 28), (6, 28, 28), (70, 7, 7), (3, 1, 1), (2, 4, 40), (4, 200, 200)])
def test_nothing_overlaps_or_is_cut_off(
    image: np.ndarray, shape: tuple[int, ...], boxes_of: Callable[..., list[Bbox]]
) -> None:
    long = "SomeNetworkWithALongName, validation image 1234 (automobile), epoch 100 (step 123,456)"
    panel = draw_feature_maps(image, np.zeros(shape), layer="network.layer3.block2.conv2", title=long)
    sheet = draw_maps_over_training(image, np.zeros((3, *shape))[:, :8], [0, 1, 2.5], layer="network.0", title=long)
    for figure in (panel, sheet):
        texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts), figure.axes[0].title]
        boxes = boxes_of(figure, [*texts, figure.axes[2].yaxis.label])
        pictures = [drawn.get_window_extent() for axes in figure.axes[:2] for drawn in axes.images]
        for one, other in itertools.product(boxes, pictures):
            assert one.x1 <= other.x0 + 1 or other.x1 <= one.x0 + 1 or one.y1 <= other.y0 + 1 or other.y1 <= one.y0 + 1
        for one, other in itertools.combinations(pictures, 2):
            assert not one.shrunk(0.99, 0.99).overlaps(other)


def test_other_shapes_raise(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"maps must be \(K, P, Q\), not \(3, 3\)"):
        draw_feature_maps(image, np.zeros((3, 3)), layer="a")
    with pytest.raises(ValueError, match=r"maps must be \(K, P, Q\), not \(0, 3, 3\)"):
        draw_feature_maps(image, np.zeros((0, 3, 3)), layer="a")
    with pytest.raises(ValueError, match=r"image must be \(H, W, C\) with 1 or 3 channels, not \(3, 8, 8\)"):
        draw_feature_maps(np.moveaxis(image, -1, 0), np.zeros((1, 3, 3)), layer="a")
    with pytest.raises(ValueError, match=r"columns \(=0\) must be at least 1"):
        draw_feature_maps(image, np.zeros((1, 3, 3)), layer="a", columns=0)
    with pytest.raises(ValueError, match=r"\(T, K, P, Q\) for 3 epochs, not \(2, 1, 3, 3\)"):
        draw_maps_over_training(image, np.zeros((2, 1, 3, 3)), [0, 1, 2], layer="a")
