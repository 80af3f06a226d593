"""Home folders in paths, and printable names."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_cifar import cli
from lightning_cifar.data import CIFAR10DataModule, FashionMNISTDataModule, ImageFolderDataModule, MNISTDataModule
from lightning_cifar.files.paths import expand_user
from lightning_cifar.files.text import plain_text


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("given", "rest"), [("~", "."), ("~/a/b", "a/b"), (Path("~/a"), "a")])
def test_the_home_folder_is_expanded(home: Path, given: str | Path, rest: str) -> None:
    assert expand_user(given) == home / rest


@pytest.mark.parametrize("given", ["a/~", "./~/a", "/~", "~nobody-of-this-name/a", ""])
def test_other_paths_are_unchanged(home: Path, given: str) -> None:
    assert expand_user(given) == Path(given)


@pytest.mark.parametrize(
    "kind",
    [CIFAR10DataModule, MNISTDataModule, FashionMNISTDataModule, ImageFolderDataModule],
    ids=lambda kind: kind.__name__,
)
def test_paths_of_data_are_expanded(home: Path, kind: type) -> None:
    (home / "p.yaml").write_text("- HorizontalFlip: {p: 0.5}")
    assert kind(root="~/data", albumentations="~/p.yaml").root == home / "data"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[1m\n\r\x0b\x85\u2028\udcff é.jpg", r"a\x1b[1m\x0a\x0d\x0b\x85\u2028\xff é.jpg"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("e\u0301", "\u00e9"),
        ("犬\u3000猫 👩\u200d🔬 می\u200c", "犬\u3000猫 👩\u200d🔬 می\u200c"),
        ("\ud800 \U000e0001", r"\ud800 \U000e0001"),
    ],
)
def test_names_are_printable(text: str, shown: str) -> None:
    assert plain_text(text) == shown
    assert plain_text(shown) == shown
    shown.encode()


@pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*")
def test_home_in_paths_of_a_configuration_and_of_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    Path("c.yaml").write_text("trainer: {callbacks: {class_path: ModelCheckpoint, init_args: {dirpath: ~/own}}}\n")
    sizes = ["--data.num_train", "32", "--data.num_val", "16", "--data.num_test", "16", "--data.batch_size", "16"]
    args = ["fit", "--model", "LeNet", "--data", "SyntheticDataModule", *sizes, "--trainer.max_epochs", "1"]
    args += ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--config", "c.yaml"]
    assert cli.main([*args, "--run_dir=~/run"]) == 0
    assert list((tmp_path / "home/own").glob("*.ckpt"))
    assert cli.main(["report", "~/run", "--out", "~/run.html"]) == 0
    assert (tmp_path / "home/run.html").exists()
    assert not list(tmp_path.rglob("~*"))
