"""Received files are read as data of a known format and size, and links never lead a write outside."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

import numpy as np
import pytest

from lightning_cifar.errors import UsageError
from lightning_cifar.files.atomic import write_atomically
from lightning_cifar.files.links import inside, open_own, refuse_links, remove_tree
from lightning_cifar.files.lock import FolderLock
from lightning_cifar.files.reading import (
    BrokenFileError,
    MissingFileError,
    UnreadableFileError,
    parse_yaml,
    read_bytes,
    read_json,
    read_npz,
    read_text,
)


class Record(TypedDict):
    state: Literal["done", "failed"]
    metrics: NotRequired[dict[str, float | None]]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read_yaml(path: Path) -> object:
    return parse_yaml(path, read_text(path))


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "large", "link"])
@pytest.mark.parametrize("read", [read_bytes, read_text, read_yaml, read_npz, lambda path: read_json(path, Record)])
def test_only_regular_files_of_limited_size_are_read(tmp_path: Path, kind: str, read: Callable[[Path], object]) -> None:
    path = tmp_path / "file"
    {
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "folder": path.mkdir,
        "large": lambda: path.touch() or os.truncate(path, 1 << 40),
        "link": lambda: path.symlink_to(write(tmp_path / "other", "{}")),
    }[kind]()
    with pytest.raises(UnreadableFileError, match=r"file cannot be read: it is [^\n]*\.$"):
        read(path)
    with pytest.raises(MissingFileError, match=r"the file .* does not exist"):
        read(tmp_path / "nothing")


def test_a_link_named_by_the_user_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(write(tmp_path / "other", "text"))
    assert read_text(tmp_path / "link", follow=True) == "text"
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(UnreadableFileError, match="not a regular file"):
        read_bytes(tmp_path / "zero", limit=None, follow=True)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("", BrokenFileError, "it is empty"),
        ('{"state"', BrokenFileError, "not valid JSON"),
        (b"\xff{}", BrokenFileError, "byte 0 is not UTF-8"),
        ('{"state": ' + "9" * 5000 + "}", BrokenFileError, "the number 9+... is too long"),
        ("[" * 100_000, UnreadableFileError, "nested too deeply"),
        ('{"state": "done", "x": ' + "[" * 200 + "]" * 200 + "}", UnreadableFileError, "nested too deeply"),
        ("[]", UnreadableFileError, "the content must be an object with keys"),
        ("{}", UnreadableFileError, "the key state is missing"),
        ('{"state": 1}', UnreadableFileError, r"state \(=1\) must be one of done, failed"),
        ('{"state": true}', UnreadableFileError, r"state \(=True\) must be one of done, failed"),
        ('{"state": "done", "metrics": []}', UnreadableFileError, r"metrics \(=\[\]\) must be an object with keys"),
        (
            '{"state": "done", "metrics": {"a": "b"}}',
            UnreadableFileError,
            r"metrics\.a \(='b'\) must be a number or null",
        ),
        (
            f'{{"state": "done", "metrics": {{"a": {2**63}}}}}',
            UnreadableFileError,
            r"metrics\.a \(=\d+\) must be a number",
        ),
        ('{"state": "done", "metrics": {"a": true}}', UnreadableFileError, r"metrics\.a \(=True\) must be a number"),
    ],
)
def test_json_of_another_shape(tmp_path: Path, content: str | bytes, error: type[UsageError], message: str) -> None:
    path = write(tmp_path / "a.json", content)
    with pytest.raises(error, match=rf"a\.json.*{message}") as caught:
        read_json(path, Record)
    assert type(caught.value) is error


def test_json_of_the_shape(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.json",
        '{"state": "done", "metrics": {"a": 9223372036854775807, "b": null, "c": NaN}, "more": [1]}',
    )
    held = read_json(path, Record)
    assert held["metrics"]["a"] == 2**63 - 1
    assert "more" in held


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "(nested too deeply|nesting depth)"),  # PyYAML has a limit of its own from 6.0.4 on
        ("- " * 100_000, "nested too deeply"),
        ("x: &x [*x]", "more than 1,000,000 values"),
        ("a: &a [" + "0," * 2000 + "]\nb: [" + "*a," * 2000 + "]", "more than 1,000,000 values"),
        ("x: !!python/object/apply:os.system [true]", "the tag .* is refused"),
        ("x: " + "1:" * 100_000 + "1", "is too long"),
        ("x: 2026-13-45", "not valid YAML: month"),
        ("x: [", "not valid YAML"),
        (b"x: \0", "not valid YAML"),
    ],
)
def test_hostile_yaml(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(UnreadableFileError, match=rf"a\.yaml.*{message}"):
        read_yaml(write(tmp_path / "a.yaml", content))


def test_plain_yaml(tmp_path: Path) -> None:
    text = "a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\nd: " + "f" * 1000 + "\n"
    held = read_yaml(write(tmp_path / "a.yaml", text))
    assert held == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}, "d": "f" * 1000}


def test_every_damaged_byte_of_an_array_file_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    values = np.arange(20.0)
    np.savez(path, values=values)
    good = path.read_bytes()
    for place in range(len(good)):
        write(path, good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        try:
            held = read_npz(path)
        except UnreadableFileError:
            continue
        assert "values" not in held or np.array_equal(held["values"], values)
    np.savez(path, values=np.array([{}], dtype=object))
    with pytest.raises(UnreadableFileError, match=r"a\.npz is damaged: it contains Python objects"):
        read_npz(path)


@pytest.mark.parametrize("kind", ["link", "hard link", "part"])
def test_a_written_file_replaces_links(tmp_path: Path, kind: str) -> None:
    outside, path = write(tmp_path / "outside", "precious"), tmp_path / "file"
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "hard link":
        path.hardlink_to(outside)
    else:
        (tmp_path / f".file.{os.getpid()}.part").symlink_to(outside)
    write_atomically(path, b"new")
    assert (path.read_bytes(), outside.read_bytes(), path.is_symlink()) == (b"new", b"precious", False)


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_a_lock_must_be_a_regular_file(tmp_path: Path, kind: str) -> None:
    outside, path = write(tmp_path / "outside", "precious"), tmp_path / ".lock"
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "hard link":
        path.hardlink_to(outside)
    else:
        os.mkfifo(path)
    with pytest.raises(UsageError, match=r"\.lock is not a regular file"):
        FolderLock(tmp_path)
    with pytest.raises(UsageError, match=r"\.lock is not a regular file"):
        open_own(path, os.O_WRONLY | os.O_APPEND)
    assert outside.read_text() == "precious"


def test_links_out_of_a_folder_are_refused(tmp_path: Path) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    (folder / "sub").mkdir(parents=True)
    outside.mkdir()
    write(outside / "file", "precious")
    (folder / "stays").symlink_to("sub")
    refuse_links(folder)
    assert inside(folder, "stays/new") == folder / "stays/new"
    (folder / "sub/link").symlink_to(outside)
    with pytest.raises(UsageError, match="sub/link is a symbolic link that points outside"):
        refuse_links(folder)
    for relative in ("sub/link", "sub/link/new", "../outside", str(outside)):
        with pytest.raises(UsageError, match="points outside"):
            inside(folder, relative)
    for path in (folder / "stays", folder / "sub/link", folder / "sub/.."):
        with pytest.raises(UsageError, match="is not removed"):
            remove_tree(path, inside=folder)
    remove_tree(folder / "sub", inside=folder)
    assert not (folder / "sub").exists()
    assert (outside / "file").read_text() == "precious"
    (folder / "hard").hardlink_to(outside / "file")
    with pytest.raises(UsageError, match="hard has 2 hard links"):
        refuse_links(folder)
    (folder / "hard").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(UsageError, match="pipe is neither a regular file nor a folder"):
        refuse_links(folder)
