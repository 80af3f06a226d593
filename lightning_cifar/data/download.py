"""Downloads one file from several mirrors: resumable, verified, and either complete or absent.

Does not import torch or Lightning.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen
from urllib.response import addinfourl

from lightning_cifar.files.links import open_own
from lightning_cifar.files.lock import FolderLock

logger = logging.getLogger(__name__)

_TURNS = 3  # attempts for each mirror that is slow or breaks off
_CHUNK = 1 << 16  # bytes


def fetch(
    urls: Sequence[str],
    dest: Path,
    *,
    md5: str | None,
    size: int | None = None,
    name: str = "",
    also: str = "",
    instead: str = "pass --data.url URL",
    progress: bool = True,
    timeout: float = 30.0,
    min_rate: float = 200e3,
    lowest_rate: float = 1e3,
    patience: float = 15.0,
    clock: Callable[[], float] = time.monotonic,
) -> Path:
    """Download one file from the first mirror that delivers it; `dest` appears only when complete and verified.

    The next mirror or the next call resumes from `<dest>.part`. Without `md5`, each attempt starts from the beginning,
    because the two parts may belong to different files. A mirror that is slow or breaks off moves to the end of the
    queue.

    Args:
        urls: http, https or file addresses of the same file, in order of preference.
        dest: Path of the file. A correct file is not downloaded again.
        md5: Hexadecimal digest, or None.
        size: Size in bytes, or None.
        name: Name of the data for the message; empty for the name of the file.
        also: Other files that are needed beside this one, for the message.
        instead: Alternative to putting the file there, for the message.
        progress: Whether to show bytes, speed and remaining time on stderr.
        timeout: Seconds without an answer after which a mirror is given up.
        min_rate: Bytes per second below which the next mirror, if any, is tried.
        lowest_rate: Bytes per second below which every mirror is given up, so that a download always ends.
        patience: Seconds over which each rate is measured.
        clock: Function that returns the time in seconds.

    Raises:
        ConnectionError: No mirror delivered the file. The message contains the fix and the last reason; its notes
            contain the reason of each mirror.
        OSError: The file cannot be written.
        UsageError: Another download into the same folder is running, or the partial file is not a regular file.
        ValueError: `urls` is empty or contains another kind of address.
    """
    if not urls or not all(url.startswith(("http://", "https://", "file://")) for url in urls):
        raise ValueError(f"the addresses {', '.join(urls)!r} must start with http://, https:// or file://")
    part = dest.with_name(dest.name + ".part")
    problems: dict[str, _MirrorError] = {}
    queue = deque((url, 1) for url in urls)
    try:
        if _is_right(dest, md5, size):
            return dest
        dest.parent.mkdir(parents=True, exist_ok=True)
        busy = f"another download into {dest.parent} is running: wait until it ends, and start again."
        with FolderLock(dest.parent, busy), _progress_bar(dest.name, shown=progress) as show:
            if _is_right(dest, md5, size):
                return dest  # another download ended in the meantime
            while queue:
                url, turn = queue.popleft()
                floor = min_rate if turn == 1 and queue else lowest_rate
                logger.debug("downloading %s", url)
                try:
                    rate = _Rate(floor, patience, clock)
                    resumed = _receive(url, part, md5 is not None, size, timeout, rate, show)
                    if (mismatch := _mismatch(part, md5, size)) is None:
                        os.replace(part, dest)
                        return dest
                    part.unlink()
                    # The wrong part may come from another mirror: this one may start again from zero.
                    raise _MirrorError(mismatch, again=resumed)
                except _MirrorError as error:
                    problems[url] = error
                    if error.again and turn < _TURNS:
                        queue.append((url, turn + 1))
    except OSError as error:
        raise OSError(f"cannot write {part}: {error.strerror or error}; choose another folder") from error
    checksum = f" (md5 {md5})" if md5 else ""
    cure = f"put {dest.name}{checksum}{also} into {dest.parent}{os.sep}, or {instead}"
    raise _failed(name or dest.name, cure, problems)


def _is_right(path: Path, md5: str | None, size: int | None) -> bool:
    return path.is_file() and _mismatch(path, md5, size) is None


def _failed(name: str, cure: str, problems: Mapping[str, _MirrorError]) -> ConnectionError:
    """Return the error in one line, with the fix first and the reason of each mirror in its notes."""
    guess = " (no network?)" if all(problem.unreachable for problem in problems.values()) else ""
    *_, last = problems.values()
    tried = "1 address tried" if len(problems) == 1 else f"{len(problems)} mirrors tried, the last"
    error = ConnectionError(f"{name} could not be downloaded{guess}: {cure} [{tried}: {last}]")
    for url, problem in problems.items():
        error.add_note(f"{url}: {problem}")
    return error


class _MirrorError(Exception):
    """One mirror did not deliver.

    Attributes:
        again: Whether to try it again.
        unreachable: Whether it did not answer.
    """

    def __init__(self, reason: object, *, again: bool = False, unreachable: bool = False) -> None:
        super().__init__(" ".join(str(reason).split())[:200])
        self.again, self.unreachable = again, unreachable


class _Rate:
    """Checks the bytes per second in each period of `patience` seconds, as a mirror may be fast only at first."""

    def __init__(self, floor: float, patience: float, clock: Callable[[], float]) -> None:
        self.floor, self.patience, self.clock = floor, patience, clock
        self.began, self.received = clock(), 0

    def check(self, received: int) -> None:
        """Raise _MirrorError if the last period was too slow, given the number of bytes since the beginning."""
        now = self.clock()
        elapsed = now - self.began
        if elapsed < self.patience:
            return
        rate = (received - self.received) / max(elapsed, 1e-9)
        if rate < self.floor:
            raise _MirrorError(f"slow ({rate / 1e3:.3g} kB/s)", again=True)
        self.began, self.received = now, received


def _receive(
    url: str,
    part: Path,
    resumable: bool,
    size: int | None,
    timeout: float,
    rate: _Rate,
    show: Callable[[int, int | None], None],
) -> bool:
    """Append the missing bytes to `part`, or write it from the beginning; return whether the old bytes were kept."""
    offset = 0
    if resumable and os.path.lexists(part):
        with os.fdopen(open_own(part, os.O_RDONLY), "rb") as file:  # refuses links
            offset = os.fstat(file.fileno()).st_size
    if offset and offset == size:
        return True
    response = _ask_in_time(url, offset, timeout)
    if response is None:
        return True
    with response:
        resumed = bool(response.status == 206)
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            raise _MirrorError("answered with another range")
        start = offset if resumed else 0
        length = response.headers.get("Content-Length", "").strip()
        if length and not re.fullmatch("[0-9]{1,18}", length):
            raise _MirrorError(f"announces {length[:20]}... bytes")
        total = start + int(length) if length else size
        if size is not None and total != size:
            raise _MirrorError(f"offers {total:,} bytes instead of {size:,}")
        received = start
        show(received, total)
        with os.fdopen(open_own(part, os.O_RDWR), "r+b") as file:
            file.truncate(start)
            file.seek(start)
            while received != total:
                try:
                    # read1 returns what has arrived, so that the rate is checked. Never read more than expected: an
                    # answer without a length may have no end.
                    chunk = response.read1(_CHUNK if total is None else min(_CHUNK, total - received))
                except (OSError, HTTPException, ValueError) as error:
                    raise _MirrorError(error, again=received > start) from error
                if not chunk:
                    break
                file.write(chunk)
                received += len(chunk)
                show(received, total)
                if received != total:
                    rate.check(received - start)
    if total is not None and received < total:
        raise _MirrorError(f"ended after {received:,} of {total:,} bytes", again=received > start)
    return resumed


def _ask_in_time(url: str, offset: int, timeout: float) -> HTTPResponse | addinfourl | None:
    """Call `_ask` with a time limit for the whole answer, also if a mirror sends it byte by byte."""
    answers: Queue[HTTPResponse | addinfourl | Exception | None] = Queue()
    given_up = Event()

    def ask() -> None:
        try:
            answer = _ask(url, offset, timeout)
        except Exception as error:
            answers.put(error)
            return
        answers.put(answer)
        if given_up.is_set() and answer is not None:
            answer.close()

    Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=3 * timeout)
    except Empty:
        given_up.set()
        raise _MirrorError(f"no complete answer within {3 * timeout:g} s", unreachable=True) from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _ask(url: str, offset: int, timeout: float) -> HTTPResponse | addinfourl | None:
    """Request all but the first `offset` bytes; return None if the server has no more than those."""
    headers = {"User-Agent": "lightning-cifar"} | ({"Range": f"bytes={offset}-"} if offset else {})
    try:
        response: HTTPResponse | addinfourl = urlopen(Request(url, headers=headers), timeout=timeout)
    except HTTPError as error:
        error.close()
        if error.code == 416 and offset:  # no more bytes: complete or wrong, which the checksum decides
            return None
        raise _MirrorError(f"HTTP {error.code}") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise _MirrorError(reason, unreachable=not url.startswith("file://")) from error
    return response


def md5_of(path: Path) -> str:
    """Return the MD5 checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _mismatch(path: Path, md5: str | None, size: int | None) -> str | None:
    """Return the error of a complete file, or None."""
    if size is not None and path.stat().st_size != size:
        return f"{path.stat().st_size:,} bytes instead of {size:,}"
    if md5 is not None and (found := md5_of(path)) != md5:
        return f"wrong checksum (md5 {found})"
    return None


@contextmanager
def _progress_bar(name: str, *, shown: bool) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a function of (bytes so far, bytes in all) that draws; a file gets only the last state."""
    if not shown:
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
