"""The command in process: its files, output and errors."""

from __future__ import annotations

import csv
import html
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shared
import torch
from matplotlib.figure import Figure
from PIL import Image

from lightning_cifar import cli, plots
from lightning_cifar.commands.explain import command as explain
from lightning_cifar.data import SyntheticDataModule
from lightning_cifar.models import LeNet

EVIL = "<img src=x onerror=alert(1)>&\"'.png"
NAMES = SyntheticDataModule.class_names

pytestmark = pytest.mark.usefixtures("in_tmp")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a run with a non-default normalization."""
    folder = tmp_path_factory.mktemp("explain") / "run"
    args = [
        *("fit", "--model", "LeNet", "--model.lr", "0.05", "--data", "SyntheticDataModule", "--data.num_train", "200"),
        *("--data.num_val", "40", "--data.num_test", "40", "--data.mean", "[0.4, 0.5, 0.6]", "--trainer.max_epochs"),
        *("1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--run_dir", str(folder)),
    ]
    assert cli.main(args) == 0
    return folder / "checkpoints/best.ckpt"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three valid files, one damaged, one that is not an image, and a folder."""
    folder = tmp_path / "images"
    (folder / "inside").mkdir(parents=True)
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / "a.png")
    Image.fromarray(generator.integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(folder / EVIL)
    Image.new("L", (40, 30), 99).save(folder / "c.jpg")
    (folder / "notes.txt").write_text("no image")
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:900])
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty pictures, since drawing takes half a second per image."""
    for name in ("draw_explanation", "draw_feature_maps"):
        monkeypatch.setattr(plots, name, lambda *args, **kwargs: Figure(figsize=(0.2, 0.1)), raising=False)


def run(checkpoint: Path, *args: object) -> None:
    assert cli.main(["explain", "--ckpt_path", str(checkpoint), "--stride", "4", *map(str, args)]) == 0


def error_of(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    return shared.error_of(capsys, ["explain", *map(str, args)])


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_pictures_a_table_and_a_page(checkpoint: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(checkpoint, "--images", images, "--out", "out")
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == "explained 3 images: out/index.html"
    for said in (
        "broken.png is skipped: damaged: image file is truncated",
        "notes.txt is skipped: not an image (png, jpeg, webp, bmp, gif), or damaged",
        "1 subfolder is not searched",
    ):
        assert said in captured.err
        assert html.escape(said) in Path("out/index.html").read_text()
    made = sorted(path.name for path in Path("out/pictures").iterdir())
    assert [name for name in made if "maps" not in name] == [
        "001_img_src_x_onerror_alert_1.png",
        "002_a.png",
        "003_c.png",
    ]
    assert len([name for name in made if "maps_network." in name]) == 6, "two layers of each"
    rows = table(Path("out/predictions.csv"))
    assert [row["file"] for row in rows] == [EVIL, "a.png", "c.jpg"]
    for row in rows:
        ranks = ["", "_2", "_3", "_4", "_5"]
        probabilities = [float(row[f"probability{rank}"]) for rank in ranks]
        assert probabilities == sorted(probabilities, reverse=True)
        assert len({row[f"class{rank}"] for rank in ranks} & set(NAMES)) == 5
        assert row["target"] == row["class"]
        assert row["target_probability"] == row["probability"]


def test_the_numbers_are_those_of_the_network(checkpoint: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[Any, ...]] = []
    draw = plots.draw_explanation

    def keep(*args: Any, **kwargs: Any) -> Any:
        drawn.append(args)
        return draw(*args, **kwargs)

    monkeypatch.setattr(plots, "draw_explanation", keep, raising=False)
    run(checkpoint, "--images", images / "a.png", "--out", "out", "--top", 3, "--window", 6, "--fill", 0.5)
    model = LeNet.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True).eval()
    pixels = np.asarray(Image.open(images / "a.png"))
    x = (pixels / 255 - np.array([0.4, 0.5, 0.6])) / 0.25
    image = torch.tensor(x, dtype=torch.float32).movedim(-1, 0)[None]
    with torch.no_grad():
        p = model(image).softmax(1)[0]
        corner = image.clone()
        corner[..., :6, :6] = 0.5
        drop = float(p.max() - model(corner).softmax(1)[0, p.argmax()])
    ((original, view, drops, bars),) = drawn
    assert np.array_equal(original, pixels)
    assert np.array_equal(view, pixels)
    assert drops[:4, :4] == pytest.approx(np.full((4, 4), drop), abs=1e-5), "covered by the first window alone"
    best = p.argsort(descending=True)[:3]
    assert [name for name, _ in bars] == [NAMES[k] for k in best]
    assert [value for _, value in bars] == pytest.approx(p[best].tolist(), abs=1e-5)
    (row,) = table(Path("out/predictions.csv"))
    assert float(row["probability_3"]) == pytest.approx(float(p[best[2]]), abs=1e-4)
    assert "class_4" not in row
    assert float(row["largest_drop"]) >= drop - 1e-4


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_images_are_explained_in_batches_as_one_by_one(
    checkpoint: Path, images: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    drawn: dict[int, list[np.ndarray]] = {1: [], 2: [], 8: []}
    asked: dict[int, list[int]] = {1: [], 2: [], 8: []}
    for size, maps in drawn.items():

        def keep(original: Any, view: Any, drops: np.ndarray, *rest: Any, maps: Any = maps, **kwargs: Any) -> Figure:
            maps.append(drops)
            return Figure(figsize=(0.2, 0.1))

        def count(trained: Any, chosen: Any, *rest: Any, size: int = size, look: Any = explain._compute) -> Any:
            asked[size].append(len(chosen))
            return look(trained, chosen, *rest)

        with monkeypatch.context() as context:
            context.setattr(plots, "draw_explanation", keep, raising=False)
            context.setattr(plots, "draw_feature_maps", lambda *_, **__: Figure(figsize=(0.2, 0.1)), raising=False)
            context.setattr(explain, "_compute", count)
            context.setattr(explain, "_BATCH", size)
            run(checkpoint, "--images", images, "--out", f"out{size}", "--mode", mode)
    assert asked == {1: [1, 1, 1], 2: [2, 1], 8: [3]}
    for size in (2, 8):
        # bfloat16, of the fast mode, has three digits
        np.testing.assert_allclose(drawn[size], drawn[1], atol=2e-6 if mode == "exact" else 2e-3)
        if mode == "exact":
            assert Path(f"out{size}/predictions.csv").read_bytes() == Path("out1/predictions.csv").read_bytes()


@pytest.mark.usefixtures("quick")
def test_another_class_and_other_layers(checkpoint: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ("--images", images / "a.png", images / "c.jpg", "--layers", "network.2", "--top", 1)
    run(checkpoint, *args, "--out", "a", "--target", NAMES[7], "--mode", "fast", "--resize", "squash")
    rows = table(Path("a/predictions.csv"))
    assert {row["target"] for row in rows} == {NAMES[7]}
    assert {path.name for path in Path("a/pictures").iterdir()} == {
        *("001_a.png", "001_a_maps_network.2.png", "002_c.png", "002_c_maps_network.2.png"),
    }
    said = capsys.readouterr().out
    assert "error about" in said
    assert f"P({NAMES[7]})" in said


@pytest.mark.usefixtures("quick")
def test_pixels_that_no_window_covers_are_reported(
    checkpoint: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(checkpoint, "--images", images / "a.png", images / "c.jpg", "--window", 2, "--out", "out")
    said = capsys.readouterr().err
    assert said.count("--stride 4: no window covers 768 of 1024 pixels") == 1, "once for all images"
    assert "--stride 4: no window covers 768 of 1024" in Path("out/index.html").read_text()


@pytest.mark.usefixtures("quick")
def test_names_do_not_become_markup(checkpoint: Path, images: Path) -> None:
    (images / EVIL).rename(images / f"{'y' * 30}<script>alert(2)<{'z' * 120}")
    run(checkpoint, "--images", images, "--out", "out")
    page = Path("out/index.html").read_text()
    assert "&lt;script&gt;alert(2)&lt;" in page
    assert "<script" not in page
    assert "default-src 'none'; img-src data:" in page
    assert not re.search(r"(src|href)=\"(?!data:image/png;base64,|#image-)", page)
    assert page.count("<img ") == len(list(Path("out/pictures").iterdir()))


@pytest.mark.usefixtures("quick")
def test_file_names_that_are_not_text(checkpoint: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = (images / "a.png").read_bytes()
    Path("odd").mkdir()
    try:
        Path(os.fsdecode(b"odd/\xff\x1b[31m\n.png")).write_bytes(source)
    except OSError:
        pytest.skip("this file system refuses such names")
    run(checkpoint, "--images", "odd", "--out", "out")
    assert r"\xff\x1b[31m\x0a.png: " in capsys.readouterr().out
    assert [path.name for path in Path("out/pictures").iterdir() if "maps" not in path.name] == ["001_31m.png"]


@pytest.mark.usefixtures("quick")
def test_the_default_folder_is_always_new(checkpoint: Path, images: Path) -> None:
    for _ in range(2):
        run(checkpoint, "--images", images / "a.png")
    assert len(list(Path("runs").glob("explain-*/index.html"))) == 2


@pytest.mark.usefixtures("quick")
def test_no_more_than_the_limit(checkpoint: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(checkpoint, "--images", images, "--limit", 2, "--out", "out")
    assert len(table(Path("out/predictions.csv"))) == 2
    assert "only the first 2 of 4 images: --limit 4 uses all" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_an_interruption_leaves_the_page_of_the_finished_images(
    checkpoint: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = explain._compute

    def stop(trained: Any, images: Any, *rest: Any) -> Any:
        if images[0].size == (32, 32):
            raise KeyboardInterrupt
        return look(trained, images, *rest)

    monkeypatch.setattr(explain, "_compute", stop)
    monkeypatch.setattr(explain, "_BATCH", 1)
    args = ["explain", "--ckpt_path", str(checkpoint), "--images", str(images), "--stride", "8", "--out", "out"]
    assert cli.main(args) == 130
    assert len(table(Path("out/predictions.csv"))) == 1
    assert "interrupted" in Path("out/index.html").read_text()


def test_wrong_options_are_rejected_without_importing_torch(checkpoint: Path, images: Path) -> None:
    good = ["--ckpt_path", str(checkpoint), "--images", str(images)]
    mistakes = [
        ["--ckpt_path", "nowhere.ckpt", "--images", str(images)],
        ["--ckpt_path", str(checkpoint), "--images", "nowhere"],
        [*good, "--window", "0"],
        [*good, "--windwo", "3"],
        [*good, "--out", str(images)],
    ]
    code = (
        "import sys; from lightning_cifar.cli import main; "
        f"assert [main(['explain', *args]) for args in {mistakes!r}] == [2] * 5; "
        "print({'torch', 'lightning', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert len(done.stderr.splitlines()) == 5


def test_wrong_options(checkpoint: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = ("--ckpt_path", checkpoint, "--images", images)
    for args, said in (
        (("--ckpt_path", checkpoint), "the following arguments are required: --images"),
        (("--ckpt_path", "no.ckpt", "--images", images), "there is no checkpoint no.ckpt"),
        ((*good, "--windwo", 3), "there is no option --windwo. Did you mean --window?"),
        ((*good, "--window", "-1"), "argument --window: '-1' must be a whole number, at least 1"),
        ((*good, "--window", 33), "--window (=33) is larger than 32 x 32 pixels"),
        ((*good, "--stride", 1.5), "argument --stride: '1.5' must be a whole number"),
        ((*good, "--fill", "median"), "argument --fill: 'median' must be mean, blur or a number"),
        ((*good, "--fill", "inf"), "argument --fill: 'inf' must be"),
        ((*good, "--mode", "quick"), "argument --mode: invalid choice: 'quick'"),
        ((*good, "--target", "zigzga"), "--target (=zigzga) must be one of the classes "),
        ((*good, "--layers", "network.99"), "LeNet has no layer 'network.99': did you mean network."),
        ((*good, "--layers", "network.6"), "not maps"),
        ((*good, "--out", images), "exists and is not overwritten"),
        ((*good, "--out", images / "a.png" / "x"), "a.png is not a folder"),
    ):
        assert said in error_of(capsys, *args)


def test_folders_without_an_image(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (images / "broken.png").rename(tmp_path / "bad/broken.png")
    for folder, said in (
        ("nowhere", "--images nowhere: No such file or directory"),
        ("empty", "--images empty contains no image: it is empty"),
        ("images/notes.txt", "notes.txt is skipped: not an image"),
        ("bad", "no image could be read: broken.png is skipped: damaged"),
    ):
        assert said in error_of(capsys, "--ckpt_path", checkpoint, "--images", folder)


def save(path: Path, content: dict[str, Any]) -> Path:
    torch.save(content, path)
    return path


def test_checkpoints_that_cannot_be_used(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    weights = good["state_dict"]
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    name = next(iter(weights))
    plain = {key: good[key] for key in ("state_dict", "hyper_parameters", "class_path", "epoch")}
    wrong = {
        "text": (None, "not a readable checkpoint"),
        "nan": ({"state_dict": weights | {name: weights[name] * torch.nan}}, "not finite (network.0.weight)"),
        "other": (
            {"class_path": "lightning_cifar.models.MLPRegressor"},
            "contains MLPRegressor, which does not classify",
        ),
        "lost": ({"class_path": "nowhere.Net"}, "names 'nowhere.Net', which is not a class of this package"),
        "misfit": ({"hyper_parameters": {"hidden": [7]}}, "does not fit LeNet"),
        "unknown": ({"hyper_parameters": {"width": 7}}, "its setting model.width does not exist in LeNet"),
    }
    for stem, (change, said) in wrong.items():
        path = tmp_path / f"{stem}.ckpt"
        if change is not None:
            save(path, good | change)
        assert said in error_of(capsys, "--ckpt_path", path, "--images", images)
    path = save(tmp_path / "silent.ckpt", {"state_dict": weights})
    assert "does not name the class of its network" in error_of(capsys, "--ckpt_path", path, "--images", images)
    path = save(tmp_path / "no_data.ckpt", plain)
    assert "does not name its data" in error_of(capsys, "--ckpt_path", path, "--images", images)


def test_grey_networks_of_another_size(tmp_path: Path, images: Path) -> None:
    settings = {"in_channels": 1, "image_size": 28, "num_classes": 10}
    content = {
        "state_dict": LeNet(**settings).state_dict(),
        "hyper_parameters": settings,
        "class_path": "lightning_cifar.models.lenet.LeNet",
        "lightning_cifar_config": "data: {class_path: MNISTDataModule}",
    }
    run(save(tmp_path / "grey.ckpt", content), "--images", images / EVIL, "--out", "out")
    assert len(table(Path("out/predictions.csv"))) == 1
