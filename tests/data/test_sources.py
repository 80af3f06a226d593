import contextlib
import gzip
import hashlib
import http.server
import io
import logging
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lightning_cifar.data import sources
from lightning_cifar.data.download import _Rate
from lightning_cifar.data.sources import download_cifar10, fetch, find_cifar10, read_cifar10
from lightning_cifar.errors import UsageError
from lightning_cifar.files.lock import FolderLock

ROWS = 3
BATCHES = (*sources.TRAIN_BATCHES, "test_batch")
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


# ---------------------------------------------------------------- a tiny copy in the official layout


def python2_text(text: bytes) -> bytes:
    return b"T" + struct.pack("<I", len(text)) + text


def python2_list(opcodes: list[bytes]) -> bytes:
    return b"](" + b"".join(opcodes) + b"e"


def python2_batch(data: npt.NDArray[np.uint8], labels: list[int]) -> bytes:
    """A batch, opcode for opcode as Python 2 wrote the official ones."""
    rows, columns = data.shape
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + b"M%sM%s\x86" % (struct.pack("<H", rows), struct.pack("<H", columns))
        + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + python2_text(data.tobytes())
        + b"tb"
    )
    values = python2_list([b"J" + struct.pack("<i", label) for label in labels])
    return b"\x80\x02}(" + python2_text(b"data") + array + python2_text(b"labels") + values + b"u."


def python2_meta(names: tuple[str, ...]) -> bytes:
    values = python2_list([python2_text(name.encode()) for name in names])
    return b"\x80\x02}(" + python2_text(b"label_names") + values + b"u."


def pixels() -> npt.NDArray[np.uint8]:
    """Return the images of the tiny copy, (18, 32, 32, 3): noise, which detects a wrong order of the axes."""
    return np.random.default_rng(0).integers(0, 256, (6 * ROWS, 32, 32, 3), dtype=np.uint8)


def tiny_files() -> dict[str, bytes]:
    planar = pixels().transpose(0, 3, 1, 2).reshape(6, ROWS, 3072)
    files = {name: python2_batch(planar[i], [i, 9, 0]) for i, name in enumerate(BATCHES)}
    return files | {"batches.meta": python2_meta(NAMES)}


