"""Image files of users: read whatever their kind, and cut to what a network takes. Without torch."""

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

# Named, so that no stranger reader runs, such as the one that hands PostScript to another program.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
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


def check_image(path: Path) -> None:
    """Look whether the file begins as an image does; its pixels are not read.

    Raises:
        UnreadableImageError: It does not.
    """
    use_image(path, lambda image: None)


def use_image(path: Path, use: Callable[[OpenImage], T]) -> T:
    """Open a png, jpeg, webp, bmp or gif, by its content whatever its name, and return what ``use`` makes of it.

    Metadata that cannot be read are left out.

    Raises:
        UnreadableImageError: The file is no such image, damaged or too large.
    """
    with _quiet():
        return _with_image(path, use)


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


def _with_image(path: Path, use: Callable[[OpenImage], T]) -> T:
    """Do as :func:`use_image`, with Pillow's warnings."""
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
        raise UnreadableImageError(f"no image ({', '.join(name.lower() for name in FORMATS)}), or damaged") from error
    except Exception as error:  # the readers of damaged files raise whatever comes
        raise UnreadableImageError(_reason(error)) from error


def _decode(path: Path) -> Image.Image:
    """The first frame in 8 bits, turned upright, on white where it was transparent: mode ``L`` or ``RGB``."""

    def decode(image: OpenImage) -> Image.Image:
        plain, turn = _on_white(image), find_orientation(image)
        return plain if turn is None else plain.transpose(turn)

    return _with_image(path, decode)


def _on_white(image: OpenImage) -> Image.Image:
    opaque = load_opaque_mask(image)
    if image.mode.startswith(("I", "F")):  # 16 bits; Pillow's own conversion would cut them off at 255
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
    return f"it has more than {limit} million pixels: make it smaller first"


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return f"damaged: {one_line(error)[:120] or type(error).__name__}"
