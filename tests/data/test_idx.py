"""idx files give the correct bytes or a one-line error; their download, from a local server."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import logging
import os
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torchvision

from lightning_cifar.data.idx import read_idx, read_labelled
from lightning_cifar.data.sources import FASHION_MNIST, MNIST, IdxFile, IdxSource, download_idx

NUM_TRAIN, NUM_TEST, SIZE = 7, 3, 4
CURE = "delete it and download again"


def idx_bytes(array: npt.NDArray[np.uint8]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def pixels(part: str) -> npt.NDArray[np.uint8]:
    """Return noise, which detects a wrong order of the axes."""
    count = NUM_TRAIN if part == "train" else NUM_TEST
    return np.random.default_rng(count).integers(0, 256, (count, SIZE, SIZE), dtype=np.uint8)


def labels(part: str) -> npt.NDArray[np.uint8]:
    return np.array([9, 0, 3, 4, 1, 1, 2] if part == "train" else [5, 9, 0], np.uint8)


def tiny_files() -> dict[str, bytes]:
    """Unpacked, by name."""
    return {
        "train-images-idx3-ubyte": idx_bytes(pixels("train")),
        "train-labels-idx1-ubyte": idx_bytes(labels("train")),
        "t10k-images-idx3-ubyte": idx_bytes(pixels("test")),
        "t10k-labels-idx1-ubyte": idx_bytes(labels("test")),
    }


def pack(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def tiny_source(*mirrors: str) -> IdxSource:
    """A source whose official files are the tiny ones."""
    files = [
        IdxFile(name, len(pack(content)), md5(pack(content)), md5(content)) for name, content in tiny_files().items()
    ]
    return IdxSource(
        "Tiny", mirrors, (files[0], files[1]), (files[2], files[3]), num_train=NUM_TRAIN, num_test=NUM_TEST, size=SIZE
    )


def write(root: Path, changed: dict[str, bytes] | None = None, *, packed: bool = False) -> Path:
    """Write the tiny files, some of them with other content."""
    folder = root / "Tiny" / "raw"
    folder.mkdir(parents=True)
    for name, content in (tiny_files() | (changed or {})).items():
        (folder / (f"{name}.gz" if packed else name)).write_bytes(pack(content) if packed else content)
    return folder


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("part", ["train", "test"])
def test_images_and_labels_are_read_unchanged(part: str, packed: bool, tmp_path: Path) -> None:
    write(tmp_path, packed=packed)
    found, numbers = read_labelled(tmp_path, tiny_source(), part)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, pixels(part)[..., None], strict=True)
    np.testing.assert_array_equal(numbers, labels(part).astype(np.int64), strict=True)
    assert found.flags.writeable  # torch warns otherwise


def test_a_pixel_is_at_its_row_and_column(tmp_path: Path) -> None:
    image = np.zeros((NUM_TRAIN, SIZE, SIZE), np.uint8)
    image[2, 1, 3] = 200
    write(tmp_path, {"train-images-idx3-ubyte": idx_bytes(image)})
    found, _ = read_labelled(tmp_path, tiny_source(), "train", verify=False)
    assert found[2, 1, 3, 0] == 200
    assert np.count_nonzero(found) == 1


def test_unpacked_files_have_priority(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(b"never read")
    _, found = read_labelled(tmp_path, tiny_source(), "train")
    assert found.tolist() == labels("train").tolist()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("layout", ["Tiny/raw", "Tiny", "raw", "."])
@pytest.mark.parametrize("names", ["official", "kaggle"])
def test_usual_folders_and_names_are_read(names: str, layout: str, packed: bool, tmp_path: Path) -> None:
    folder = tmp_path / layout
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in tiny_files().items():
        name = name if names == "official" else name.replace("-idx", ".idx")
        (folder / (f"{name}.gz" if packed else name)).write_bytes(pack(content) if packed else content)
    for part in ("train", "test"):
        found, numbers = read_labelled(tmp_path, tiny_source(), part)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found, pixels(part)[..., None])
        assert numbers.tolist() == labels(part).tolist()
    download_idx(tmp_path, tiny_source("http://127.0.0.1:9"))  # nothing is missing


def test_a_folder_around_each_file_is_read(tmp_path: Path) -> None:
    for name, content in tiny_files().items():
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(content)
    assert read_labelled(tmp_path, tiny_source(), "train")[1].tolist() == labels("train").tolist()


def test_a_missing_file_names_the_fix(tmp_path: Path) -> None:
    cure = f"pass --data.download true, or put train-images-idx3-ubyte.gz into {tmp_path}/Tiny/raw"
    with pytest.raises(FileNotFoundError, match=f"Tiny was not found in {tmp_path}: {cure}"):
        read_labelled(tmp_path, tiny_source(), "train")
    (write(tmp_path) / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"put train-labels-idx1-ubyte\.gz into"):
        read_labelled(tmp_path, tiny_source(), "train")
    read_labelled(tmp_path, tiny_source(), "test")


GOOD = idx_bytes(pixels("train"))
IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (IMAGES, b"", r"is not an idx file of images \(it begins with nothing instead of 00000803\)"),
        (IMAGES, b"<html>log in</html>", "it begins with 3c68746d"),
        (
            IMAGES,
            idx_bytes(labels("train")),
            r"is not an idx file of images \(it begins with 00000801 instead of 00000803\)",
        ),
        (LABELS, GOOD, r"is not an idx file of labels \(it begins with 00000803 instead of 00000801\)"),
        (IMAGES, b"\0\0\x0d\x03" + GOOD[4:], "it begins with 00000d03"),  # floats
        (IMAGES, GOOD[:9], "ends within its header"),
        (IMAGES, idx_bytes(pixels("train")[:6]), "contains 6 x 4 x 4 bytes instead of 7 x 4 x 4"),
        (IMAGES, idx_bytes(pixels("train")[:, :3]), "contains 7 x 3 x 4 bytes instead of 7 x 4 x 4"),
        (IMAGES, struct.pack(">4sIII", GOOD[:4], 2**32 - 1, 4, 4), "contains 4,294,967,295 x 4 x 4 bytes instead"),
        (IMAGES, GOOD[:-1], "has 127 bytes instead of 128"),
        (IMAGES, GOOD + b"\0", "has more bytes instead of 128"),
        (IMAGES, GOOD + bytes(10_000_000), "has more bytes"),
        (LABELS, idx_bytes(labels("train")[:6]), "contains 6 bytes instead of 7"),
        (LABELS, idx_bytes(np.array([9, 0, 3, 4, 1, 1, 10], np.uint8)), r"has the label 10, outside 0\.\.9"),
        (LABELS, idx_bytes(np.array([255, 0, 3, 4, 1, 1, 1], np.uint8)), r"has the label 255, outside 0\.\.9"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_contents_are_checked(packed: bool, name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    folder = write(tmp_path, {name: content}, packed=packed)
    path = folder / (f"{name}.gz" if packed else name)
    with pytest.raises(ValueError, match=f"{path} .*({reason}).*: {CURE}") as info:
        read_labelled(tmp_path, tiny_source(), "train", verify=False)
    assert "\n" not in str(info.value)


def test_every_truncated_packed_file_is_refused_in_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, packed=True) / f"{IMAGES}.gz"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"{path} (is damaged or truncated|is not an idx file).*: {CURE}"):
            read_labelled(tmp_path, tiny_source(), "train", verify=False)


@pytest.mark.parametrize("packed", [False, True])
def test_a_flipped_bit_gives_the_same_arrays_or_one_line(packed: bool, tmp_path: Path) -> None:
    name = f"{IMAGES}.gz" if packed else IMAGES
    path = write(tmp_path, packed=packed) / name
    whole = path.read_bytes()
    refusals = []
    for position in range(len(whole)):
        content = bytearray(whole)
        content[position] ^= 1 << position % 8
        path.write_bytes(content)
        try:
            found, _ = read_labelled(tmp_path, tiny_source(), "train")
        except ValueError as error:
            refusals.append(str(error))
        else:
            np.testing.assert_array_equal(found, pixels("train")[..., None])
    assert len(refusals) > 0.9 * len(whole)
    assert all(CURE in refusal and "\n" not in refusal for refusal in refusals)


def test_the_checksum_detects_an_altered_pixel_and_can_be_disabled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    altered = GOOD[:-1] + bytes([GOOD[-1] ^ 1])
    write(tmp_path, {IMAGES: altered})
    cure = f"{CURE}, or pass --data.verify false to read an unofficial copy"
    with pytest.raises(ValueError, match=f"{IMAGES} differs from the official file: {cure}"):
        read_labelled(tmp_path, tiny_source(), "train")
    with caplog.at_level(logging.WARNING):
        read_labelled(tmp_path, tiny_source(), "train", verify=False)
    (message,) = caplog.messages
    assert "unofficial copy, checksums not verified" in message


def test_a_decompression_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / f"{IMAGES}.gz"
    with path.open("wb") as file, gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1, mtime=0) as packed:
        packed.write(GOOD)
        for _ in range(200):
            packed.write(bytes(1_000_000))
    with pytest.raises(ValueError, match="has more"):
        read_idx(path, (NUM_TRAIN, SIZE, SIZE))


@pytest.mark.parametrize(
    ("ours", "theirs"), [(MNIST, torchvision.datasets.MNIST), (FASHION_MNIST, torchvision.datasets.FashionMNIST)]
)
def test_official_checksums_equal_those_of_torchvision(ours: IdxSource, theirs: type) -> None:
    assert [(f"{file.name}.gz", file.md5) for file in ours.files] == theirs.resources  # type: ignore[attr-defined]
    assert ours.name == theirs.__name__  # the name of the folder, too


@pytest.mark.real_data
@pytest.mark.skipif("LIGHTNING_CIFAR_DATA" not in os.environ, reason="LIGHTNING_CIFAR_DATA names no real data")
@pytest.mark.parametrize(("source", "mean"), [(MNIST, 0.1307), (FASHION_MNIST, 0.2860)])
def test_the_real_data(source: IdxSource, mean: float) -> None:
    root = Path(os.environ["LIGHTNING_CIFAR_DATA"])
    images, numbers = read_labelled(root, source, "train")
    assert images.shape == (60_000, 28, 28, 1)
    assert len(np.unique(numbers)) == 10
    assert images.mean() / 255 == pytest.approx(mean, abs=1e-4)
    assert read_labelled(root, source, "test")[0].shape == (10_000, 28, 28, 1)


# ---------------------------------------------------------------- downloading


class Handler(http.server.SimpleHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Address of the folder on the loopback, and the paths that were asked for."""
    asked: list[str] = []
    handler: Callable[..., Handler] = functools.partial(
        type("Asked", (Handler,), {"asked": asked}), directory=str(folder)
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_downloaded_files_are_read(tmp_path: Path) -> None:
    with serve(write(tmp_path / "there", packed=True)) as (address, asked):
        root = tmp_path / "here"
        download_idx(root, tiny_source(address))
        assert asked == [f"/{name}.gz" for name in tiny_files()]
        np.testing.assert_array_equal(read_labelled(root, tiny_source(), "test")[0], pixels("test")[..., None])
        download_idx(root, tiny_source(address))
        assert len(asked) == 4  # nothing is fetched twice
        names = {path.name for path in (root / "Tiny/raw").iterdir()}
        assert names - {".lock"} == {f"{name}.gz" for name in tiny_files()}


def test_only_missing_files_are_downloaded(tmp_path: Path) -> None:
    folder = write(tmp_path / "here")  # unpacked
    (folder / LABELS).unlink()
    write(tmp_path / "there", packed=True)
    with serve(tmp_path / "there") as (address, asked):
        download_idx(tmp_path / "here", tiny_source(), url=f"{address}/Tiny/raw/")
    assert asked == [f"/Tiny/raw/{LABELS}.gz"]
    np.testing.assert_array_equal(read_labelled(tmp_path / "here", tiny_source(), "train")[1], labels("train"))


def test_the_next_mirror_replaces_an_altered_copy(tmp_path: Path) -> None:
    bad = write(tmp_path / "bad", {LABELS: idx_bytes(labels("train")[::-1])}, packed=True)
    good = write(tmp_path / "good", packed=True)
    with serve(bad) as (first, _), serve(good) as (second, asked):
        download_idx(tmp_path / "here", tiny_source(first, second))
    assert asked == [f"/{LABELS}.gz"]
    np.testing.assert_array_equal(read_labelled(tmp_path / "here", tiny_source(), "train")[1], labels("train"))


def test_no_working_mirror_gives_one_line_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    files = rf"{IMAGES}\.gz \(md5 \w+\) and {LABELS}\.gz, .*\.gz"
    cure = rf"put {files} into {tmp_path}/here/Tiny/raw/, or try --data SyntheticDataModule"
    with (
        serve(tmp_path / "empty") as (address, _),
        pytest.raises(ConnectionError, match=rf"^Tiny could not be downloaded: {cure} \[.*HTTP 404\]") as info,
    ):
        download_idx(tmp_path / "here", tiny_source(address))
    assert "\n" not in str(info.value)
