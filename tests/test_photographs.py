"""From a folder of photographs to a table and a picture, by the command line."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import shared
import torch
import yaml
from PIL import Image
from torchvision.models import squeezenet1_1

import lightning_cifar
from lightning_cifar import cli
from lightning_cifar.checkpoints.trained import load_trained
from lightning_cifar.data import ImageFolderDataModule
from lightning_cifar.models import LeNet

CONFIGS = Path(lightning_cifar.__file__).parents[1] / "configs"
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
SYNTHETIC = ["--data", "SyntheticDataModule", "--data.num_train", "64", "--data.num_val", "20", "--data.num_test", "10"]
FOLDER = ["--data", "ImageFolderDataModule"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of a network for the synthetic classes."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    args = ["fit", "--model", "LeNet", *SYNTHETIC, *QUIET, "--trainer.max_epochs", "1", "--run_dir", str(folder)]
    assert cli.main([*args, "--data.mean", "[0.4, 0.5, 0.6]"]) == 0
    return folder / "checkpoints/best.ckpt"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write nine pictures of three kinds in nested folders; one kind is not a class."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for name in ("Disc", "holiday/2025", "square"):
        folder = tmp_path / "photographs" / name
        folder.mkdir(parents=True)
        for i in range(3):
            pixels = generator.integers(0, 256, (40 + 9 * i, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "photographs"


def table(folder: str) -> list[dict[str, str]]:
    with (Path(folder) / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def error_of(capsys: pytest.CaptureFixture[str], args: list[str]) -> str:
    return shared.error_of(capsys, [*args, *QUIET])


def test_photographs_are_preprocessed_as_in_the_training(
    trained: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["predict", "--ckpt_path", str(trained), *FOLDER, "--data.root", "photographs", *QUIET]
    assert cli.main([*args, "--run_dir", "p", "--data.eval_batch_size", "4"]) == 0
    rows = table("p")
    known = load_trained(trained)
    assert [row["file"] for row in rows] == [
        f"{name}/{i}.png" for name in ("Disc", "holiday/2025", "square") for i in range(3)
    ]
    names = [name for name in ("disc", "", "square") for _ in range(3)]
    assert [row["true"] for row in rows] == names
    data = ImageFolderDataModule(root, image_size=32, mean=[0.4, 0.5, 0.6], std=list(known.std))
    with torch.no_grad():
        expected = torch.cat([known.model(images).softmax(1) for images, _ in data.predict_dataloader()])
    for row, p in zip(rows, expected, strict=True):
        best = p.argsort(descending=True)[:5].tolist()
        names = [row["class"], *(row[f"class_{rank}"] for rank in range(2, 6))]
        assert names == [known.class_names[k] for k in best]
        assert float(row["probability"]) == pytest.approx(float(p[best[0]]), abs=1e-3)
    assert (Path("p") / "pictures/predictions.png").stat().st_size > 1000
    said = capsys.readouterr().out
    assert "Disc/0.png" in said
    assert "of 6 (images in folders named after a class)" in said
    settings = yaml.safe_load(Path("p/config.yaml").read_text())["data"]["init_args"]
    assert (settings["image_size"], settings["mean"]) == (32, [0.4, 0.5, 0.6])


def test_predictions_do_not_need_the_training_folder(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["fit", "--model", "LeNet", *FOLDER, "--data.root", "photographs", "--data.image_size", "32", *QUIET]
    args += ["--data.statistics", "own", "--data.val_share", "0.34", "--data.test_share", "0.3", "--run_dir", "run"]
    assert cli.main([*args, "--trainer.max_epochs", "1", "--test_after_fit", "true"]) == 0
    checkpoint = "run/checkpoints/best.ckpt"
    model = LeNet.load_from_checkpoint(checkpoint, weights_only=True)
    assert model.num_classes == 3
    root.rename(root.with_name("moved"))
    (root.parent / "new").mkdir()
    Image.new("L", (50, 70)).save(root.parent / "new/a.png")
    known = load_trained(Path(checkpoint))
    assert known.class_names == ("Disc", "holiday", "square")
    assert known.mean != (0.485, 0.456, 0.406)
    args = ["predict", "--ckpt_path", checkpoint, "--data.root", "new", "--run_dir", "p", *QUIET]
    assert cli.main(args) == 0
    (row,) = table("p")
    assert {row["class"], row["class_2"], row["class_3"]} == {"Disc", "holiday", "square"}
    settings = yaml.safe_load(Path("p/config.yaml").read_text())["data"]["init_args"]
    assert settings["mean"] == list(known.mean)
    args = ["test", "--ckpt_path", checkpoint, "--data.root", "moved", "--run_dir", "t", *QUIET]
    assert cli.main(args) == 0
    (root.with_name("moved") / "square").rename(root.with_name("moved") / "zebra")
    assert "zebra is not the folder of a class (Disc, holiday, square)" in error_of(capsys, args[:-6])


def test_photographs_are_converted_to_grey_for_grey_networks(root: Path) -> None:
    args = ["predict", "--model", "LeNet", *FOLDER, "--data.root", "photographs", "--data.class_names", "null", *QUIET]
    assert cli.main([*args, "--data.in_channels", "1", "--data.image_size", "28", "--run_dir", "p"]) == 0
    assert {row["class"] for row in table("p")} <= {f"class {k}" for k in range(10)}


def test_the_included_configuration_names_the_classes_of_imagenet(root: Path) -> None:
    path = Path(__file__).parent.parent / "configs/photographs.yaml"
    (root / "bad.jpg").write_bytes(b"hello")
    network = squeezenet1_1()
    torch.save(network.state_dict(), "weights.pth")  # in place of those that must be downloaded
    args = ["predict", "--config", str(path), "--model.weights", "weights.pth", "--data.root", "photographs", *QUIET]
    assert cli.main([*args, "--run_dir", "p"]) == 0
    rows = table("p")
    assert len(rows) == 9
    data = ImageFolderDataModule(root, class_names="imagenet", damaged="skip")
    (images, _), *_ = data.predict_dataloader()
    with torch.no_grad():
        best = network.eval()(images).argmax(1).tolist()
    assert [row["class"] for row in rows] == [data.class_names[k] for k in best]
    assert {"class_5", "probability_5"} <= rows[0].keys()
    assert "true" not in rows[0], "none of the folders is named after a class of ImageNet"
    settings = yaml.safe_load(path.read_text())
    assert settings["model"]["class_path"] == "PretrainedSqueezeNet"
    assert settings["model"]["init_args"] == {"arch": "squeezenet1_1", "weights": "default", "new_head": False}


def test_a_given_prediction_table_replaces_the_default_one(root: Path) -> None:
    args = ["predict", "--model", "LeNet", *FOLDER, "--data.root", "photographs", "--data.image_size", "32", *QUIET]
    args += ["--trainer.callbacks", "PredictionTable", "--trainer.callbacks.top", "1", "--run_dir", "p"]
    assert cli.main(args) == 0
    assert list(table("p")[0]) == ["file", "class", "probability", "true"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--data.root", "nowhere"], "the folder nowhere does not exist: pass --data.root with an image folder."),
        (["--data.root", "photographs/square"], "photographs/square has images (0.png, ...) but no class folders"),
        (["--data.root", "photographs/holiday"], "photographs/holiday has only one class folder (2025): add at least"),
        (["--data.root", "empty"], "empty contains no images: add images"),
        (["--data.root", "holed"], "the class folder holed/b contains no images: add images"),
        (["--data.root", "damaged"], "1 of 4 files in damaged cannot be read, b/x.jpg (not an image (png, jpeg, "),
        (["--data.max_memory", "1e-9"], "9 images of 32 x 32 pixels need 1 MB, more than max_memory"),
        (["--data.damaged", "repair"], "damaged (=repair) must be one of refuse, skip"),
        (["--data.val_share", "2"], "val_share (=2.0) must be between 0 and 1."),
        (["--data.num_val", "5"], "no option num_val here: it is an option of CIFAR10DataModule, FashionMNIST"),
        (["--data.class_names", "null"], "class_names (=None) is for predictions only"),
    ],
)
def test_a_mistake_is_reported_in_one_line(
    root: Path, args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    for name in ("holed/a/1.png", "holed/a/2.png", "damaged/a/1.png", "damaged/a/2.png", "damaged/b/1.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(name)
    Path("holed/b").mkdir()
    Path("damaged/b/x.jpg").write_bytes(b"hello")
    fit = ["fit", "--model", "LeNet", *FOLDER, "--data.root", "photographs", "--data.image_size", "32"]
    fit += ["--data.val_share", "0", "--data.test_share", "0"]
    assert message in error_of(capsys, [*fit, *args])


def test_mistakes_of_predict(trained: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["predict", "--ckpt_path", str(trained), *FOLDER]
    (root / "a.jpg").write_bytes(b"hello")
    message = error_of(capsys, [*args, "--data.root", "photographs"])
    assert "1 of 10 files in photographs cannot be read, a.jpg" in message
    Path("empty").mkdir()
    assert "empty contains no images" in error_of(capsys, [*args, "--data.root", "empty"])
    assert "the folder nowhere does not exist" in error_of(capsys, [*args, "--data.root", "nowhere"])


def control_characters(text: str) -> set[str]:
    return {letter for letter in text if not letter.isprintable()} - {"\n", "\r"}


HOSTILE = {
    r"$\frac$": r"$\frac$",
    "$x$ and $y": "$x$ and $y",
    "caf\udce9": r"caf\xe9",  # Latin-1
    "a\nb\rc\x0bd\x85e\u2028f": r"a\x0ab\x0dc\x0bd\x85e\u2028f",
    "\x1b]0;title\x07red": r"\x1b]0;title\x07red",
    'q"uo,te': 'q"uo,te',
}


def test_unusual_class_names_neither_end_a_run_nor_reach_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for name in HOSTILE:
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(6):
            pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    names = sorted(HOSTILE.values())
    args = ["fit", "--model", "LeNet", *FOLDER, "--data.root", "images", "--data.image_size", "32", *QUIET]
    args += ["--config", str(CONFIGS / "callbacks/prediction_grid.yaml"), "--trainer.max_epochs", "2"]
    assert cli.main([*args, "--run_dir", "run", "--test_after_fit", "true"]) == 0
    trained = ["--ckpt_path", "run/checkpoints/last.ckpt"]
    assert cli.main(["predict", *trained, *FOLDER, "--data.root", "images", *QUIET, "--run_dir", "predicted"]) == 0
    assert cli.main(["explain", *trained, "--images", 'images/q"uo,te', "--out", "explained"]) == 0
    assert cli.main(["report", "run"]) == 0
    said = capsys.readouterr()
    assert not control_characters(said.out + said.err)
    assert r"caf\xe9" in said.out
    tables = [*Path("run").rglob("*.csv"), *Path("predicted").rglob("*.csv"), *Path("explained").rglob("*.csv")]
    assert len(tables) >= 3
    for path in tables:
        content = path.read_bytes().decode()
        assert not control_characters(content), path
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
        assert len({len(row) for row in rows}) == 1, path
    with Path("run/metrics.csv").open(newline="") as file:
        columns = next(csv.reader(file))
    for name in names:
        assert sum(name in column for column in columns) >= 1, name
    assert (Path("run") / "result.json").is_file()


def test_a_resumed_run_must_have_the_same_classes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["fit", "--model", "LeNet", *FOLDER, "--data.root", "photographs", "--data.image_size", "32", *QUIET]
    args += ["--data.val_share", "0.34", "--data.test_share", "0", "--run_dir", "run", "--trainer.max_epochs", "1"]
    assert cli.main(args) == 0
    (root / "square").rename(root / "zebra")
    args = ["fit", "--ckpt_path", "run/checkpoints/last.ckpt", "--trainer.max_epochs", "2", "--run_dir", "on"]
    assert error_of(capsys, args).endswith("data.root is missing: pass --data.root with the folder of the images.")
    args += ["--data.root", "photographs"]
    message = error_of(capsys, args)
    assert "but the checkpoint was trained with 3 classes (Disc, holiday, square): pass the folder" in message


def test_a_checkpoint_of_another_number_of_classes_names_the_numbers(
    trained: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["fit", "--ckpt_path", str(trained), *FOLDER, "--data.root", "photographs", "--data.image_size", "32"]
    args += ["--data.val_share", "0", "--data.test_share", "0", "--trainer.max_epochs", "2"]
    message = error_of(capsys, args)
    assert "was trained with 10 classes, but ImageFolderDataModule has 3: pass data of the same classes" in message
