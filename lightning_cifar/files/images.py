"""One's own image files: found, read whatever their kind, and cut to what a network takes. Without torch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lightning_cifar.errors import one_line

Fit = Literal["crop", "squash"]
Pixels = NDArray[np.uint8]

# Named, so that no stranger reader runs, such as the one that hands PostScript to another program.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif")
"""Of files that must be images; written in small letters or large ones."""
_SHOWN = 480  # longer side of an image that is shown, pixels


class UnreadableImageError(Exception):
    """Why a file is not an image that can be read, in one line."""


class ImageFile(NamedTuple):
    """An image as it was given, and as the network sees it."""

    shown: Pixels
    """(h, w, 3), the whole image, its longer side 480 pixels at most."""
    size: tuple[int, int]
    """Width and height of the whole image, pixels."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom of what the network sees, in pixels of ``shown``."""
    view: Pixels
    """(S, S, C)."""


def list_files(paths: Sequence[Path]) -> tuple[list[Path], int]:
    """Files that are named, and those in folders that are named, by name; hidden ones are left out.

    Returns:
        The files, and how many folders inside the folders were not looked into.

    Raises:
        OSError: There is no such file or folder, or it cannot be read.
    """
    files, folders = [], 0
    for path in paths:
        if not path.is_dir():
            path.stat()  # raises where there is nothing
            files.append(path)
            continue
        inside = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
        files += [entry for entry in inside if entry.is_file()]
        folders += sum(entry.is_dir() for entry in inside)
    return files, folders


def find_images(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files in a folder and in all folders inside it, links followed, in the order of their names; no hidden ones.

    Returns:
        Those with an image's suffix, and the others.

    Raises:
        OSError: There is no such folder, or one inside cannot be read.
    """
    images: list[Path] = []
    others: list[Path] = []
    pending, seen = [folder], set()
    while pending:
        here = pending.pop()
        if (real := here.resolve()) in seen:
            continue  # a link that leads to a folder above it
        seen.add(real)
        for path in here.iterdir():
            if path.name.startswith("."):
                continue
            if path.is_dir():
                pending.append(path)
            else:
                (images if path.suffix.lower() in SUFFIXES else others).append(path)
    return sorted(images), sorted(others)


def plain_text(text: object) -> str:
    """In printable characters: a file's name may hold control characters, or bytes that are no text."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def check_image(path: Path) -> None:
    """Look whether the file begins as an image does; its pixels are not read.

    Raises:
        UnreadableImageError: It does not.
    """
    with _quiet():
        _open(path).close()


def read_image(path: Path, size: int, channels: int, fit: Fit) -> ImageFile:
    """Read a png, jpeg, webp, bmp or gif (its first frame) of any kind of pixel.

    Palettes become colours, 16 bits 8, what is transparent lies on white, and a rotation that a camera noted is carried
    out. An image that is larger than Pillow's guard against decompression bombs (89 million pixels) is not read.

    Args:
        path: Of the file.
        size: Height and width that the network takes, pixels.
        channels: 3, or 1 for grey.
        fit: ``crop`` takes the largest square in the middle, ``squash`` the whole image, its sides scaled differently.
            Both are then scaled bicubically, with antialiasing; an image of just that size stays as it is.

    Raises:
        UnreadableImageError: The file is no image, damaged or too large.
    """
    with _quiet():
        image = _decode(path)
    width, height = image.size
    left, top, right, bottom = _box(image, fit)
    scale = min(1.0, _SHOWN / max(width, height))
    shown_size = max(1, round(width * scale)), max(1, round(height * scale))
    shown = image.convert("RGB").resize(shown_size, Image.Resampling.BICUBIC)
    across, down = shown_size[0] / width, shown_size[1] / height
    return ImageFile(
        np.asarray(shown, np.uint8),
        (width, height),
        (left * across, top * down, right * across, bottom * down),
        _view(image, size, channels, fit),
    )


def read_views(
    paths: Sequence[Path],
    size: int,
    channels: int,
    fit: Fit,
    *,
    threads: int | None = None,
    on_done: Callable[[int], None] = lambda done: None,
) -> tuple[Pixels, dict[int, str]]:
    """What the network sees of many files, (N, S, S, C), as :func:`read_image` has it.

    Threads do it: Pillow's readers leave the interpreter to others while they work.

    Args:
        paths: N of them.
        size, channels, fit: see :func:`read_image`.
        threads: at work; None is one for each processor core.
        on_done: called with the number of files done so far, whenever that grows.

    Returns:
        The images, black where a file cannot be read, and the reason for each such position.
    """
    views = np.zeros((len(paths), size, size, channels), np.uint8)
    reasons: dict[int, str] = {}

    def read(index: int) -> None:
        try:
            views[index] = _view(_decode(paths[index]), size, channels, fit)
        except UnreadableImageError as error:
            reasons[index] = str(error)

    with _quiet(), ThreadPoolExecutor(threads or min(32, os.cpu_count() or 1)) as pool:
        try:
            for done, future in enumerate(as_completed([pool.submit(read, i) for i in range(len(paths))]), start=1):
                future.result()
                on_done(done)
        except BaseException:  # an interrupt does not wait for thousands of files
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return views, dict(sorted(reasons.items()))


def _box(image: Image.Image, fit: Fit) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what the network sees."""
    width, height = image.size
    if fit == "squash":
        return 0, 0, width, height
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _view(image: Image.Image, size: int, channels: int, fit: Fit) -> Pixels:
    # Cropped first: with resize's own box, pixels next to it would be blended in.
    view = image.crop(_box(image, fit)).convert("RGB" if channels == 3 else "L")
    view = view.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(view, np.uint8).reshape(size, size, channels)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Pillow's warnings. Not for single threads among many: the filters belong to the process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(path: Path) -> Image.Image:
    try:
        if not path.is_file():
            raise UnreadableImageError("it is not a regular file")
        image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as error:  # twice the limit; below that Pillow only warns
        raise UnreadableImageError(_too_large()) from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"no image ({', '.join(name.lower() for name in FORMATS)}), or damaged") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableImageError(_reason(error)) from error
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        image.close()
        raise UnreadableImageError(_too_large())
    return image


def _decode(path: Path) -> Image.Image:
    """The first frame in 8 bits, turned upright, on white where it was transparent: mode ``L`` or ``RGB``."""
    image = _open(path)
    try:
        with image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith(("I", "F")):  # 16 bits; Pillow's own conversion would cut them off at 255
                deep = np.asarray(upright).astype(np.float32)
                return Image.fromarray(np.round(deep / 257).clip(0, 255).astype(np.uint8))
            if upright.has_transparency_data:
                colours = upright.convert("RGBA")
                return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
            return upright.convert("L" if upright.mode in ("1", "L") else "RGB")
    except Exception as error:  # the readers of damaged files raise whatever comes
        raise UnreadableImageError(_reason(error)) from error


def _too_large() -> str:
    limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
    return f"it has more than {limit} million pixels: make it smaller first"


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return f"damaged: {one_line(error)[:120] or type(error).__name__}"
