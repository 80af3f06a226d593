"""Frames of an animation into a GIF or a lossless WebP, one by one: what is held is one frame, whatever their number.

imageio and Pillow write both formats too, and hold all frames until the file is closed. Here Pillow encodes each frame
as a picture of its own, and its bytes are put behind those of the frame before. The caller opens and closes the files.
"""

from __future__ import annotations

import io
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
"""A frame (H, W, 3)."""

MIN_SECONDS = 0.02
"""Browsers take a shorter frame for a mistake, and show it for 0.1 s."""


class Encoder(ABC):
    """Frames of equal size go in by :meth:`add`; :meth:`finish` completes the file. It plays for ever.

    Equal neighbours become one frame that stays as long as they do together, so the animation's duration is always
    the number of frames times ``seconds_per_frame``.

    Args:
        file: to write to; must be seekable.
        seconds_per_frame: in seconds.

    Raises:
        ValueError: ``seconds_per_frame`` is below 0.02 or above 60, or a frame has another size than the first.
    """

    ticks_per_second: int
    """The format's unit of time."""
    most_ticks: int
    """Of one frame: longer ones are split."""

    def __init__(self, file: BinaryIO, seconds_per_frame: float) -> None:
        if not MIN_SECONDS <= seconds_per_frame <= 60:
            raise ValueError(f"seconds_per_frame (={seconds_per_frame}) must be {MIN_SECONDS} to 60")
        self._file = file
        self._ticks = seconds_per_frame * self.ticks_per_second
        self._waiting: Pixels | None = None
        self._begin = self._end = 0
        """Of the waiting frame, counted in frames that came in."""

    def add(self, frame: Pixels) -> None:
        if self._waiting is None:
            self._write_header(frame.shape[1], frame.shape[0])
        elif frame.shape != self._waiting.shape:
            raise ValueError(f"a frame of {frame.shape} does not go with frames of {self._waiting.shape}")
        elif not np.array_equal(frame, self._waiting):
            self._flush()
        self._waiting = frame
        self._end += 1

    def finish(self) -> None:
        """Raises ValueError if there was no frame."""
        if self._waiting is None:
            raise ValueError("an animation needs at least one frame")
        self._flush()
        self._write_trailer()

    def _flush(self) -> None:
        assert self._waiting is not None
        # Rounded from the start, so that rounding does not add up.
        ticks = round(self._end * self._ticks) - round(self._begin * self._ticks)
        while ticks > 0:
            self._write_frame(self._waiting, min(ticks, self.most_ticks))
            ticks -= self.most_ticks
        self._begin = self._end

    @abstractmethod
    def _write_header(self, width: int, height: int) -> None: ...

    @abstractmethod
    def _write_frame(self, frame: Pixels, ticks: int) -> None: ...

    @abstractmethod
    def _write_trailer(self) -> None: ...


class GIFEncoder(Encoder):
    """GIF89a. Each frame has a palette of its own: exact for up to 256 colours, without dithering for more."""

    ticks_per_second = 100
    most_ticks = 0xFFFF

    def _write_header(self, width: int, height: int) -> None:
        self._file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0))
        self._file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<HB", 0, 0))  # repeats for ever

    def _write_frame(self, frame: Pixels, ticks: int) -> None:
        height, width, _ = frame.shape
        buffer = io.BytesIO()
        # Median cut, unlike the octree that is faster, keeps up to 256 colours as they are.
        picture = Image.fromarray(frame).quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        picture.save(buffer, "GIF", interlace=0)
        data = buffer.getvalue()
        # The picture's palette is the file's; in an animation it goes behind the frame's descriptor.
        bits = data[10] & 7
        start = 13 + (3 * 2 << bits)
        palette = data[13:start]
        while data[start] == 0x21:  # extensions: a label, then blocks up to an empty one
            start += 2
            while data[start]:
                start += data[start] + 1
            start += 1
        self._file.write(b"\x21\xf9\x04" + struct.pack("<BHBB", 1 << 2, ticks, 0, 0))  # is drawn over
        self._file.write(b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0x80 | bits) + palette)
        self._file.write(data[start + 10 : -1])

    def _write_trailer(self) -> None:
        self._file.write(b"\x3b")


class WebPEncoder(Encoder):
    """Lossless WebP: pixels come back exactly. A third of a GIF's size."""

    ticks_per_second = 1000
    most_ticks = 0xFFFFFF

    def _write_header(self, width: int, height: int) -> None:
        if max(width, height) > 16383:
            raise ValueError(f"a frame of {width} x {height} pixels is too large for WebP, which takes 16383 at most")
        self._start = self._file.tell()
        self._file.write(b"RIFF\0\0\0\0WEBP")  # the size is known at the end
        self._file.write(_chunk(b"VP8X", struct.pack("<I", 1 << 1) + _uint24(width - 1) + _uint24(height - 1)))
        self._file.write(_chunk(b"ANIM", struct.pack("<IH", 0xFFFFFFFF, 0)))  # on white, for ever

    def _write_frame(self, frame: Pixels, ticks: int) -> None:
        height, width, _ = frame.shape
        buffer = io.BytesIO()
        # Of a frame of 500 x 550 pixels: 4 ms and 4 kB; the default (method 4, quality 80): 17 ms for 3 % less.
        Image.fromarray(frame).save(buffer, "WEBP", lossless=True, quality=0, method=2)
        place = _uint24(0) * 2 + _uint24(width - 1) + _uint24(height - 1) + _uint24(ticks)
        picture = b"".join(_chunk(name, data) for name, data in _chunks(buffer.getvalue()) if name == b"VP8L")
        self._file.write(_chunk(b"ANMF", place + b"\x02" + picture))  # replaces what was there

    def _write_trailer(self) -> None:
        end = self._file.tell()
        self._file.seek(self._start + 4)
        self._file.write(struct.pack("<I", end - self._start - 8))
        self._file.seek(end)


def _uint24(value: int) -> bytes:
    return struct.pack("<I", value)[:3]


def _chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a RIFF file, padded to an even length."""
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _chunks(riff: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of the chunks of a WebP file."""
    start = 12
    while start < len(riff):
        (size,) = struct.unpack_from("<I", riff, start + 4)
        yield riff[start : start + 4], riff[start + 8 : start + 8 + size]
        start += 8 + size + size % 2
