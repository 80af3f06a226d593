"""Transparent colours of PNG files, in every bit depth. Does not import torch.

The format: https://www.w3.org/TR/png-3, chunk tRNS.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

_GREY_DEPTHS = {"1": 1, "L;2": 2, "L;4": 4, "L": 8, "I;16B": 16}  # bits by Pillow's name of the raw samples


def load_opaque_mask(image: ImageFile.ImageFile) -> NDArray[np.bool_] | None:
    """Load a PNG image with one transparent colour (its tRNS chunk), and return the mask of all other pixels.

    Pillow compares that colour with samples of 8 bits, although the chunk has the bit depth of the file. Palettes and
    images with an alpha channel are left to Pillow.

    Returns:
        The mask (H, W), or None if the image has no such colour.
    """
    colour = image.info.get("transparency")
    if image.format != "PNG" or image.mode not in ("1", "L", "I;16", "RGB") or colour is None or not image.tile:
        image.load()
        return None
    samples = str(image.tile[0].args)
    if image.mode == "RGB":
        depth = 16 if samples.startswith("RGB;16") else 8
        low = _low_bytes(image) if depth == 16 else 0
        image.load()
        values = np.asarray(image).astype(np.int32)
        values = (values << 8) + low if depth == 16 else values
        wanted = np.asarray(colour, np.int32) & ((1 << depth) - 1)
        return np.asarray((values != wanted).any(axis=-1))
    depth = _GREY_DEPTHS[samples]
    image.load()
    values = np.asarray(image).astype(np.int32)
    highest = (1 << depth) - 1
    if image.mode == "1":  # Pillow scales the colour too, to 0 or 255
        return np.asarray(values != (colour > 0))
    scale = 255 // highest if depth < 8 else 1
    return np.asarray(values != (int(colour) & highest) * scale)


def _low_bytes(image: ImageFile.ImageFile) -> NDArray[np.int32]:
    """Return the lower bytes of 16-bit colours, by reading the samples in the other byte order.

    Pillow keeps only the higher byte.
    """
    assert image.fp is not None
    position = image.fp.tell()
    image.fp.seek(0)
    content = io.BytesIO(image.fp.read())
    image.fp.seek(position)
    with Image.open(content, formats=["PNG"]) as again:
        again.tile = [tile._replace(args="RGB;16L") for tile in again.tile]
        return np.asarray(again).astype(np.int32)
