"""Any kind of image file comes out as the pixels that a viewer would show; what is no image says so."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightning_cifar.files.images import (
    Fit,
    Pixels,
    UnreadableImageError,
    check_image,
    find_images,
    list_files,
    plain_text,
    read_image,
    read_views,
)


@pytest.fixture
def pixels() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def view(path: Path, size: int = 4, channels: int = 3, fit: Fit = "crop") -> Pixels:
    image = read_image(path, size, channels, fit)
    assert image.view.shape == (size, size, channels)
    assert image.view.dtype == image.shown.dtype == np.uint8
    return image.view


def colour(path: Path, **options: Any) -> list[int]:
    """Of an image that is the same everywhere."""
    seen = view(path, **options)
    assert (seen == seen[0, 0]).all()
    return seen[0, 0].tolist()


@pytest.mark.parametrize("suffix", ["png", "bmp"])
@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_an_image_of_the_right_size_stays_as_it_is(tmp_path: Path, pixels: Pixels, suffix: str, fit: Fit) -> None:
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(pixels))
    image = read_image(path, 32, 3, fit)
    assert np.array_equal(image.view, pixels)
    assert np.array_equal(image.shown, pixels)
    assert (image.size, image.box) == ((32, 32), (0, 0, 32, 32))
    grey = Image.fromarray(pixels).convert("L")
    assert np.array_equal(view(path, 32, channels=1)[..., 0], np.asarray(grey))


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("RGB", (10, 200, 90), (10, 200, 90)),
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (0, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 51), (255, 204, 204)),
        ("LA", (0, 51), (204, 204, 204)),
        ("I;16", 257 * 150, (150, 150, 150)),
        ("I;16", 65535, (255, 255, 255)),
    ],
)
def test_kinds_of_pixels(tmp_path: Path, mode: str, value: Any, expected: tuple[int, int, int]) -> None:
    path = save(tmp_path / "a.png", Image.new(mode, (9, 7), value))
    assert colour(path) == list(expected)


def test_palettes_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 20, 40, 60])
    assert colour(save(tmp_path / "a.png", image)) == [20, 40, 60]
    assert colour(save(tmp_path / "b.png", image, transparency=1)) == [255, 255, 255]
    assert colour(save(tmp_path / "c.gif", image)) == [20, 40, 60]


def test_lossy_kinds(tmp_path: Path) -> None:
    for name, image in {
        "a.jpg": Image.new("RGB", (40, 20), (10, 200, 90)),
        "a.webp": Image.new("RGB", (40, 20), (10, 200, 90)),
        "cmyk.jpg": Image.new("RGB", (40, 20), (10, 200, 90)).convert("CMYK"),
    }.items():
        assert view(save(tmp_path / name, image, quality=95))[0, 0].tolist() == pytest.approx([10, 200, 90], abs=4)


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), name) for name in ("red", "blue")]
    for name in ("a.gif", "a.webp", "a.png"):
        path = save(tmp_path / name, frames[0], save_all=True, append_images=frames[1:])
        assert view(path)[0, 0].tolist() == pytest.approx([255, 0, 0], abs=3)


def test_a_rotation_that_the_camera_noted(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 4), "black")
    image.paste("white", (0, 0, 4, 4))  # on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    seen = read_image(save(tmp_path / "a.png", image, exif=exif), 4, 3, "squash")
    assert seen.size == (4, 8)
    assert (seen.view[0] > 200).all()
    assert (seen.view[-1] < 50).all()


def test_the_middle_or_all_of_it(tmp_path: Path) -> None:
    image = Image.new("RGB", (1200, 400), "blue")
    image.paste("red", (400, 0, 800, 400))
    path = save(tmp_path / "a.png", image)
    assert colour(path, size=16) == [255, 0, 0]
    cropped, squashed = (read_image(path, 16, 3, fit) for fit in ("crop", "squash"))
    assert cropped.shown.shape == squashed.shown.shape == (160, 480, 3)
    assert cropped.box == (160, 0, 320, 160)
    assert squashed.box == (0, 0, 480, 160)
    row = squashed.view[8].tolist()
    assert row[0] == row[-1] == [0, 0, 255]
    assert row[8] == [255, 0, 0]
    left, top, right, bottom = (round(side) for side in cropped.box)
    assert (cropped.shown[top:bottom, left + 4 : right - 4] == [255, 0, 0]).all(), "the box tells what the network sees"


def test_shrinking_is_antialiased_and_tiny_images_are_enlarged(tmp_path: Path) -> None:
    board = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert view(save(tmp_path / "a.png", Image.fromarray(board)), 32).astype(int) == pytest.approx(127.5, abs=2)
    assert colour(save(tmp_path / "b.png", Image.new("RGB", (1, 900), (1, 2, 3)))) == [1, 2, 3]


def png_of(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.gif", "a.bmp"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_file_is_damaged(tmp_path: Path, pixels: Pixels, name: str, share: float) -> None:
    path = save(tmp_path / name, Image.fromarray(pixels))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UnreadableImageError, match="damaged"):
        read_image(path, 32, 3, "crop")


def test_flipped_bytes_never_raise_anything_else(tmp_path: Path, pixels: Pixels) -> None:
    generator, content = np.random.default_rng(1), png_of(pixels)
    path, refused = tmp_path / "a.png", []
    for _ in range(200):
        broken = bytearray(content)
        broken[generator.integers(len(content))] ^= int(generator.integers(1, 256))
        path.write_bytes(broken)
        try:
            read_image(path, 32, 3, "crop")
        except UnreadableImageError as error:
            refused.append(str(error))
    assert len(refused) > 150
    assert not any("\n" in reason for reason in refused)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"P6 1 1 255\n000"]
)
def test_what_is_no_image_is_seen_without_reading_pixels(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"no image \(png, jpeg, webp, bmp, gif\)"):
        check_image(path)


@pytest.mark.parametrize("limit", [70, 30])  # below the guard's warning and its error
def test_the_guard_against_decompression_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    path = save(tmp_path / "a.png", Image.new("RGB", (10, 10)))
    check_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for attempt in (check_image, lambda path: read_image(path, 4, 3, "crop")):
        with pytest.raises(UnreadableImageError, match="more than 0 million pixels: make it smaller"):
            attempt(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UnreadableImageError, match="not a regular file"):
        check_image(tmp_path / "a.png")


def test_files_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("b.png", "a.txt", ".hidden", "c/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_files([tmp_path]) == ([tmp_path / "a.txt", tmp_path / "b.png"], 1)
    assert list_files([tmp_path / "c/d.png", tmp_path / "c"]) == ([tmp_path / "c/d.png"] * 2, 0)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list_files([tmp_path / "nowhere"])


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_many_files_are_what_each_of_them_is(tmp_path: Path, threads: int | None) -> None:
    generator = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for i, path in enumerate(paths):
        save(path, Image.fromarray(generator.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)))
    paths[4].write_bytes(b"hello")
    progress: list[int] = []
    views, reasons = read_views(paths, 8, 3, "crop", threads=threads, on_done=progress.append)
    assert reasons == {4: "no image (png, jpeg, webp, bmp, gif), or damaged"}
    assert progress == list(range(1, 13))
    for i, path in enumerate(paths):
        assert np.array_equal(views[i], np.zeros((8, 8, 3)) if i == 4 else view(path, 8))
    assert read_views([], 8, 1, "crop")[0].shape == (0, 8, 8, 1)


def test_threads_leave_warnings_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow warns of images between its limit and twice that, and filters belong to the whole process."""
    paths = [save(tmp_path / f"{i}.png", Image.new("RGB", (10, 10 + i))) for i in range(8)]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 120)
    before = list(warnings.filters)
    _, reasons = read_views(paths, 4, 3, "crop", threads=4)
    assert list(warnings.filters) == before
    assert list(reasons) == [3, 4, 5, 6, 7]
    assert set(reasons.values()) == {"it has more than 0 million pixels: make it smaller first"}


def test_an_interrupt_ends_the_reading(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{i}.png", Image.new("RGB", (300, 300))) for i in range(40)]
    done: list[int] = []

    def stop(count: int) -> None:
        done.append(count)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_views(paths, 4, 3, "crop", threads=1, on_done=stop)
    assert done == [1]


def test_images_in_all_folders_are_found_in_their_order(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/z.png", "a/b/c.gif", "a/notes.txt", ".hidden/a.png", "a/._z.png", "c.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a/up").symlink_to(tmp_path)
    images, others = find_images(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in images] == ["a/b/c.gif", "a/z.png", "b.JPG"]
    assert [path.name for path in others] == ["notes.txt", "c.tif"]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_images(tmp_path / "nowhere")


def test_names_are_told_in_printable_characters() -> None:
    assert plain_text(Path("a\x1b[1m\n\udcff é.jpg")) == "a?[1m?? é.jpg"
