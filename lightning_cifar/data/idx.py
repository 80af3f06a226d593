"""Reads the idx files of MNIST and its like: a header of a few numbers, then one byte a pixel or label.

The format: http://yann.lecun.com/exdb/mnist. Two bytes of zero, the type of the entries (8 is an unsigned byte), the
number of axes, then the length of each as four bytes, the highest first. Knows neither torch nor Lightning.
"""

import gzip
import hashlib
import logging
import math
import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from lightning_cifar.data.sources import IdxFile, IdxSource

logger = logging.getLogger(__name__)

_UNSIGNED_BYTE = 8
NUM_CLASSES = 10


def read_idx(path: Path, shape: tuple[int, ...], *, md5: str | None = None) -> npt.NDArray[np.uint8]:
    """The bytes that an idx file must hold.

    Never takes in more than they need, whatever the file claims or a packed one swells to.

    Args:
        path: packed by gzip where its name ends in .gz.
        shape: that the array must have.
        md5: of the file as it is on the disk; None leaves it unverified.

    Raises:
        ValueError: the file is damaged, or holds something else.
    """
    header = struct.pack(f">HBB{len(shape)}I", 0, _UNSIGNED_BYTE, len(shape), *shape)
    size = len(header) + math.prod(shape)
    content = bytearray(_read(path, size + 1))
    if content[:4] != header[:4]:
        kind = "images" if len(shape) == 3 else "labels"
        raise ValueError(
            f"{path} is no idx file of {kind} (it begins {content[:4].hex() or 'nowhere'}, "
            f"not {header[:4].hex()}): {_CURE}"
        )
    if len(content) < len(header):
        raise ValueError(f"{path} ends within its header: {_CURE}")
    if content[: len(header)] != header:
        found = struct.unpack_from(f">{len(shape)}I", content, 4)
        raise ValueError(f"{path} holds {_lengths(found)} bytes instead of {_lengths(shape)}: {_CURE}")
    if len(content) != size:
        much = f"{len(content):,}" if len(content) < size else "more"
        raise ValueError(f"{path} has {much} bytes instead of {size:,}: {_CURE}")
    if md5 is not None:
        with path.open("rb") as file:
            found_md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found_md5 != md5:
            raise ValueError(
                f"{path} differs from the official file: {_CURE}, "
                "or pass --data.verify false to read an unofficial copy"
            )
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def read_labelled(
    root: Path, source: IdxSource, part: Literal["train", "test"], *, verify: bool = True
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images (N, H, W, 1) and labels (N,) of a part, from packed or unpacked files; unpacked ones go first.

    Args:
        root: see `IdxSource.find`.
        source: which data set.
        part: training or test.
        verify: compare with the official checksums.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, altered or unofficial.
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
        raise ValueError(f"{labels_path} has the label {highest}, outside 0..{NUM_CLASSES - 1}: {_CURE}")
    return images[..., None], labels.astype(np.int64)


_CURE = "delete it and download again"


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
    """The first bytes of a file, at most ``limit``, unpacked."""
    if path.suffix != ".gz":
        with path.open("rb") as file:
            return file.read(limit)
    try:
        with gzip.open(path) as packed:
            return packed.read(limit)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged or truncated: {_CURE}") from error


def _lengths(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{length:,}" for length in shape)
