"""Reads the idx files of MNIST and similar data sets: a short header, then one byte for each pixel or label.

The format: http://yann.lecun.com/exdb/mnist. Two zero bytes, the type of the entries (8 is an unsigned byte), the
number of axes, then the length of each axis as four bytes in big-endian order. Does not import torch or Lightning.
"""

import gzip
import logging
import math
import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from lightning_cifar.data.download import md5_of
from lightning_cifar.data.sources import CURE, UNOFFICIAL, IdxFile, IdxSource

logger = logging.getLogger(__name__)

_UNSIGNED_BYTE = 8
NUM_CLASSES = 10


def read_idx(path: Path, shape: tuple[int, ...], *, md5: str | None = None) -> npt.NDArray[np.uint8]:
    """Read an idx file of a known shape. Not more bytes are read than this shape needs, also from a packed file.

    Args:
        path: File to read, packed by gzip if its name ends in .gz.
        shape: Shape of the array.
        md5: Checksum of the file on the disk; None to skip the check.

    Raises:
        ValueError: The file is damaged, or has other content.
    """
    header = struct.pack(f">HBB{len(shape)}I", 0, _UNSIGNED_BYTE, len(shape), *shape)
    size = len(header) + math.prod(shape)
    content = bytearray(_read(path, size + 1))
    if content[:4] != header[:4]:
        kind = "images" if len(shape) == 3 else "labels"
        raise ValueError(
            f"{path} is not an idx file of {kind} (it begins with {content[:4].hex() or 'nothing'} instead of "
            f"{header[:4].hex()}): {CURE}"
        )
    if len(content) < len(header):
        raise ValueError(f"{path} ends within its header: {CURE}")
    if content[: len(header)] != header:
        found = struct.unpack_from(f">{len(shape)}I", content, 4)
        raise ValueError(f"{path} contains {_lengths(found)} bytes instead of {_lengths(shape)}: {CURE}")
    if len(content) != size:
        much = f"{len(content):,}" if len(content) < size else "more"
        raise ValueError(f"{path} has {much} bytes instead of {size:,}: {CURE}")
    if md5 is not None and md5_of(path) != md5:
        raise ValueError(f"{path} {UNOFFICIAL}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def read_labelled(
    root: Path, source: IdxSource, part: Literal["train", "test"], *, verify: bool = True
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Read the images (N, H, W, 1) and labels (N,) of a part; unpacked files have priority over packed ones.

    Args:
        verify: Whether to compare with the official checksums.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, altered or unofficial.
    """
    images_file, labels_file = source.train if part == "train" else source.test
    count = source.num_train if part == "train" else source.num_test
    images_path, labels_path = (_find(root, source, file) for file in (images_file, labels_file))
    if not verify:
        logger.warning("%s is read as an unofficial copy, checksums not verified", images_path.parent)
    images = read_idx(
        images_path, (count, source.size, source.size), md5=_md5(images_file, images_path) if verify else None
    )
    labels = read_idx(labels_path, (count,), md5=_md5(labels_file, labels_path) if verify else None)
    if (highest := int(labels.max())) >= NUM_CLASSES:
        raise ValueError(f"{labels_path} has the label {highest}, outside 0..{NUM_CLASSES - 1}: {CURE}")
    return images[..., None], labels.astype(np.int64)


def _find(root: Path, source: IdxSource, file: IdxFile) -> Path:
    path = source.find(root, file)
    if path is None:
        raise FileNotFoundError(
            f"{source.name} was not found in {root}: pass --data.download true, or put {file.name}.gz into "
            f"{source.folder(root)}"
        )
    return path


def _md5(file: IdxFile, path: Path) -> str:
    return file.md5 if path.suffix == ".gz" else file.unpacked_md5


def _read(path: Path, limit: int) -> bytes:
    """Return the first bytes of a file, at most ``limit``, unpacked."""
    if path.suffix != ".gz":
        with path.open("rb") as file:
            return file.read(limit)
    try:
        with gzip.open(path) as packed:
            return packed.read(limit)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged or truncated: {CURE}") from error


def _lengths(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{length:,}" for length in shape)
