"""Image files of all pixel formats give the pixels that a viewer shows; other files are refused."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightning_cifar.files.image_folders import find_images, list_files
from lightning_cifar.files.images import (
    Fit,
    Pixels,
    UnreadableImageError,
    check_image,
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
    """Return the colour of a uniform image."""
    seen = view(path, **options)
    assert (seen == seen[0, 0]).all()
    return seen[0, 0].tolist()


@pytest.mark.parametrize("suffix", ["png", "bmp"])
@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_an_image_of_the_right_size_is_unchanged(tmp_path: Path, pixels: Pixels, suffix: str, fit: Fit) -> None:
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
def test_pixel_formats(tmp_path: Path, mode: str, value: Any, expected: tuple[int, int, int]) -> None:
    path = save(tmp_path / "a.png", Image.new(mode, (9, 7), value))
    assert colour(path) == list(expected)


def chunk(kind: bytes, content: bytes, *, damaged: bool = False) -> bytes:
    checksum = zlib.crc32(kind + content) ^ damaged
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_file(path: Path, pixels: Sequence[Sequence[int]], colour_type: int, depth: int, *chunks: bytes) -> Path:
    """Write one row of pixels sample by sample, because Pillow does not write every format."""
    bits = "".join(f"{sample:0{depth}b}" for pixel in pixels for sample in pixel)
    row = b"\0" + bytes(int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8))
    header = struct.pack(">IIBBBBB", len(pixels), 1, depth, colour_type, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(row)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def row_of(path: Path) -> list[list[int]]:
    return read_image(path, 1, 3, "squash").shown[0].tolist()


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("value", [0, 1, -1])
def test_a_transparent_grey_level_of_every_depth(tmp_path: Path, depth: int, value: int) -> None:
    highest = 2**depth - 1
    value %= highest + 1
    other = value ^ 1  # of 16 bits it differs in the lower byte alone
    path = png_file(tmp_path / "a.png", [[value], [other]], 0, depth, chunk(b"tRNS", struct.pack(">H", value)))
    level = round(255 * other / highest)
    assert row_of(path) == [[255] * 3, [level] * 3]
    read = read_image(path, 8, 1, "squash").view
    assert read.shape == (8, 8, 1)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_of_every_depth(tmp_path: Path, depth: int) -> None:
    scale = 1 if depth == 8 else 256
    there, near = [7 * scale + 3, 80 * scale, 9 * scale], [7 * scale + 3, 80 * scale, 9 * scale + 1]
    path = png_file(tmp_path / "a.png", [there, near], 2, depth, chunk(b"tRNS", struct.pack(">HHH", *there)))
    assert row_of(path) == [[255] * 3, [sample // scale for sample in near]]


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize(("alphas", "first"), [(b"\0\xff", 255), (b"\0", 255), (b"\x33", 204)])
def test_a_transparent_palette_of_every_depth(tmp_path: Path, depth: int, alphas: bytes, first: int) -> None:
    palette = chunk(b"PLTE", bytes([0, 0, 0, 40, 50, 60]))
    path = png_file(tmp_path / "a.png", [[0], [1]], 3, depth, palette, chunk(b"tRNS", alphas))
    assert row_of(path) == [[first] * 3, [40, 50, 60]]


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colour_type", [4, 6])
def test_an_alpha_channel_of_every_depth(tmp_path: Path, colour_type: int, depth: int) -> None:
    scale, colours = (1, 257)[depth == 16], (1, 3)[colour_type == 6]
    pixels = [[0] * colours + [51 * scale], [100 * scale] * colours + [255 * scale]]
    assert row_of(png_file(tmp_path / "a.png", pixels, colour_type, depth)) == [[204] * 3, [100] * 3]


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize(
    "kind",
    [
        *(b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"eXIf", b"tIME"),
        *(b"bKGD", b"sBIT", b"hIST", b"sPLT", b"acTL", b"fcTL", b"oFFs", b"vpAg", b"abCd"),
    ],
)
def test_metadata_never_reject_a_png(tmp_path: Path, kind: bytes, damaged: bool) -> None:
    pixels = [[10, 20, 30], [40, 50, 60]]
    for content in (b"", b"x", b"\xff" * 9, b"words\0\0\0" * 4, b"a\0\0" + zlib.compress(bytes(2_000_000))):
        metadata = chunk(kind, content, damaged=damaged)
        path = png_file(tmp_path / "a.png", pixels, 2, 8, metadata)
        assert row_of(path) == pixels, content[:10]
        check_image(path)


def test_removed_metadata_keep_rotation_and_transparency(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    note, damaged = chunk(b"eXIf", exif.tobytes()[6:]), chunk(b"tIME", b"", damaged=True)
    clear = chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))
    path = png_file(tmp_path / "a.png", [[1, 2, 3], [4, 5, 6]], 2, 8, damaged, note, clear)
    assert read_image(path, 1, 3, "squash").shown.tolist() == [[[255, 255, 255]], [[4, 5, 6]]]


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.png"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0x", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\xff\1\x12\0\x63"]
)
def test_invalid_exif_never_rejects_an_image(tmp_path: Path, name: str, exif: bytes) -> None:
    path = save(tmp_path / name, Image.new("RGB", (8, 4), (10, 200, 90)), exif=exif, quality=100)
    assert read_image(path, 4, 3, "squash").shown[0, 0].tolist() == pytest.approx([10, 200, 90], abs=4)


@pytest.mark.parametrize("marker", [*range(0xE0, 0xF0), 0xFE])
def test_metadata_never_reject_a_jpeg(tmp_path: Path, marker: int) -> None:
    content = save(tmp_path / "a.jpg", Image.new("RGB", (8, 8), (10, 200, 90)), quality=100).read_bytes()
    names = (b"", b"Exif\0\0", b"JFIF\0", b"ICC_PROFILE\0", b"MPF\0", b"Adobe", b"Photoshop 3.0\0", b"FPXR\0")
    for name in names if marker != 0xEE else names[:1]:  # Adobe's note in there says how colours are coded
        for rest in (b"", b"\0", b"\xff" * 12, b"http://ns.adobe.com/xap/1.0/\0<x", b"8BIM\4\4\0\0\xff"):
            segment = name + rest
            segment = bytes([0xFF, marker]) + struct.pack(">H", len(segment) + 2) + segment
            (tmp_path / "a.jpg").write_bytes(content[:2] + segment + content[2:])
            seen = read_image(tmp_path / "a.jpg", 4, 3, "squash").view
            assert seen[0, 0].tolist() == pytest.approx([10, 200, 90], abs=4), (name, rest)


def test_palettes_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 20, 40, 60])
    assert colour(save(tmp_path / "a.png", image)) == [20, 40, 60]
    assert colour(save(tmp_path / "b.png", image, transparency=1)) == [255, 255, 255]
    assert colour(save(tmp_path / "c.gif", image)) == [20, 40, 60]


def test_lossy_formats(tmp_path: Path) -> None:
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


def test_the_orientation_of_the_camera_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 4), "black")
    image.paste("white", (0, 0, 4, 4))  # on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    seen = read_image(save(tmp_path / "a.png", image, exif=exif), 4, 3, "squash")
    assert seen.size == (4, 8)
    assert (seen.view[0] > 200).all()
    assert (seen.view[-1] < 50).all()


def test_crop_and_squash(tmp_path: Path) -> None:
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


def test_flipped_bytes_raise_no_other_error(tmp_path: Path, pixels: Pixels) -> None:
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
def test_other_files_are_refused_without_reading_pixels(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"not an image \(png, jpeg, webp, bmp, gif\)"):
        check_image(path)


@pytest.mark.parametrize("limit", [70, 30])  # below the guard's warning and its error
def test_the_limit_against_decompression_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    path = save(tmp_path / "a.png", Image.new("RGB", (10, 10)))
    check_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for attempt in (check_image, lambda path: read_image(path, 4, 3, "crop")):
        with pytest.raises(UnreadableImageError, match="more than 0 million pixels: reduce its size"):
            attempt(path)


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UnreadableImageError, match="not a regular file"):
        check_image(tmp_path / "a.png")


def test_files_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("b.png", "a.txt", ".hidden", "Thumbs.db", "@eaDir/x.png", "c/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_files([tmp_path]) == ([tmp_path / "a.txt", tmp_path / "b.png"], 1)
    assert list_files([tmp_path / "c/d.png", tmp_path / "c"]) == ([tmp_path / "c/d.png"] * 2, 0)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list_files([tmp_path / "nowhere"])


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_many_files_equal_the_single_ones(tmp_path: Path, threads: int | None) -> None:
    generator = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for i, path in enumerate(paths):
        save(path, Image.fromarray(generator.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)))
    paths[4].write_bytes(b"hello")
    progress: list[int] = []
    views, reasons = read_views(paths, 8, 3, "crop", threads=threads, on_done=progress.append)
    assert reasons == {4: "not an image (png, jpeg, webp, bmp, gif), or damaged"}
    assert progress == [1] * 12
    for i, path in enumerate(paths):
        assert np.array_equal(views[i], np.zeros((8, 8, 3)) if i == 4 else view(path, 8))
    assert read_views([], 8, 1, "crop")[0].shape == (0, 8, 8, 1)


def test_threads_do_not_change_warning_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow warns of images between its limit and twice the limit, and filters belong to the whole process."""
    paths = [save(tmp_path / f"{i}.png", Image.new("RGB", (10, 10 + i))) for i in range(8)]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 120)
    before = list(warnings.filters)
    _, reasons = read_views(paths, 4, 3, "crop", threads=4)
    assert list(warnings.filters) == before
    assert list(reasons) == [3, 4, 5, 6, 7]
    assert set(reasons.values()) == {"it has more than 0 million pixels: reduce its size first"}


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
    for name in ("b.JPG", "a/z.png", "a/b/c.gif", "a/notes.txt", "c.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a/up").symlink_to(tmp_path)
    images, others, skipped = find_images(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in images] == ["a/b/c.gif", "a/z.png", "b.JPG"]
    assert [path.name for path in others] == ["notes.txt", "c.tif"]
    assert not skipped
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_images(tmp_path / "nowhere")


