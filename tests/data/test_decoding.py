"""Reading image files, and reports of damaged ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_cifar.data import decoding
from lightning_cifar.data.decoding import Damaged, FileBatches, Reader, mean_and_std


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Five of different sizes, each of one grey level; the third is not an image."""
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        Image.new("RGB", (9 + i, 7), (10 * i, 10 * i, 10 * i)).save(path)
    paths[2].write_bytes(b"hello")
    return paths


def reader(root: Path, damaged: Damaged = "skip", **kwargs: Any) -> Reader:
    return Reader(**{"root": root, "size": 4, "channels": 3, "fit": "crop", "damaged": damaged, "threads": 2, **kwargs})


def test_images_keep_their_order_and_damaged_ones_are_named(
    tmp_path: Path, files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    views, kept = reader(tmp_path).read(files)
    assert kept == [0, 1, 3, 4]
    assert views.shape == (4, 4, 4, 3)
    assert views[:, 0, 0, 0].tolist() == [0, 10, 30, 40]
    assert "left out: 2.png (not an image (png, jpeg, webp, bmp, gif), or damaged)" in caplog.text
    with pytest.raises(
        ValueError, match=r"1 of 5 files in .* cannot be read, 2.png \(not an image .*--data.damaged skip"
    ):
        reader(tmp_path, "refuse").read(files)


def test_files_are_checked_without_their_pixels(tmp_path: Path, files: list[Path]) -> None:
    assert reader(tmp_path).check(files) == [files[i] for i in (0, 1, 3, 4)]
    with pytest.raises(ValueError, match="1 of 5 files"):
        reader(tmp_path, "refuse").check(files)


def test_many_damaged_files_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = [tmp_path / f"{i:02d}.png" for i in range(25)]
    for path in files:
        path.write_bytes(b"")
    views, kept = reader(tmp_path).read(files)
    assert (len(views), kept) == (0, [])
    assert len(caplog.messages) == 21
    assert caplog.messages[-1] == "left out: 5 more files that cannot be read"
    with pytest.raises(ValueError, match=r"25 of 25 files .*02.png \([^)]*\), or damaged\) and 22 more: repair"):
        reader(tmp_path, "refuse").read(files)


def test_names_are_relative_and_printable(tmp_path: Path) -> None:
    assert reader(tmp_path).name(tmp_path / "cat/a\x1b[31m.jpg") == r"cat/a\x1b[31m.jpg"
    assert reader(tmp_path).name(Path("/else/a\udcff.jpg")) == r"/else/a\xff.jpg"


def test_a_progress_bar_appears_when_it_takes_long(
    tmp_path: Path, files: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader(tmp_path).read(files, task="reading train images")
    assert "reading" not in capsys.readouterr().err
    monkeypatch.setattr(decoding, "_PATIENCE", 0.0)
    reader(tmp_path).read(files, task="reading train images")
    said = capsys.readouterr().err
    assert "reading train images" in said
    assert "5/5" in said


def test_batches_name_their_files_and_skip_the_damaged(tmp_path: Path, files: list[Path]) -> None:
    def batches(**kwargs: Any) -> FileBatches:
        options = {"mean": [0.5] * 3, "std": [0.25] * 3, "batch_size": 2, "device": torch.device("cpu"), **kwargs}
        return FileBatches(files, reader(tmp_path), **options)

    found = list(batches())
    assert len(batches()) == 3
    assert [numbers.tolist() for _, numbers in found] == [[0, 1], [3], [4]]
    for images, numbers in found:
        assert images.shape[1:] == (3, 4, 4)
        expected = (10 * numbers / 255 - 0.5) / 0.25
        torch.testing.assert_close(images, expected[:, None, None, None].expand_as(images).float())
    shares = [[int(n) for _, numbers in batches(rank=rank, world_size=2) for n in numbers] for rank in (0, 1)]
    assert shares == [[0, 4], [1, 3]]
    for path in files:
        path.write_bytes(b"gone bad since it was checked")
    with pytest.raises(ValueError, match=r"none of the 5 files in .* can be read"):
        list(batches())


def test_mean_and_std_are_those_of_the_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 5, 4, 3), dtype=np.uint8)
    mean, std = mean_and_std(images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 1, 2)), rtol=1e-12)
