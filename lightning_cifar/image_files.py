"""One's own image files: found, read whatever their kind, and cut to what a network takes. Without torch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
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


def check_image(path: Path) -> None:
    """Look whether the file begins as an image does; its pixels are not read.

    Raises:
        UnreadableImageError: It does not.
    """
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
    image = _decode(path)
    width, height = image.size
    left, top, right, bottom = 0, 0, width, height
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        right, bottom = left + side, top + side
    # Cropped first: with resize's own box, pixels next to it would be blended in.
    view = image.crop((left, top, right, bottom)).convert("RGB" if channels == 3 else "L")
    view = view.resize((size, size), Image.Resampling.BICUBIC)
    scale = min(1.0, _SHOWN / max(width, height))
    shown_size = max(1, round(width * scale)), max(1, round(height * scale))
    shown = image.convert("RGB").resize(shown_size, Image.Resampling.BICUBIC)
    across, down = shown_size[0] / width, shown_size[1] / height
    return ImageFile(
        np.asarray(shown, np.uint8),
        (width, height),
        (left * across, top * down, right * across, bottom * down),
        np.asarray(view, np.uint8).reshape(size, size, channels),
    )


def _open(path: Path) -> Image.Image:
    try:
        if not path.is_file():
            raise UnreadableImageError("it is not a regular file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(path, formats=FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnreadableImageError(_too_large()) from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"no image ({', '.join(name.lower() for name in FORMATS)}), or damaged") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableImageError(_reason(error)) from error


def _decode(path: Path) -> Image.Image:
    """The first frame in 8 bits, turned upright, on white where it was transparent: mode ``L`` or ``RGB``."""
    image = _open(path)
    try:
        with image, warnings.catch_warnings():
            warnings.simplefilter("ignore")
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
