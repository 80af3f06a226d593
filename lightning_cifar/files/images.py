"""Reads image files of any pixel format, cropped and scaled for a network. Does not import torch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile as OpenImage

from lightning_cifar.errors import one_line
from lightning_cifar.files.image_metadata import find_orientation, without_metadata
from lightning_cifar.files.png_transparency import load_opaque_mask

Fit = Literal["crop", "squash"]
Pixels = NDArray[np.uint8]
T = TypeVar("T")

# Explicit, so that no other reader runs, such as the PostScript one, which calls another program.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_SHOWN = 480  # longer side of a displayed image, pixels


class UnreadableImageError(Exception):
    """An image file cannot be read; the message is the reason, in one line."""


class ImageFile(NamedTuple):
    """An image for display, and as the network sees it."""

    shown: Pixels
    """The whole image (h, w, 3), its longer side at most 480 pixels."""
    size: tuple[int, int]
    """Width and height of the whole image, pixels."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom of the part that the network sees, in pixels of ``shown``."""
    view: Pixels
    """Input of the network (S, S, C)."""


def check_image(path: Path) -> None:
    """Check that a file begins like an image; its pixels are not read.

    Raises:
        UnreadableImageError: The file does not begin like an image.
    """
    use_image(path, lambda image: None)


def use_image(path: Path, use: Callable[[OpenImage], T]) -> T:
    """Open a png, jpeg, webp, bmp or gif, detected by its content, and return the result of ``use``.

    Unreadable metadata are ignored.

    Raises:
        UnreadableImageError: The file is not such an image, is damaged, or is too large.
    """
    with _quiet():
        return _with_image(path, use)


def read_image(path: Path, size: int, channels: int, fit: Fit) -> ImageFile:
    """Read a png, jpeg, webp, bmp or gif (its first frame) of any pixel format.

    Palettes are converted to colours and 16 bits to 8; transparent pixels are on white; the orientation of the camera
    is applied. An image above Pillow's limit against decompression bombs (89 million pixels) is refused.

    Args:
        size: Height and width of the input of the network, pixels.
        channels: 3, or 1 for grey.
        fit: ``crop`` takes the largest square in the centre, ``squash`` the whole image with a changed aspect ratio.
            Both are then scaled bicubically, with antialiasing; an image of this size is unchanged.

    Raises:
        UnreadableImageError: The file is not an image, is damaged, or is too large.
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
    on_done: Callable[[int], object] = lambda count: None,
) -> tuple[Pixels, dict[int, str]]:
    """Read many files in threads as inputs of the network, (N, S, S, C), see :func:`read_image`.

    Args:
        size, channels, fit: See :func:`read_image`.
        threads: Number of threads; None is one for each processor core.
        on_done: Function that is called with 1 after each file.

    Returns:
        The images, black for unreadable files, and the reason for each index of such a file.
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
            for future in as_completed([pool.submit(read, i) for i in range(len(paths))]):
                future.result()
                on_done(1)
        except BaseException:  # do not wait for thousands of files after an interrupt
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return views, dict(sorted(reasons.items()))


def _box(image: Image.Image, fit: Fit) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of the part that the network sees."""
    width, height = image.size
    if fit == "squash":
        return 0, 0, width, height
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _view(image: Image.Image, size: int, channels: int, fit: Fit) -> Pixels:
    # Crop first: the box argument of resize blends in pixels outside the box.
    view = image.crop(_box(image, fit)).convert("RGB" if channels == 3 else "L")
    view = view.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(view, np.uint8).reshape(size, size, channels)


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore the warnings of Pillow. Do not call this in threads, since warning filters apply to the whole process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _with_image(path: Path, use: Callable[[OpenImage], T]) -> T:
    """Implement :func:`use_image`, with the warnings of Pillow."""
    if not path.is_file():
        raise UnreadableImageError("it is not a regular file")
    try:
        return _use(path, use)
    except UnreadableImageError:
        pixels = without_metadata(path)
        if pixels is None:
            raise
        return _use(pixels, use)


def _use(source: Path | BytesIO, use: Callable[[OpenImage], T]) -> T:
    try:
        with Image.open(source, formats=FORMATS) as image:
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise UnreadableImageError(_too_large())
            return use(image)
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError as error:  # twice the limit; below that Pillow only warns
        raise UnreadableImageError(_too_large()) from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            f"not an image ({', '.join(name.lower() for name in FORMATS)}), or damaged"
        ) from error
    except Exception as error:  # Pillow raises many types on damaged files
        raise UnreadableImageError(_reason(error)) from error


def _decode(path: Path) -> Image.Image:
    """Return the first frame in 8 bits, upright, on white if transparent: mode ``L`` or ``RGB``."""

    def decode(image: OpenImage) -> Image.Image:
        plain, turn = _on_white(image), find_orientation(image)
        return plain if turn is None else plain.transpose(turn)

    return _with_image(path, decode)


def _on_white(image: OpenImage) -> Image.Image:
    opaque = load_opaque_mask(image)
    if image.mode.startswith(("I", "F")):  # 16 bits; Pillow's conversion clips them at 255
        deep = np.asarray(image).astype(np.float32)
        plain = Image.fromarray(np.round(deep / 257).clip(0, 255).astype(np.uint8))
    elif opaque is None and image.has_transparency_data:
        colours = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
    else:
        image.info.pop("transparency", None)  # applied below
        plain = image.convert("L" if image.mode in ("1", "L") else "RGB")
    if opaque is None:
        return plain
    return Image.composite(plain, Image.new(plain.mode, plain.size, "white"), Image.fromarray(opaque))


def _too_large() -> str:
    limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
    return f"it has more than {limit} million pixels: reduce its size first"


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return f"damaged: {one_line(error)[:120] or type(error).__name__}"