@pytest.mark.parametrize("depth", ["", "a/", "a/b/"])
def test_hidden_and_system_files_are_counted_at_every_level(tmp_path: Path, depth: str) -> None:
    names = {
        "@eaDir": ["@eaDir/x.jpg/SYNOPHOTO_THUMB_M.jpg", "@eaDir/x.jpg/SYNOPHOTO_THUMB_S.jpg"],
        "__MACOSX": ["__MACOSX/cat/a.jpg"],
        "$Recycle.Bin": ["$Recycle.Bin/S-1/a.jpg"],
        "System Volume Information": ["System Volume Information/a.jpg"],
        "lost+found": ["lost+found/a.jpg"],
        ".hidden": [".hidden/deep/a.png"],
        "._z.png": ["._z.png"],
        ".DS_Store": [".DS_Store"],
        "THUMBS.DB": ["THUMBS.DB"],
        "desktop.ini": ["desktop.ini"],
    }
    for name in ("a/z.png", "a/b/z.png", *(depth + path for paths in names.values() for path in paths)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_images(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found.images] == ["a/b/z.png", "a/z.png"]
    assert not found.others
    assert found.skipped == {name: len(paths) for name, paths in names.items()}
    files, _ = list_files([tmp_path / depth])
    assert {path.name for path in files} <= {"z.png"}
