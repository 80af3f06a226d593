"""Metadata of image files: reads the orientation and removes the rest if it is damaged. Does not import torch."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import ExifTags, Image

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_LARGEST = 1 << 30  # bytes of a file that is read a second time
_ADOBE = 0xEE  # the segment with the coding of colours
_SCAN = 0xDA
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def find_orientation(image: Image.Image) -> Image.Transpose | None:
    """Return the rotation that turns an image upright; None if it is upright or its metadata cannot be read."""
    try:
        return _TURNED.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises many types on damaged metadata
        return None


def without_metadata(path: Path) -> io.BytesIO | None:
    """Return a PNG or JPEG file without its metadata; None if nothing can be removed.

    The orientation of a PNG is kept if its checksum is correct, that of a JPEG always.
    """
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        return None
    if content.startswith(_PNG):
        kept = b"".join([_PNG, *_png_chunks(content)])
    elif content.startswith(_JPEG):
        kept = b"".join([_JPEG, *_jpeg_segments(content)])
    else:
        return None
    return io.BytesIO(kept) if len(kept) < len(content) else None


def _png_chunks(content: bytes) -> Iterator[bytes]:
    at = len(_PNG)
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        chunk = content[at : at + 12 + length]
        at += len(chunk)
        critical = not kind[0] & 0x20
        whole = struct.pack(">I", zlib.crc32(chunk[4:-4])) == chunk[-4:]
        if critical or kind == b"tRNS" or (kind == b"eXIf" and whole):
            yield chunk
    yield content[at:]


def _jpeg_segments(content: bytes) -> Iterator[bytes]:
    at = len(_JPEG)
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != _SCAN:
        kind, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        segment = content[at : at + 2 + length]
        at += len(segment)
        note = (0xE0 <= kind <= 0xEF and kind not in (0xE1, _ADOBE)) or kind == 0xFE
        if not note:
            yield segment
    yield content[at:]