def write_folder(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def regular(name: str, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    return member, content


def write_archive(root: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    path = root / sources.ARCHIVE
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return path


def official_members(files: dict[str, bytes]) -> list[tuple[tarfile.TarInfo, bytes]]:
    folder = tarfile.TarInfo(sources.FOLDER)
    folder.type = tarfile.DIRTYPE
    readme = regular(f"{sources.FOLDER}/readme.html", b"<html/>")
    # Not in the order of the batches: nor is the official archive.
    return [(folder, b""), readme, *(regular(f"{sources.FOLDER}/{name}", files[name]) for name in sorted(files)[::-1])]


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Make the tiny files the official ones."""
    files = tiny_files()
    monkeypatch.setattr(sources, "OFFICIAL_MD5", {name: hashlib.md5(files[name]).hexdigest() for name in files})
    return files


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("layout", ["folder", "root", "archive"])
def test_every_layout_gives_the_images_in_height_width_colour(
    layout: str, official: dict[str, bytes], tmp_path: Path
) -> None:
    if layout == "archive":
        expected = write_archive(tmp_path, official_members(official))
    else:
        expected = tmp_path / sources.FOLDER if layout == "folder" else tmp_path
        write_folder(expected, official)
    assert find_cifar10(tmp_path) == expected
    arrays = read_cifar10(tmp_path, rows=ROWS)
    np.testing.assert_array_equal(arrays.train_images, pixels()[: 5 * ROWS], strict=True)
    np.testing.assert_array_equal(arrays.test_images, pixels()[5 * ROWS :], strict=True)
    labels = np.array([[i, 9, 0] for i in range(6)], np.int64)
    np.testing.assert_array_equal(arrays.train_labels, labels[:5].ravel(), strict=True)
    np.testing.assert_array_equal(arrays.test_labels, labels[5], strict=True)
    assert arrays.train_images.flags.c_contiguous
    assert arrays.test_images.flags.c_contiguous
    if layout == "archive":
        assert list(tmp_path.iterdir()) == [expected]  # nothing was unpacked


def test_the_order_of_the_colour_planes(tmp_path: Path) -> None:
    row = np.zeros((ROWS, 3072), np.uint8)
    row[0, [0, 1024, 2048]] = 10, 20, 30  # red, green, blue of the top left pixel
    row[0, [1, 1025, 2049]] = 11, 21, 31  # of its right neighbour
    row[0, [32, 1056, 2080]] = 12, 22, 32  # of the one below
    write_folder(tmp_path, tiny_files() | {"data_batch_1": python2_batch(row, [0, 0, 0])})
    image = read_cifar10(tmp_path, verify=False, rows=ROWS).train_images[0]
    assert image[:2, :2].tolist() == [[[10, 20, 30], [11, 21, 31]], [[12, 22, 32], [0, 0, 0]]]


def test_priority_of_complete_folder_archive_and_partial_folder(tmp_path: Path) -> None:
    files = tiny_files()
    archive = write_archive(tmp_path, official_members(files))
    folder = tmp_path / sources.FOLDER
    write_folder(folder, files)
    assert find_cifar10(tmp_path) == folder
    (folder / "data_batch_3").unlink()
    assert find_cifar10(tmp_path) == archive


def test_missing_data_names_the_folder_and_the_fix(tmp_path: Path) -> None:
    assert find_cifar10(tmp_path / "none") is None
    cure = f"pass --data.download true, or put {sources.ARCHIVE} there"
    with pytest.raises(FileNotFoundError, match=f"CIFAR-10 was not found in {tmp_path}: {cure}"):
        read_cifar10(tmp_path)
    files = tiny_files()
    del files["data_batch_3"]
    write_folder(tmp_path / sources.FOLDER, files)
    assert find_cifar10(tmp_path) is None
    with pytest.raises(FileNotFoundError, match=f"{sources.FOLDER} lacks data_batch_3.*: {cure}"):
        read_cifar10(tmp_path)


@pytest.mark.parametrize("layout", ["folder", "archive"])
def test_the_checksum_detects_one_altered_byte(layout: str, official: dict[str, bytes], tmp_path: Path) -> None:
    altered = bytearray(official["data_batch_2"])
    altered[2000] ^= 1  # a pixel
    files = official | {"data_batch_2": bytes(altered)}
    if layout == "folder":
        write_folder(tmp_path / sources.FOLDER, files)
    else:
        write_archive(tmp_path, official_members(files))
    cure = "delete it and download again, or pass --data.verify false to read an unofficial copy"
    with pytest.raises(ValueError, match=f"data_batch_2 differs from the official file: {cure}"):
        read_cifar10(tmp_path, rows=ROWS)
    assert read_cifar10(tmp_path, verify=False, rows=ROWS).train_labels.shape == (5 * ROWS,)


def test_official_checksums_are_verified_by_default(tmp_path: Path) -> None:
    write_folder(tmp_path, tiny_files())
    with pytest.raises(ValueError, match="data_batch_1 differs from the official file"):
        read_cifar10(tmp_path, rows=ROWS)


def test_an_unverified_copy_logs_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path, tiny_files())
    with caplog.at_level(logging.WARNING):
        read_cifar10(tmp_path, verify=False, rows=ROWS)
    (message,) = caplog.messages
    assert "unofficial copy, checksums not verified" in message


BLACK = np.zeros((ROWS, 3072), np.uint8)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("data_batch_1", python2_batch(BLACK, [0, 0, 10]), r"label that is not an integer in 0\.\.9"),
        ("data_batch_1", python2_batch(BLACK, [0, 0, -1]), r"label that is not an integer in 0\.\.9"),
        ("data_batch_1", pickle.dumps({b"data": BLACK, b"labels": [0, 0, 1.0]}, 2), "label that is not an integer"),
        ("data_batch_1", python2_batch(BLACK, [0, 0]), "does not contain 3 labels"),
        ("data_batch_1", pickle.dumps({b"data": BLACK}, 2), "does not contain 3 labels"),
        ("test_batch", python2_batch(BLACK[:2], [0, 0, 0]), "does not contain 3 rows of 3,072 uint8 pixels"),
        ("test_batch", python2_batch(BLACK[:, :-1], [0, 0, 0]), "does not contain 3 rows of 3,072 uint8 pixels"),
        ("test_batch", pickle.dumps({b"data": BLACK.view(np.int8)}, 2), "does not contain 3 rows of 3,072 uint8"),
        ("test_batch", pickle.dumps({b"data": [1, 2]}, 2), "does not contain 3 rows of 3,072 uint8 pixels"),
        ("test_batch", pickle.dumps(BLACK, 2), "does not contain 3 rows of 3,072 uint8 pixels"),
        ("test_batch", python2_batch(BLACK, [0, 0, 0])[:-100], "is damaged or truncated"),
        ("test_batch", b"", "is damaged or truncated"),
        ("test_batch", bytes(100_000), "more than the file of a batch can have"),
    ],
)
@pytest.mark.parametrize("layout", ["folder", "archive"])
def test_contents_are_checked(layout: str, name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    files = tiny_files() | {name: content}
    if layout == "folder":
        write_folder(tmp_path / sources.FOLDER, files)
    else:
        write_archive(tmp_path, official_members(files))
    with pytest.raises(ValueError, match=f"{sources.FOLDER}/{name} .*{reason}.*: delete it and download again") as info:
        read_cifar10(tmp_path, verify=False, rows=ROWS)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("verify", [True, False])
def test_a_hostile_batch_executes_nothing(verify: bool, tmp_path: Path) -> None:
    sentinel = tmp_path / "executed"

    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, (f"touch {sentinel}",)

    write_folder(tmp_path, tiny_files() | {"data_batch_1": pickle.dumps(Hostile(), 2)})
    with pytest.raises(ValueError, match=r"data_batch_1 (differs from|contains the global 'posix\.system')"):
        read_cifar10(tmp_path, verify=verify, rows=ROWS)
    assert not sentinel.exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_an_archive_member_that_is_not_a_regular_file(kind: bytes, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(python2_batch(BLACK, [0, 0, 0]))
    members = official_members(tiny_files())
    odd = tarfile.TarInfo(f"{sources.FOLDER}/data_batch_4")
    odd.type, odd.linkname = kind, str(secret)
    write_archive(tmp_path, [(odd, b""), *(m for m in members if m[0].name != odd.name)])
    with pytest.raises(ValueError, match=r"data_batch_4 is not a regular file: delete .* and download again"):
        read_cifar10(tmp_path, verify=False, rows=ROWS)


def test_members_may_begin_with_the_current_folder(official: dict[str, bytes], tmp_path: Path) -> None:
    members = official_members(official)
    for member, _ in members:
        member.name = f"./{member.name}"
    write_archive(tmp_path, members)
    np.testing.assert_array_equal(read_cifar10(tmp_path, rows=ROWS).train_images, pixels()[: 5 * ROWS])


@pytest.mark.parametrize("name", [f"../{sources.FOLDER}/data_batch_4", "/data_batch_4", "data_batch_4"])
def test_an_archive_member_with_another_path_is_ignored(name: str, tmp_path: Path) -> None:
    files = tiny_files()
    moved = regular(name, files.pop("data_batch_4"))
    write_archive(tmp_path, [*official_members(files), moved])
    with pytest.raises(ValueError, match="lacks data_batch_4: delete it and download again"):
        read_cifar10(tmp_path, verify=False, rows=ROWS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [sources.ARCHIVE]


def test_a_damaged_archive_is_refused_in_one_line(official: dict[str, bytes], tmp_path: Path) -> None:
    path = write_archive(tmp_path, official_members(official))
    whole = path.read_bytes()
    damaged = [b"", b"no archive", gzip.compress(b"no archive"), whole[:5]]
    damaged += [whole[:length] for length in range(10, len(whole) - 1500, 3001)]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{sources.ARCHIVE} (is damaged|lacks).*download again") as info:
            read_cifar10(tmp_path, rows=ROWS)
        assert "\n" not in str(info.value)


def test_a_flipped_bit_in_the_archive_gives_the_same_arrays_or_one_line(
    official: dict[str, bytes], tmp_path: Path
) -> None:
    path = write_archive(tmp_path, official_members(official))
    whole = path.read_bytes()
    refusals = []
    # The inner tar holds the headers: its bits are flipped too, behind a valid compression.
    inner = gzip.decompress(whole)
    for source, positions in ((whole, range(0, len(whole), 499)), (inner, range(0, 1536, 7))):
        for position in positions:
            content = bytearray(source)
            content[position] ^= 1 << position % 8
            path.write_bytes(content if source is whole else gzip.compress(bytes(content), 1))
            try:
                arrays = read_cifar10(tmp_path, rows=ROWS)
            except ValueError as error:
                refusals.append(str(error))
            else:
                np.testing.assert_array_equal(arrays.train_images, pixels()[: 5 * ROWS])
    assert len(refusals) > 50
    assert all("download again" in refusal and "\n" not in refusal for refusal in refusals)


@pytest.mark.real_data
@pytest.mark.skipif("LIGHTNING_CIFAR_DATA" not in os.environ, reason="LIGHTNING_CIFAR_DATA names no real data")
def test_the_real_data() -> None:
    arrays = read_cifar10(Path(os.environ["LIGHTNING_CIFAR_DATA"]), verify=False)
    assert arrays.train_images.shape == (50_000, 32, 32, 3)
    assert arrays.test_images.shape == (10_000, 32, 32, 3)
    assert np.bincount(arrays.train_labels).tolist() == [5000] * 10
    assert np.bincount(arrays.test_labels).tolist() == [1000] * 10
    # The published means of red, green and blue: a mixed-up channel shows here.
    np.testing.assert_allclose(arrays.train_images.mean((0, 1, 2)) / 255, [0.4914, 0.4822, 0.4465], atol=1e-3)


# ---------------------------------------------------------------- downloading


CONTENT = np.random.default_rng(1).bytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@dataclass
class Mirror:
    """A local server whose path selects its behaviour."""

    address: str
    ranges: list[str | None] = field(default_factory=list)  # the Range header of each request
    sent: list[int] = field(default_factory=list)  # bytes of each answer

    def url(self, behaviour: str) -> str:
        return f"{self.address}/{behaviour}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: "Server"

    def do_GET(self) -> None:
        mirror, behaviour = self.server.mirror, self.path.strip("/")
        asked = self.headers.get("Range")
        mirror.ranges.append(asked)
        content, start = CONTENT, 0
        if behaviour in {"missing", "busy", "refusing"}:
            self.send_error({"missing": 404, "busy": 503, "refusing": 416}[behaviour])
            return
        if behaviour == "altered":
            content = CONTENT[:-1] + b"?"
        if behaviour == "page":
            content = b"<html>please log in</html>"
        if asked and behaviour not in {"whole", "page"}:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            self.send_error(416)
            return
        body = content[start:]
        self.send_response(206 if start else 200)
        if start:
            first = start + 1 if behaviour == "shifted" else start
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if behaviour != "endless":
            length = {"huge": "9" * 5000, "odd": "²", "negative": "-1"}.get(behaviour, str(len(body)))
            self.send_header("Content-Length", length)
        if behaviour == "headers":  # without end
            self.flush_headers()
            with contextlib.suppress(ConnectionError):
                while not self.server.stopped.wait(0.01):
                    self.wfile.write(b"X")
            return
        self.end_headers()
        if behaviour == "drip":
            with contextlib.suppress(ConnectionError):
                for i in range(len(body)):
                    self.wfile.write(body[i : i + 1])
                    if self.server.stopped.wait(0.001):
                        return
            return
        if behaviour == "breaking":  # off, half way through what remains
            body = body[: len(body) // 2]
        mirror.sent.append(len(body))
        if behaviour == "slow" and not start:
            self.wfile.write(body[:65536])
            self.wfile.flush()
            time.sleep(0.4)
            body = body[65536:]
        with contextlib.suppress(ConnectionError):  # the client may have gone
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    mirror: Mirror

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.stopped = threading.Event()


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as server:
        server.mirror = Mirror(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.mirror
        server.stopped.set()
        server.shutdown()
        thread.join()


def fetch_quietly(urls: list[str], dest: Path, **options: object) -> Path:
    settings: dict[str, object] = {"md5": MD5, "size": len(CONTENT), "progress": False} | options
    call: Callable[..., Path] = fetch
    return call(urls, dest, **settings)


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "file.bin"


def visible(folder: Path) -> list[Path]:
    """What a user sees in a folder: the lock is hidden."""
    return [path for path in folder.iterdir() if path.name != ".lock"]


class Clock:
    """A clock that advances by a step at each call."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def begin(dest: Path, content: bytes) -> Path:
    part = dest.with_name("file.bin.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(content)
    return part


@pytest.mark.parametrize("size", [len(CONTENT), None])
@pytest.mark.parametrize("md5", [MD5, None])
def test_fetch_leaves_only_the_file(size: int | None, md5: str | None, mirror: Mirror, dest: Path) -> None:
    assert fetch_quietly([mirror.url("good")], dest, md5=md5, size=size) == dest
    assert dest.read_bytes() == CONTENT
    assert visible(dest.parent) == [dest]
    assert mirror.ranges == [None]


def test_fetch_reads_file_addresses(tmp_path: Path, dest: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    begin(dest, CONTENT[:100])  # a file knows no Range: it starts afresh
    assert fetch_quietly([source.as_uri()], dest).read_bytes() == CONTENT


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_fetch_resumes_and_only_the_rest_is_sent(size: int | None, mirror: Mirror, dest: Path) -> None:
    part = begin(dest, CONTENT[:123_456])
    assert fetch_quietly([mirror.url("good")], dest, size=size).read_bytes() == CONTENT
    assert mirror.ranges == ["bytes=123456-"]
    assert mirror.sent == [len(CONTENT) - 123_456]
    assert not part.exists()


def test_fetch_starts_afresh_where_range_is_ignored(mirror: Mirror, dest: Path) -> None:
    begin(dest, CONTENT[:123_456])
    assert fetch_quietly([mirror.url("whole")], dest).read_bytes() == CONTENT
    assert mirror.ranges == ["bytes=123456-"]
    assert mirror.sent == [len(CONTENT)]


def test_fetch_starts_afresh_without_a_checksum(mirror: Mirror, dest: Path) -> None:
    begin(dest, b"of another file")
    assert fetch_quietly([mirror.url("good")], dest, md5=None).read_bytes() == CONTENT
    assert mirror.ranges == [None]


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_fetch_takes_a_complete_part_as_it_is(size: int | None, mirror: Mirror, dest: Path) -> None:
    begin(dest, CONTENT)
    assert fetch_quietly([mirror.url("good")], dest, size=size).read_bytes() == CONTENT
    assert mirror.sent == []


@pytest.mark.parametrize("beginning", [b"of another file", bytes(len(CONTENT)), bytes(len(CONTENT) + 9)])
@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_fetch_recovers_from_a_wrong_beginning(size: int | None, beginning: bytes, mirror: Mirror, dest: Path) -> None:
    begin(dest, beginning)
    assert fetch_quietly([mirror.url("good")], dest, size=size).read_bytes() == CONTENT


def test_fetch_resumes_after_a_mirror_breaks_off(mirror: Mirror, dest: Path) -> None:
    assert fetch_quietly([mirror.url("breaking"), mirror.url("good")], dest).read_bytes() == CONTENT
    assert mirror.ranges == [None, "bytes=150000-"]
    assert mirror.sent == [150_000, 150_000]


@pytest.mark.parametrize("bad", ["missing", "busy", "altered", "page"])
def test_fetch_takes_the_next_mirror(bad: str, mirror: Mirror, dest: Path) -> None:
    assert fetch_quietly([mirror.url(bad), mirror.url("good")], dest).read_bytes() == CONTENT
    assert mirror.ranges == [None, None]
    assert visible(dest.parent) == [dest]


@pytest.mark.parametrize("bad", ["page", "shifted", "missing"])
def test_a_mirror_with_other_content_keeps_the_partial_file(bad: str, mirror: Mirror, dest: Path) -> None:
    begin(dest, CONTENT[:1000])
    assert fetch_quietly([mirror.url(bad), mirror.url("good")], dest).read_bytes() == CONTENT
    assert mirror.ranges == ["bytes=1000-"] * 2


def test_a_slow_mirror_is_replaced_but_its_bytes_are_kept(mirror: Mirror, dest: Path) -> None:
    urls = [mirror.url("slow"), mirror.url("good")]
    assert fetch_quietly(urls, dest, clock=Clock(step=100.0), lowest_rate=1e-3).read_bytes() == CONTENT
    first, *others = mirror.ranges
    assert first is None
    kept = [int(str(asked).removeprefix("bytes=").removesuffix("-")) for asked in others]
    assert 0 < kept[0] <= 65536
    assert kept == sorted(kept)


def test_a_slow_mirror_is_used_if_no_other_delivers(mirror: Mirror, dest: Path) -> None:
    urls = [mirror.url("slow"), mirror.url("missing")]
    assert fetch_quietly(urls, dest, clock=Clock(step=100.0), lowest_rate=1e-3).read_bytes() == CONTENT
    assert len(mirror.ranges) == 3


@pytest.mark.parametrize("behaviour", ["drip", "headers"])
def test_a_mirror_that_sends_byte_by_byte_is_given_up(behaviour: str, mirror: Mirror, dest: Path) -> None:
    options: dict[str, object] = {"clock": Clock(step=10.0), "timeout": 0.1, "lowest_rate": 5.0}
    with pytest.raises(ConnectionError, match=r"slow \(.* kB/s\)\]|no complete answer within 0.3 s\]"):
        fetch_quietly([mirror.url(behaviour)], dest, **options)
    assert fetch_quietly([mirror.url(behaviour), mirror.url("good")], dest, **options).read_bytes() == CONTENT


def test_the_rate_is_checked_in_each_period() -> None:
    times = iter([0.0, 9.0, 10.0, 15.0, 20.0])
    rate = _Rate(100.0, 10.0, lambda: next(times))
    rate.check(1)  # not yet
    rate.check(1_000_000)
    rate.check(1_000_001)  # not yet
    with pytest.raises(Exception, match="slow"):
        rate.check(1_000_900)  # fast on average, and not since the last time


@pytest.mark.parametrize("length", ["huge", "odd", "negative"])
def test_an_invalid_content_length_is_refused(length: str, mirror: Mirror, dest: Path) -> None:
    for size in (len(CONTENT), None):
        assert fetch_quietly([mirror.url(length), mirror.url("good")], dest, size=size).read_bytes() == CONTENT
        dest.unlink()
    with pytest.raises(ConnectionError, match=r"announces .* bytes"):
        fetch_quietly([mirror.url(length)], dest)


@pytest.mark.parametrize("kind", ["link", "dangling", "hard", "pipe", "folder"])
@pytest.mark.parametrize("md5", [MD5, None])
def test_a_partial_file_that_is_not_a_regular_file_is_refused(
    kind: str, md5: str | None, mirror: Mirror, dest: Path, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    canary.write_bytes(CONTENT[:1000])
    part = begin(dest, b"")
    part.unlink()
    make: dict[str, Callable[[], object]] = {
        "link": lambda: part.symlink_to(canary),
        "dangling": lambda: part.symlink_to(tmp_path / "made"),
        "hard": lambda: part.hardlink_to(canary),
        "pipe": lambda: os.mkfifo(part),
        "folder": part.mkdir,
    }
    make[kind]()
    with pytest.raises(UsageError, match=r"file\.bin\.part is not a regular file.*: remove it"):
        fetch_quietly([mirror.url("good")], dest, md5=md5)
    assert canary.read_bytes() == CONTENT[:1000]
    assert not (tmp_path / "made").exists()
    assert not dest.exists()


def test_a_second_download_into_the_same_folder_is_refused(mirror: Mirror, dest: Path) -> None:
    part = begin(dest, CONTENT[:1000])
    lock = FolderLock(dest.parent)
    with pytest.raises(UsageError, match=f"another download into {dest.parent} is running: wait until it ends"):
        fetch_quietly([mirror.url("good")], dest)
    assert part.read_bytes() == CONTENT[:1000]
    assert mirror.ranges == []
    lock.release()
    assert fetch_quietly([mirror.url("good")], dest).read_bytes() == CONTENT
    lock = FolderLock(dest.parent)  # what is there already needs no lock
    assert fetch_quietly([mirror.url("good")], dest) == dest


def test_failure_gives_one_line_with_the_fix_and_notes_with_all_reasons(
    mirror: Mirror, dest: Path, tmp_path: Path
) -> None:
    closed = "http://127.0.0.1:9/nobody"
    absent = (tmp_path / "absent").as_uri()
    urls = [mirror.url(kind) for kind in ("missing", "refusing", "altered", "page")] + [closed, absent]
    cure = f"put file.bin (md5 {MD5}) into {dest.parent}/, or pass --data.url URL"
    with pytest.raises(ConnectionError) as info:
        fetch_quietly(urls, dest)
    message = str(info.value)
    assert message.startswith(f"file.bin could not be downloaded: {cure} [6 mirrors tried, the last: [Errno 2] ")
    assert "\n" not in message
    assert len(info.value.__notes__) == len(urls)
    for url, reason in zip(
        urls, ["HTTP 404", "HTTP 416", "wrong checksum (md5 ", "offers 26 bytes", "[Errno ", "[Errno 2]"], strict=True
    ):
        assert any(note.startswith(f"{url}: {reason}") for note in info.value.__notes__)
    assert visible(dest.parent) == []


def test_no_answer_suggests_that_there_is_no_network(mirror: Mirror, tmp_path: Path) -> None:
    closed = "http://127.0.0.1:9"
    with pytest.raises(ConnectionError) as info:
        download_cifar10(tmp_path / "data", url=f"{closed}/nobody")
    assert str(info.value).startswith(
        "CIFAR-10 could not be downloaded (no network?): put cifar-10-python.tar.gz (md5 "
        f"c58f30108f718f92721af3b95e74349a) into {tmp_path}/data/, or try --data SyntheticDataModule "
        "[1 address tried: [Errno "
    )
    with pytest.raises(ConnectionError, match=r"^file\.bin could not be downloaded: .* \[2 mirrors tried, the last: "):
        fetch_quietly([mirror.url("missing"), closed], tmp_path / "file.bin")


def test_a_mirror_that_always_breaks_off_leaves_the_partial_file(mirror: Mirror, dest: Path) -> None:
    with pytest.raises(ConnectionError, match="ended after 262,500 of 300,000 bytes"):
        fetch_quietly([mirror.url("breaking")], dest)
    assert mirror.ranges == [None, "bytes=150000-", "bytes=225000-"]
    assert dest.with_name("file.bin.part").read_bytes() == CONTENT[:262_500]
    assert not dest.exists()


def test_an_answer_without_length_stops_at_the_expected_size(mirror: Mirror, dest: Path) -> None:
    with pytest.raises(ConnectionError, match="wrong checksum"):
        fetch_quietly([mirror.url("endless")], dest, size=1000)
    assert visible(dest.parent) == []
    first = hashlib.md5(CONTENT[:1000]).hexdigest()
    assert fetch_quietly([mirror.url("endless")], dest, size=1000, md5=first).read_bytes() == CONTENT[:1000]
    dest.unlink()
    assert fetch_quietly([mirror.url("endless")], dest).read_bytes() == CONTENT


def test_an_existing_file_is_downloaded_again_only_if_it_is_wrong(mirror: Mirror, dest: Path) -> None:
    dest.parent.mkdir()
    dest.write_bytes(CONTENT)
    fetch_quietly([mirror.url("missing")], dest)
    assert mirror.ranges == []
    dest.write_bytes(b"wrong")
    with pytest.raises(ConnectionError, match="HTTP 404"):
        fetch_quietly([mirror.url("missing")], dest)
    assert dest.read_bytes() == b"wrong"
    assert fetch_quietly([mirror.url("good")], dest).read_bytes() == CONTENT


@pytest.mark.parametrize("urls", [[], ["ftp://127.0.0.1/a"], ["data:,a"], ["/a"], ["http://127.0.0.1/a", "b"]])
def test_other_addresses_are_refused(urls: list[str], dest: Path) -> None:
    with pytest.raises(ValueError, match="must start with http://, https:// or file://"):
        fetch_quietly(urls, dest)


def test_a_place_that_cannot_be_written_is_one_line(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "a_file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*a_file/data/cifar-10-python\.tar\.gz\.part: .*") as info:
        download_cifar10(tmp_path / "a_file" / "data", url=mirror.url("good"))
    assert "\n" not in str(info.value)
    assert mirror.ranges == []


def test_progress_goes_to_stderr_and_says_bytes(mirror: Mirror, dest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetch_quietly([mirror.url("good")], dest, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "file.bin" in err
    assert "300.0/300.0 kB" in err


def test_a_downloaded_archive_is_read(
    official: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "server").mkdir()
    archive = write_archive(tmp_path / "server", official_members(official))
    monkeypatch.setattr(sources, "ARCHIVE_MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(sources, "ARCHIVE_SIZE", archive.stat().st_size)
    monkeypatch.setattr(sources, "MIRRORS", ((tmp_path / "absent").as_uri(), archive.as_uri()))
    assert download_cifar10(tmp_path / "root") == tmp_path / "root" / sources.ARCHIVE
    np.testing.assert_array_equal(read_cifar10(tmp_path / "root", rows=ROWS).test_images, pixels()[5 * ROWS :])
    with pytest.raises(
        ConnectionError, match=r"^CIFAR-10 could .*: put cifar-10-python\.tar\.gz \(md5 .*\) into .*other/"
    ):
        download_cifar10(tmp_path / "other", url=(tmp_path / "absent").as_uri())


def test_importing_loads_neither_torch_nor_rich() -> None:
    code = """
import sys, types
import lightning_cifar
package = types.ModuleType("lightning_cifar.data")  # in place of the one that imports every DataModule
package.__path__ = [lightning_cifar.__path__[0] + "/data"]
sys.modules[package.__name__] = package
import lightning_cifar.data.sources
print({"torch", "lightning", "rich"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
