"""Which files belong to which class and split."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from lightning_cifar.data.image_tree import (
    LabelledFiles,
    check_class_names,
    check_root,
    find_class_names,
    find_parts,
    imagenet_classes,
    list_labelled,
    split_off,
)


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_classes_are_the_folders_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "dog/a.jpg", "cat/deep/er/b.PNG", "cat/a.jpeg", ".git/x.png", "cat/.thumbnail.png")
    assert find_class_names(tmp_path) == ("cat", "dog")
    assert find_parts(tmp_path) == {"train": tmp_path}
    files, labels = list_labelled(tmp_path, ("dog", "cat"))
    assert [path.relative_to(tmp_path).as_posix() for path in files] == ["dog/a.jpg", "cat/a.jpeg", "cat/deep/er/b.PNG"]
    assert labels == [0, 1, 1]


def test_folders_of_splits_count_where_train_has_classes(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/a.jpg", "test/cat/a.jpg", "notes/a.txt")
    assert find_parts(tmp_path) == {"train": tmp_path / "train", "test": tmp_path / "test"}
    vehicles = touch(tmp_path / "vehicles", "train/a.jpg", "plane/a.jpg")
    assert find_parts(vehicles) == {"train": vehicles}
    assert find_class_names(vehicles) == ("plane", "train")


def test_links_are_followed_and_never_for_ever(tmp_path: Path) -> None:
    touch(tmp_path, "else/a.jpg", "root/cat/b.jpg")
    (tmp_path / "root/dog").symlink_to(tmp_path / "else")
    (tmp_path / "root/dog/loop").symlink_to(tmp_path / "root/dog")
    assert list_labelled(tmp_path / "root", ("cat", "dog")).labels == [0, 1]


def test_what_is_no_image_is_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "cat/a.jpg", "cat/a.heic", "dog/a.jpg", "labels.csv", "README")
    assert list_labelled(tmp_path, ("cat", "dog")).labels == [0, 1]
    assert f"left out: 3 of the files in {tmp_path}" in caplog.text
    assert "(.csv, .heic, README)" in caplog.text


def test_a_missing_folder_names_the_fix(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere: pass --data.root"):
        check_root(tmp_path / "nowhere")
    touch(tmp_path, "a.jpg")
    with pytest.raises(NotADirectoryError, match=r"a.jpg is no folder: pass --data.root"):
        find_parts(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "there is no image in .*: put images .png, jpg"),
        (("notes.txt",), "there is no image in"),
        (("a.jpg", "b.jpg"), r"has images \(a.jpg, ...\) but no class folders: put them into one folder a class"),
        (("cat/a.jpg",), r"has the images of one class \(cat\): at least two class folders"),
    ],
)
def test_fewer_than_two_classes(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(ValueError, match=message):
        check_class_names(tmp_path, find_class_names(tmp_path))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("cat/a.jpg", "dog/"), r"the class folder .*dog holds no image: put images .* into it, or delete it"),
        (("cat/a.jpg", "dog/a.tif", "dog/b.heic"), r"dog holds no image \(only .heic, .tif\)"),
        (("cat/a.jpg", "dog/a.jpg", "fox/a.jpg"), r"fox is the folder of no class \(cat, dog\): rename it"),
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
