"""An image folder as training, validation and test set, and for predictions."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_cifar.data import ImageFolderDataModule
from lightning_cifar.data.batches import BatchLoader

CLASSES = ("cat", "dog")


def fill(folder: Path, count: int, level: int) -> None:
    """Write images whose red channel is the class and whose green channel is their number."""
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", (12 + i, 10), (level, i, i)).save(folder / f"{i:02d}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for level, name in enumerate(CLASSES):
        fill(tmp_path / "images" / name, 10, 100 * level)
    return tmp_path / "images"


def make(root: Path, **kwargs: Any) -> ImageFolderDataModule:
    defaults = {"image_size": 8, "batch_size": 4, "seed": 0, "augment": [], "mean": [0] * 3, "std": [1 / 255] * 3}
    return ImageFolderDataModule(root, **(defaults | kwargs))  # normalised images are the levels themselves


def content(loader: Any) -> list[tuple[int, int, int]]:
    """Red, green and label of each sample."""
    rows = [(*image[:2, 0, 0].round().int().tolist(), int(y)) for x, labels in loader for image, y in zip(x, labels)]  # noqa: B905
    return sorted(rows)


def test_splits_are_disjoint_complete_and_correctly_labelled(root: Path) -> None:
    data = make(root)
    splits = [content(loader()) for loader in (data.train_dataloader, data.val_dataloader, data.test_dataloader)]
    assert [len(split) for split in splits] == [12, 4, 4]
    assert sorted(row for split in splits for row in split) == [
        (100 * label, i, label) for label in (0, 1) for i in range(10)
    ]
    for split in splits:
        counts = Counter(label for *_, label in split)
        assert counts[0] == counts[1], "each split has its share of each class"
    assert data.num_val == 4
    assert (data.class_names, data.num_classes) == (CLASSES, 2)
    again = make(root, split_seed=1)
    assert content(again.val_dataloader()) != splits[1]
    assert content(make(root, seed=5).val_dataloader()) == splits[1]
    some = make(root, num_train=5)
    assert set(content(some.train_dataloader())) < set(splits[0])
    assert content(some.val_dataloader()) == splits[1]


def test_only_what_a_stage_needs_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    load = ImageFolderDataModule.load
    monkeypatch.setattr(ImageFolderDataModule, "load", lambda self, part: read.append(part) or load(self, part))  # type: ignore[func-returns-value]
    data = make(root)
    for stage in ("predict", "validate", "test", "fit", "fit", None):
        data.setup(stage)
    assert read == ["val", "test", "train"]


def test_existing_split_folders_are_used(tmp_path: Path) -> None:
    for split, count in (("train", 6), ("val", 3), ("test", 2)):
        for level, name in enumerate(CLASSES):
            fill(tmp_path / split / name, count, 100 * level)
    data = make(tmp_path, val_share=0, test_share=0)
    assert data.num_val > 0, "asked for before the files are looked at"
    loaders = (data.train_dataloader, data.val_dataloader, data.test_dataloader)
    assert [len(content(loader())) for loader in loaders] == [12, 6, 4]
    for name in CLASSES:
        for path in (tmp_path / "val" / name).iterdir():
            path.unlink()
        (tmp_path / "val" / name).rmdir()
    (tmp_path / "val").rmdir()
    data = make(tmp_path, val_share=0.5)  # split off train, as it is missing now
    assert [len(content(loader())) for loader in (data.train_dataloader, data.val_dataloader)] == [6, 6]
    assert len(content(data.test_dataloader())) == 4


def test_sources_of_the_splits_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split, count in (("Training", 6), ("valid", 3), ("@eaDir", 2)):
        for level, name in enumerate(CLASSES):
            fill(tmp_path / split / name, count, 100 * level)
    data = make(tmp_path, test_share=0.5)
    with caplog.at_level(logging.INFO):
        data.setup("fit")
    sources = "train 6 (folder Training), val 6 (folder valid), test 6 (50 % of each class)"
    assert f"images in {tmp_path}: {sources}" in caplog.text
    assert f"skipped 4 hidden and system files in {tmp_path} (@eaDir)" in caplog.text
    assert [len(content(loader())) for loader in (data.train_dataloader, data.val_dataloader)] == [6, 6]
    assert data.class_names == CLASSES


@pytest.mark.parametrize("split", ["val", "Test"])
def test_an_empty_folder_of_a_split_is_named(tmp_path: Path, split: str) -> None:
    fill(tmp_path / "train/cat", 4, 0)
    fill(tmp_path / "train/dog", 4, 100)
    (tmp_path / split).mkdir()
    stage = "fit" if split == "val" else "test"
    with pytest.raises(
        ValueError, match=f"{split} has no images in class folders: add class .*, or delete it to split"
    ):
        make(tmp_path, val_share=0.25, test_share=0.25).setup(stage)
    (tmp_path / split).rmdir()
    make(tmp_path, val_share=0.25, test_share=0.25).setup(stage)


def test_without_a_training_folder_a_checkpoint_names_the_classes(tmp_path: Path) -> None:
    for level, name in enumerate(CLASSES):
        fill(tmp_path / "testing" / name, 3, 100 * level)
    data = make(tmp_path, class_names=list(CLASSES))
    data.setup("test")
    assert len(content(data.test_dataloader())) == 6
    with pytest.raises(ValueError, match="has testing but no folder train: add one, or rename one"):
        make(tmp_path).setup("test")


def test_one_class_name_in_two_unicode_forms_is_one_class(tmp_path: Path) -> None:
    composed, decomposed = "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"
    for split, name, count in (("train", composed, 4), ("val", decomposed, 3), ("test", decomposed, 2)):
        fill(tmp_path / split / name, count, 0)
        fill(tmp_path / split / "tea", count, 100)
    data = make(tmp_path)
    loaders = (data.train_dataloader, data.val_dataloader, data.test_dataloader)
    assert [[label for *_, label in content(loader())] for loader in loaders] == [
        [label for label in (0, 1) for _ in range(count)] for count in (4, 3, 2)
    ]
    assert data.class_names == (composed, "tea")
    make(tmp_path).load_state_dict({**data.state_dict(), "class_names": [decomposed, "tea"]})
    given = make(tmp_path, class_names=[decomposed, "tea"])
    given.setup("test")
    assert len(content(given.test_dataloader())) == 4


def test_files_with_the_same_content_in_two_splits_are_reported(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(root).setup("fit")
    assert "same content" not in caplog.text
    files = {split: each.files for split, each in make(root)._split().items()}
    original, copy = files["train"][0], files["val"][0]
    copy.write_bytes(original.read_bytes())
    make(root).setup("fit")
    pair = f"{copy.relative_to(root).as_posix()} = {original.relative_to(root).as_posix()}"
    assert f"1 images have the same content as images of another split ({pair})" in caplog.text


def test_loader_and_augmentations_are_the_same_as_for_cifar10(root: Path) -> None:
    data = make(root, augment=["flip", {"crop": 2}], batch_size=5)
    loader = data.train_dataloader()
    assert isinstance(loader, BatchLoader)
    images, labels = next(iter(loader))
    assert (images.shape, images.dtype, labels.dtype) == ((5, 3, 8, 8), torch.float32, torch.int64)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert data._arrays["train"].images.dtype == np.uint8


def test_pixel_formats_give_the_same_image(root: Path) -> None:
    grey = Image.new("L", (30, 40), 120)
    deep = Image.fromarray(np.full((40, 30), 120 * 257, np.uint16))
    clear = Image.new("RGBA", (30, 40), (120, 120, 120, 255))
    kinds = {"grey": grey, "deep": deep, "alpha": clear, "palette": grey.convert("P"), "colour": grey.convert("RGB")}
    for name, image in kinds.items():
        image.save(root / "cat" / f"{name}.png")
    grey.convert("CMYK").save(root / "cat/cmyk.jpg", quality=100)
    turned = Image.Exif()
    turned[0x0112] = 6
    grey.convert("RGB").save(root / "cat/turned.jpg", exif=turned, quality=100)
    Image.new("RGB", (4000, 2500), (120, 120, 120)).save(root / "cat/large.png")
    data = make(root, val_share=0, test_share=0)
    data.setup("fit")
    images = data._arrays["train"].images
    assert images.shape == (28, 8, 8, 3)
    special = [image for image in images.astype(int) if abs(image - 120).max() <= 4]
    assert len(special) == 8
    one = make(root, in_channels=1, mean=[0], std=[1], val_share=0, test_share=0)
    assert next(iter(one.train_dataloader()))[0].shape == (4, 1, 8, 8)


def test_images_are_cropped_or_squashed(tmp_path: Path) -> None:
    for name in CLASSES:
        (tmp_path / name).mkdir()
        image = Image.new("RGB", (30, 10), "blue")
        image.paste("red", (10, 0, 20, 10))
        image.save(tmp_path / name / "a.png")
    for resize, left in (("crop", [255, 0, 0]), ("squash", [0, 0, 255])):
        data = make(tmp_path, resize=resize, val_share=0, test_share=0)
        data.setup("fit")
        assert data._arrays["train"].images[0, 4, 0].tolist() == left


def test_statistics_of_imagenet_or_of_the_training_images(root: Path) -> None:
    plain = make(root, mean=None, std=None)
    assert plain.mean == (0.485, 0.456, 0.406)
    own = make(root, mean=None, std=None, statistics="own", in_channels=1, test_share=0)
    images = own._arrays
    own.setup("validate")
    assert "train" not in images, "not needed before a loader is"
    own.val_dataloader()
    train = images["train"].images / 255
    assert own.mean == pytest.approx([train.mean()])
    assert own.std == pytest.approx([train.std()])
    values = torch.cat([x for x, _ in own.train_dataloader()])
    assert float(values.mean()) == pytest.approx(0, abs=1e-5)
    assert float(values.std(correction=0)) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match=r"statistics \(=own\) need training images, .* --ckpt_path"):
        make(root, mean=None, statistics="own").predict_dataloader()


def test_predict_reads_all_files_flat_or_nested(root: Path) -> None:
    Image.new("RGB", (9, 9)).save(root / "loose.jpg")
    data = make(root, eval_batch_size=8, class_names=None)
    data.setup("predict")
    assert len(data.file_names) == 21
    assert data.file_names[:2] == ["cat/00.png", "cat/01.png"]
    batches = list(data.predict_dataloader())
    assert [len(numbers) for _, numbers in batches] == [8, 8, 5]
    for images, numbers in batches:
        for image, number in zip(images, numbers.tolist(), strict=True):
            name = data.file_names[number]
            level = 100.0 * name.startswith("dog")
            assert image[0].mean() == pytest.approx(level)
    assert not hasattr(data, "num_classes")
    assert str(data).startswith("ImageFolderDataModule(")


def test_a_folder_of_loose_images_can_be_predicted_but_not_trained_on(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg")
    data = make(tmp_path)
    data.setup("predict")
    assert (data.class_names, data.file_names) == ((), ["a.jpg"])
    for attempt in (lambda: data.setup("fit"), lambda: data.num_classes):
        with pytest.raises(ValueError, match="but no class folders: put them into one folder for each class"):
            attempt()


def test_given_classes_define_the_labels(root: Path) -> None:
    data = make(root, class_names=["fox", "dog", "cat"], test_share=1, val_share=0)
    data.setup("test")
    assert set(content(data.test_dataloader())) == {(100, i, 1) for i in range(10)} | {(0, i, 2) for i in range(10)}
    with pytest.raises(ValueError, match=r"the class fox in .* has no training images: add some"):
        make(root, class_names=["fox", "dog", "cat"]).setup("fit")
    with pytest.raises(ValueError, match=r"cat is not the folder of a class \(dog, fox\)"):
        make(root, class_names=["dog", "fox"]).setup("fit")
    assert make(root, class_names="imagenet").num_classes == 1000


def test_a_checkpoint_restores_classes_and_statistics(root: Path, tmp_path: Path) -> None:
    data = make(root, mean=None, std=None, statistics="own")
    data.setup("fit")
    state = data.state_dict()
    gone = make(tmp_path / "gone", mean=None, std=None, statistics="own")
    gone.load_state_dict(state)
    assert (gone.class_names, gone.num_classes, gone.mean, gone.std) == (CLASSES, 2, data.mean, data.std)
    (root / "cat").rename(root / "zebra")
    other = make(root)
    assert other.num_classes == 2
    with pytest.raises(ValueError, match=r"has 2 classes \(dog, zebra\), but .* with 2 classes \(cat, dog\)"):
        other.load_state_dict(state)


def test_damaged_files_are_refused_or_left_out(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = (root / "cat/03.png").read_bytes()
    (root / "cat/03.png").write_bytes(whole[:50])
    (root / "dog/x.jpg").write_bytes(b"hello")
    everything = {"val_share": 0, "test_share": 0}
    with pytest.raises(
        ValueError, match=r"2 of 21 files in .* cannot be read, cat/03.png \(damaged.*dog/x.jpg \(not an im"
    ):
        make(root, **everything).setup("fit")
    data = make(root, damaged="skip", **everything)
    assert len(content(data.train_dataloader())) == 19
    assert {line.split(" ")[2] for line in caplog.messages if line.startswith("left out")} == {
        "cat/03.png",
        "dog/x.jpg",
    }
    for path in (root / "cat").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"the class cat in .* has no training images"):
        make(root, damaged="skip", **everything).setup("fit")
    for path in (root / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 21 files in .* is an image: 00.png"):
        make(root, damaged="skip").setup("predict")


def test_damaged_files_of_all_splits_are_reported_together(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_cifar.data.decoding._PORTION", 3)
    data = make(root)
    files = {split: each.files for split, each in data._split().items()}
    whole = files["train"][0].read_bytes()
    for split in files:
        files[split][-1].write_bytes(b"hello")
    total = sum(map(len, files.values()))
    with pytest.raises(ValueError, match=f"^3 of {total} files in ") as info:
        data.setup("fit")
    for split in files:
        assert files[split][-1].relative_to(root).as_posix() in str(info.value)
    with pytest.raises(ValueError, match=f"^3 of {total} files in "):
        make(root).setup("test")
    for split in ("train", "val"):
        files[split][-1].write_bytes(whole)
    make(root).setup("fit")  # which needs no test image


def test_an_image_that_is_too_large_is_reported(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    with pytest.raises(ValueError, match=r"cannot be read, cat/04.png \(it has more than 0 million pixels: reduce"):
        make(root, val_share=0, test_share=0).setup("fit")


def test_images_that_do_not_fit_into_memory_are_refused(root: Path) -> None:
    needed = (12 * 3 + 4) * 8 * 8 * 3 / 1e9  # mirrored and padded copies of the training images
    make(root, augment=["flip"], max_memory=1.01 * needed).setup("fit")
    with pytest.raises(
        ValueError, match=r"16 images of 8 x 8 pixels need 1 MB, more than max_memory, .* smaller --data"
    ):
        make(root, augment=["flip"], max_memory=0.99 * needed).setup("fit")
    make(root, augment=["flip"], max_memory=0.99 * needed).setup("predict")
    with pytest.raises(ValueError, match=r"need 1.2e\+06 GB, more than half of the machine's memory"):
        make(root, image_size=10_000_000).setup("test")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"val_share": -0.1}, r"val_share \(=-0.1\) must be between 0 and 1"),
        ({"test_share": 0.6, "val_share": 0.6}, r"val_share \(=0.6\) \+ test_share \(=0.6\) must not exceed 1"),
        ({"image_size": 0}, r"image_size \(=0\) must be at least 1"),
        ({"threads": 0}, r"threads \(=0\)"),
        ({"max_memory": 0}, r"max_memory \(=0\) must be above 0 GB"),
        ({"class_names": ["a", "a"]}, r"class_names \(=\['a', 'a'\]\) must be at least two different names"),
        ({"batch_size": 0}, r"batch_size \(=0\)"),
        ({"augment": [{"crop": 8}]}, r"crop: padding \(=8\) must be below the image size \(8 x 8"),
    ],
)
def test_bad_settings(root: Path, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(root, **kwargs)


@pytest.mark.parametrize(
    ("stage", "kwargs", "message"),
    [
        ("fit", {"num_train": 13}, r"num_train \(=13\) must not exceed the 12 training images"),
        ("fit", {"val_share": 0.01}, r"val_share \(=0.01\) gives no val images in .*: raise it, or add images"),
        ("test", {"test_share": 0}, r"test_share \(=0\) gives no test images"),
        ("fit", {"val_share": 0.5, "test_share": 0.5}, "the class cat in .* has no training images"),
        ("fit", {"class_names": None}, r"class_names \(=None\) is for predictions only"),
    ],
)
def test_bad_splits(root: Path, stage: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(root, **kwargs).setup(stage)


def test_images_of_one_colour_have_no_statistics(tmp_path: Path) -> None:
    for name in CLASSES:
        (tmp_path / name).mkdir()
        Image.new("RGB", (9, 9), "red").save(tmp_path / name / "a.png")
    with pytest.raises(ValueError, match=r"statistics \(=own\): a channel of the images in .* is constant"):
        make(tmp_path, std=None, statistics="own", val_share=0, test_share=0).setup("fit")


def test_no_validation(root: Path) -> None:
    data = make(root, val_share=0)
    assert data.num_val == 0
    assert data.val_dataloader() == []
    data.setup(None)
    assert data._arrays.keys() == {"train", "test"}
