"""Assignment of files to classes and splits."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest

from lightning_cifar.data.image_tree import (
    LabelledFiles,
    check_class_names,
    check_root,
    find_class_names,
    imagenet_classes,
    list_labelled,
    split_off,
)
from lightning_cifar.data.split_folders import find_parts


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_classes_are_the_folders_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "dog/a.jpg", "cat/deep/er/b.PNG", "cat/a.jpeg", ".git/x.png", "cat/.thumbnail.png")
    assert find_class_names(tmp_path) == ("cat", "dog")
    assert find_parts(tmp_path) == ({"train": tmp_path}, [])
    files, labels = list_labelled(tmp_path, ("dog", "cat"))
    assert [path.relative_to(tmp_path).as_posix() for path in files] == ["dog/a.jpg", "cat/a.jpeg", "cat/deep/er/b.PNG"]
    assert labels == [0, 1, 1]


SPLITS = ("train", "val", "test")


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Train", "VAL", "Test"),
        ("training", "validation", "testing"),
        ("TRAINING", "Valid", "TEST"),
        ("train_set", "valid set", "test-set"),
        ("trainset", "dev", "TestImages"),
        ("train_data", "val.images", "test data"),
        ("seg_train", "seg_val", "seg_test"),
        ("train-224", "validation-224", "test-224"),
        ("train",),
        ("training", "val"),
        ("Train", None, "test"),
        (None, "valid", "testing"),
        (None, None, "Test"),
    ],
)
def test_usual_names_of_splits(tmp_path: Path, names: tuple[str | None, ...]) -> None:
    expected = {split: tmp_path / name for split, name in zip(SPLITS, names, strict=False) if name}
    for folder in expected.values():
        touch(folder, "cat/a.jpg", "dog/a.jpg")
    touch(tmp_path, "notes/a.txt", "@eaDir/cat/a.jpg", "__MACOSX/train/cat/a.jpg", "__MACOSX/test/cat/a.jpg")
    assert find_parts(tmp_path) == (expected, [])


def test_folders_beside_two_splits_are_named_and_not_used(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/a.jpg", "test/cat/a.jpg", "images to test/a.jpg", "notes/a.txt")
    folders = {"train": tmp_path / "train", "test": tmp_path / "test"}
    assert find_parts(tmp_path) == (folders, [tmp_path / "images to test"])


@pytest.mark.parametrize(
    "names",
    [
        ("train/a.jpg", "plane/a.jpg"),
        ("model train/a.jpg", "steam train/deep/a.jpg", "test pattern/a.jpg"),
        ("trains/a.jpg", "tests/a.jpg", "validated/a.jpg", "developer/a.jpg", "contest/a.jpg"),
    ],
)
def test_classes_may_be_named_like_splits(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert find_parts(touch(tmp_path, *names)) == ({"train": tmp_path}, [])
    assert find_class_names(tmp_path) == tuple(sorted(name.split("/")[0] for name in names))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("train/cat/a.jpg", "val/cat/a.jpg", "valid/cat/a.jpg"),
            "val, valid in .* are both val images: keep one",
        ),
        (("Train/cat/a.jpg", "train/cat/a.jpg"), "Train, train in .* are both train images"),
        (("training/", "train/cat/a.jpg"), "train, training in .* are both train images"),
        (("train/steam/a.jpg", "plane/a.jpg"), r"splits \(train\) and of classes \(plane\): move one of the two kinds"),
        (("test/cat/a.jpg", "cat/a.jpg", "dog/a.jpg"), r"splits \(test\) and of classes \(cat, dog\)"),
        (("train/cat/a.jpg", "test/cat/a.jpg", "cat/a.jpg"), r"splits \(train, test\) and of classes \(cat\)"),
        (("cat/train/a.jpg", "cat/test/a.jpg", "dog/train/a.jpg"), r"cat contains folders of splits \(train, test\)"),
        (
            ("archive/train/cat/a.jpg", "archive/val/cat/a.jpg"),
            r"pass --data.root .*/archive, or, if archive is a class",
        ),
    ],
)
def test_ambiguous_folders_are_refused(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    for name in names:
        if name.endswith("/"):
            (tmp_path / name).mkdir()
        else:
            touch(tmp_path, name)
    with pytest.raises(ValueError, match=message):
        find_parts(tmp_path)


def test_names_of_classes_are_composed_and_printable(tmp_path: Path) -> None:
    names = ["Cafe\N{COMBINING ACUTE ACCENT}", "a\nb", "a\x1b[1m", "caf\udce9", "a\x85b", "a\u2028b", "犬"]
    for name in names:
        touch(tmp_path / name, "a.jpg")
    found = find_class_names(tmp_path)
    assert found == ("Café", r"a\u2028b", r"a\x0ab", r"a\x1b[1m", r"a\x85b", r"caf\xe9", "犬")
    assert list_labelled(tmp_path, found).labels == list(range(len(names)))
    touch(tmp_path / "Café", "a.jpg")
    with pytest.raises(ValueError, match="has two folders displayed as Café: rename one"):
        find_class_names(tmp_path)


def test_links_are_followed_but_not_in_cycles(tmp_path: Path) -> None:
    touch(tmp_path, "else/a.jpg", "root/cat/b.jpg")
    (tmp_path / "root/dog").symlink_to(tmp_path / "else")
    (tmp_path / "root/dog/loop").symlink_to(tmp_path / "root/dog")
    assert list_labelled(tmp_path / "root", ("cat", "dog")).labels == [0, 1]


def test_other_files_are_left_out_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "cat/a.jpg", "cat/a.heic", "dog/a.jpg", "labels.csv", "README")
    assert list_labelled(tmp_path, ("cat", "dog")).labels == [0, 1]
    assert f"left out: 3 files in {tmp_path}" in caplog.text
    assert "(.csv, .heic, README)" in caplog.text


def test_hidden_and_system_files_are_skipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    thumbnails = [f"cat/@eaDir/{name}.jpg/SYNOPHOTO_THUMB_M.jpg" for name in "abc"]
    touch(tmp_path, "cat/a.jpg", "dog/a.jpg", *thumbnails, "dog/Thumbs.db", "@eaDir/a.jpg", "__MACOSX/cat/._a.jpg")
    with caplog.at_level(logging.INFO):
        files = list_labelled(tmp_path, find_class_names(tmp_path))
    assert [path.relative_to(tmp_path).as_posix() for path in files.files] == ["cat/a.jpg", "dog/a.jpg"]
    assert f"skipped 6 hidden and system files in {tmp_path} (@eaDir, Thumbs.db, __MACOSX)" in caplog.text


def test_a_missing_folder_names_the_fix(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the folder .*nowhere does not exist: pass --data.root"):
        check_root(tmp_path / "nowhere")
    touch(tmp_path, "a.jpg")
    with pytest.raises(NotADirectoryError, match=r"a.jpg is not a folder: pass --data.root"):
        check_root(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "contains no images: add images .png, jpg"),
        (("notes.txt",), "contains no images"),
        (
            ("a.jpg", "b.jpg"),
            r"has images \(a.jpg, ...\) but no class folders: put them into one folder for each class",
        ),
        (("cat/a.jpg",), r"has only one class folder \(cat\): add at least one more"),
    ],
)
def test_fewer_than_two_classes(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(ValueError, match=message):
        check_class_names(tmp_path, find_class_names(tmp_path))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("cat/a.jpg", "dog/"), r"the class folder .*dog contains no images: add images .*, or delete it"),
        (("cat/a.jpg", "dog/a.tif", "dog/b.heic"), r"dog contains no images \(only .heic, .tif\)"),
        (("cat/a.jpg", "dog/a.jpg", "fox/a.jpg"), r"fox is not the folder of a class \(cat, dog\): rename it"),
    ],
)
def test_folders_that_cannot_be_classes(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    for name in names:
        if name.endswith("/"):
            (tmp_path / name).mkdir()
        else:
            touch(tmp_path, name)
    with pytest.raises(ValueError, match=message):
        list_labelled(tmp_path, ("cat", "dog"))


def test_every_split_has_its_share_of_every_class() -> None:
    labels = [0] * 40 + [1] * 20 + [2] * 2
    whole = LabelledFiles([Path(str(i)) for i in range(len(labels))], labels)
    files = split_off(whole, 3, val=0.25, test=0.1, seed=0)
    assert Counter(files["val"].labels) == {0: 10, 1: 5, 2: 1}
    assert Counter(files["test"].labels) == {0: 4, 1: 2}
    together = [pair for split in files.values() for pair in zip(*split, strict=True)]
    assert sorted(together) == sorted(zip(*whole, strict=True)), "each file once, with its label"
    assert split_off(whole, 3, val=0.25, test=0.1, seed=0) == files
    assert split_off(whole, 3, val=0.25, test=0.1, seed=1)["val"] != files["val"]
    everything = split_off(whole, 3, val=0.5, test=0.5, seed=0)
    assert not everything["train"].files
    assert split_off(whole, 3, val=0, test=0, seed=0)["train"] == whole


def test_the_thousand_classes() -> None:
    names = imagenet_classes()
    assert len(names) == 1000
    assert (names[1], names[285], names[963]) == ("goldfish", "Egyptian cat", "pizza")
