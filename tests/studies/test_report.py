"""``lightning-cifar report``: the page agrees with the table of the study, and mistakes are reported in one line."""

import csv
import html
import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lightning_cifar.analysis.statistics import mean_interval
from lightning_cifar.analysis.variance import variance_sources
from lightning_cifar.cli import main
from lightning_cifar.plots import report_html
from lightning_cifar.studies.report import results
from lightning_cifar.studies.report.build import build
from lightning_cifar.studies.report.comparison import compare
from lightning_cifar.studies.report.curves import BUDGET, arm_curves, knots, num_pieces, pack_curves, positions
from lightning_cifar.studies.report.pictures import shrink
from lightning_cifar.studies.report.uncertainty import read_correct

Study = Callable[..., Path]
Run = Callable[..., None]
ARMS = {"plain": 0.0, "better": 0.1, "the same": 0.001}


def cells(page: str, table: str) -> list[list[str]]:
    """Texts of a table of the page, by row."""
    body = re.search(rf'<table id="{table}">.*?<tbody>(.*?)</tbody>', page, re.DOTALL)
    assert body is not None
    rows = re.findall(r"<tr>(.*?)</tr>", body[1], re.DOTALL)
    return [
        [html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)]
        for row in rows
    ]


def error(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["report", *args]) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text


def test_page_table_and_text_agree_with_the_table(
    tmp_path: Path, write_study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = write_study(tmp_path / "s", ARMS), tmp_path / "report.html"
    assert main(["report", str(folder), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    compared = compare([folder])
    rows = results.table(compared.runs, list(ARMS), "val/accuracy", "max", 0.5)
    found = results.differences(compared.runs, list(ARMS), "val/accuracy", "plain")
    page = out.read_text()

    for row, line in zip(rows, cells(page, "results"), strict=True):
        mean, std, low, high = (100 * value for value in row.final)
        assert line[:4] == [row.arm, "3", f"{mean:.2f} ± {std:.2f}", f"{low:.2f} to {high:.2f}"]
        assert line[-2:] == ["3 of 3", f"{row.seconds:.2f}"]
        assert line[6] == results.number_text(row.epochs_to_target)
    for difference, line in zip(found, cells(page, "differences"), strict=True):
        assert line[:4] == [difference.arm, "plain", "3", results.number_text(100 * difference.mean, sign=True)]
        assert line[5] == results.p_text(difference.p)
        assert line[7] == {"better": "better", "the same": "not shown"}[difference.arm]
    sentences = results.conclusions(found, "val/accuracy", "max")
    text = out.with_suffix(".md").read_text()
    for sentence in sentences:
        assert html.escape(sentence) in page
        assert sentence in text
        assert sentence in said
    table = results.markdown(rows, found, "val/accuracy", "max", 0.5).partition("\n\n")[0]
    assert table in text

    with out.with_suffix(".csv").open(newline="") as file:
        by_run = {(row["arm"], row["seed"]): row for row in csv.DictReader(file)}
    assert len(by_run) == 9
    for row in rows:
        finals = [float(by_run[row.arm, str(seed)]["final"]) for seed in range(3)]
        assert mean_interval(finals)[:4] == pytest.approx(row.final)
    assert "<dog>" not in page
    assert "&lt;dog&gt;" in page
    assert 'src="http' not in page
    assert "again\nlightning-cifar report" in html.unescape(page)
    assert cells(page, "settings")[0] == ["model.lr", "0.1", "0.2", "0.101"]


def test_the_band_of_a_panel_is_the_interval_of_the_mean(tmp_path: Path, write_study: Study) -> None:
    compared = compare([write_study(tmp_path / "s", ARMS, seeds=4)])
    curves = arm_curves(compared, "val/accuracy")["better"]
    band = curves.band()
    for index, epoch in enumerate(positions(curves)):
        expected = mean_interval(curves.values[:, index].tolist())
        assert (band.mean[index], band.low[index], band.high[index]) == pytest.approx((expected.mean, *expected[2:4]))
        assert epoch == index + 1
    half = pack_curves(compared, [("#000", "")] * 3)["t"][4] * mean_interval(curves.values[:, -1].tolist()).std / 2
    assert band.high[-1] - band.mean[-1] == pytest.approx(half)


def test_a_diverged_arm_is_reported_and_not_part_of_means(tmp_path: Path, write_study: Study, write_run: Run) -> None:
    folder = write_study(tmp_path / "s", {"plain": 0.0, "fine": 0.1}, seeds=3)
    held = json.loads((folder / "study.json").read_text())
    held["arms"]["wild"] = {"model": {"class_path": "LeNet", "init_args": {"lr": 1e9}}}
    (folder / "study.json").write_text(json.dumps(held))
    (folder / "about.json").unlink()  # a study of before there was one
    for seed in range(2):
        write_run(folder / f"wild/seed-{seed}", seed=seed, state="diverged")
    write_run(folder / "wild/seed-2", seed=2, epochs=1, state="failed", error="no <room>")
    write_run(folder / "wild/seed-7", seed=7, epochs=2, state=None)
    report = build(compare([folder]), "x")
    assert "wild: 2 diverged and 1 failed; no run finished." in report.page.warnings
    assert any("1 of 10 runs are not finished" in line for line in report.page.warnings)
    assert "wild and plain have no finished seed in common: nothing can be concluded." in report.page.findings
    assert any("fine is better" in line for line in report.page.findings)
    page = report_html(report.page)
    assert cells(page, "results")[2][:3] == ["wild", "0 + 2 diverged + 1 failed", "-"]
    assert "no &lt;room&gt;" in page
    curves = arm_curves(compare([folder]), "train/loss")["wild"]
    assert curves.counts == [False, False, False, True]
    assert curves.band().n.tolist() == [1, 1, 0, 0, 0]  # the unfinished one, as far as it is


def test_one_seed_has_no_interval(tmp_path: Path, write_study: Study) -> None:
    report = build(compare([write_study(tmp_path / "s", ARMS, seeds=1)]), "x")
    page = report_html(report.page)
    assert [row[3] for row in cells(page, "results")] == ["-"] * 3
    assert [[*row[4:6], row[7]] for row in cells(page, "differences")] == [["-", "-", "too few runs"]] * 2
    assert "Fewer than two finished runs, so no interval: plain, better, the same." in report.page.warnings
    assert sum("nothing can be concluded from n = 1" in line for line in report.page.findings) == 2
    curves = arm_curves(compare([tmp_path / "s"]), "val/accuracy")["plain"]
    assert np.isnan(curves.band().low).all()


def test_runs_by_hand_are_arms_by_their_settings(tmp_path: Path, write_run: Run) -> None:
    one, other = ({"model": {"class_path": "LeNet", "init_args": {"lr": lr}}} for lr in (0.1, 0.2))
    for seed in range(2):
        write_run(tmp_path / f"low-seed{seed}", seed=seed, config=one, timed=False)
    write_run(tmp_path / "high", seed=0, shift=0.1, config=other)
    write_run(tmp_path / "again", seed=0, config=one)
    folders = [tmp_path / name for name in ("low-seed0", "low-seed1", "high", "again")]
    (folders[1] / "done.json").unlink()
    (folders[2] / "done.json").unlink()
    (folders[2] / "result.json").unlink()  # still runs
    compared = compare(folders)
    assert [(run.arm, run.seed, run.state) for run in compared.runs] == [
        ("low", 0, "done"),
        ("low", 1, "done"),
        ("high", 0, "broken"),
    ]
    assert "again is ignored: it has the same settings and seed as" in compared.notes[0]
    assert (compared.metric, compared.baseline) == ("val/accuracy", "low")
    held = knots(compared.runs[0])  # epochs only from metrics.csv
    assert held[:, :2].tolist() == [[20 * epoch, epoch] for epoch in range(6)]
    assert np.isnan(held[:, 2]).all()
    assert compare(folders, metric="val/loss").mode == "min"
    write_run(tmp_path / "wild", seed=0, state="diverged", config={"model": "x"})
    (tmp_path / "wild/done.json").unlink()
    (tmp_path / "wild/result.json").unlink()  # a guard stopped it
    assert compare([tmp_path / "wild"]).runs[0].state == "diverged"


def test_folders_other_than_training_runs_are_ignored(
    tmp_path: Path, write_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", seed=0)
    for name, path, text in (
        ("swept", "lr_range.json", "{}"),
        ("begun", "config.yaml", "model: {}"),
        ("empty", "notes.txt", ""),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / path).write_text(text)
    write_run(tmp_path / "tested", seed=0)
    (tmp_path / "tested/result.json").write_text('{"command": "test"}')
    names = ("swept", "run", "tested", "begun", "empty")
    assert main(["report", *(str(tmp_path / name) for name in names), "--out", str(tmp_path / "r.html")]) == 0
    said = capsys.readouterr().out
    assert said.count("- Ignored, not a training run: ") == 4
    assert f"{tmp_path}/swept is a folder of lr-find: it has no metrics.csv." in said
    assert f"{tmp_path}/tested is a run of test." in said
    compared = compare([tmp_path / name for name in names])
    assert [run.folder.name for run in compared.runs] == ["run"]
    assert [run.arm for run in compare([tmp_path / "tested"]).runs] == ["tested"]
    assert "swept is a folder of lr-find" in error([str(tmp_path / "swept"), str(tmp_path / "empty")], capsys)


def test_an_arm_without_the_column_is_named(tmp_path: Path, write_run: Run) -> None:
    for name in ("classifier", "pair"):
        write_run(tmp_path / name, seed=0, config={"model": {"class_path": name}})
    path = tmp_path / "pair/metrics.csv"
    path.write_text(path.read_text().replace("val/accuracy,", "val/accuracy/plain,"))
    report = build(compare([tmp_path / "classifier", tmp_path / "pair"]), "x")
    (said,) = [line for line in report.page.findings if line.startswith("pair")]
    assert "metrics.csv of its runs has no column val/accuracy. It has val/accuracy/<dog>, val/accuracy/cat" in said
    assert "val/accuracy/plain" in said
    assert not any("no seed in common" in line for line in report.page.findings)


def test_arms_with_other_data_or_training_get_a_warning(tmp_path: Path, write_run: Run) -> None:
    def said(**change: object) -> str:
        base = {"model.lr": 0.1, "data.num_train": 900, "data.split_seed": 0, "trainer.max_epochs": 5, "data.root": "a"}
        for name, settings in (("one", base), ("two", base | {"model.lr": 0.2} | change)):
            config: dict[str, dict[str, object]] = {}
            for key, value in settings.items():
                section, _, setting = key.partition(".")
                config.setdefault(section, {"class_path": section.title()}).setdefault(setting, value)
            folder = tmp_path / str(len(list(tmp_path.iterdir()))) / name
            write_run(folder, seed=0, config=config)
            folders.append(folder)
        page = build(compare(folders[-2:]), "x").page
        return "\n".join([*page.warnings, *page.findings])

    folders: list[Path] = []
    whole = "The results hold for these settings, this amount of training and this data split."
    assert whole in said()
    assert whole in said(**{"data.root": "b"})
    for key, value in (("data.num_train", 800), ("data.split_seed", 1)):
        text = said(**{key: value})
        assert "The arms use different training or validation data" in text
        assert re.search(rf"\({key}: one \d+, two {value}\)", text)
        assert "The results hold for these settings and this amount of training." in text
    for name in ("CIFAR10DataModule", "MNISTDataModule"):
        config = {"model": {"class_path": "LeNet"}, "data": {"class_path": f"lightning_cifar.data.{name}"}}
        write_run(tmp_path / name, seed=0, config=config)
    page = build(compare([tmp_path / "CIFAR10DataModule", tmp_path / "MNISTDataModule"]), "x").page
    assert "(data: CIFAR10DataModule CIFAR10DataModule, MNISTDataModule MNISTDataModule)" in page.warnings[0]
    text = said(**{"trainer.max_epochs": 6})
    assert "The arms do not have the same amount of training (trainer.max_epochs: one 5, two 6)." in text
    assert "The results hold for these settings and this data split." in text


def test_seconds_of_runs_without_recorded_times(tmp_path: Path, write_run: Run) -> None:
    write_run(tmp_path / "run", seed=0, timed=False)
    path = tmp_path / "run/result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": 12.5}))
    assert cells(report_html(build(compare([tmp_path / "run"]), "x").page), "results")[0][-1] == "12.50"
    path.write_text('{"seconds": null}')
    assert math.isnan(compare([tmp_path / "run"]).runs[0].seconds)


def test_names_are_not_markup_or_formulas(tmp_path: Path, write_study: Study) -> None:
    names = ["=1+1", "<b>bold|</b>", "constructor", "__proto__", "[link](http:x)"]
    folder = write_study(tmp_path / "s", {"plain": 0.0, "=1+1": 0.1}, seeds=2)
    held = json.loads((folder / "study.json").read_text())
    held["arms"] |= {name: {} for name in names}
    (folder / "study.json").write_text(json.dumps(held | {"name": "<script>"}))
    (folder / "about.json").unlink()
    report = build(compare([folder]), "x")
    assert "<" not in report.text
    assert "&lt;b&gt;bold\\|&lt;/b&gt;" in report.text
    assert "](" not in report.text.replace("\\](", "")
    arms = [row["arm"] for row in csv.DictReader(report.csv.decode().splitlines())]
    assert arms == ["plain"] * 2 + ["'=1+1"] * 2
    assert isinstance(report.page.curves["metrics"], list)


def test_an_interval_of_a_share_is_clipped(tmp_path: Path, write_study: Study) -> None:
    folder = write_study(tmp_path / "s", {"plain": 0.0, "wild": 0.1}, seeds=2)
    path = folder / "wild/seed-1/metrics.csv"
    path.write_text(re.sub(r",0\.[67]\d*(,0\.[5-9]\d*,0\.[78]\d*,0\.\d+)", r",0.2\1", path.read_text()))
    compared = compare([folder])
    row = results.table(compared.runs, list(compared.arms), "val/accuracy", "max")[1]
    assert row.final[2] < 0
    assert row.final[3] > 1  # the statistics stay as they are
    built = build(compared, "x")
    page = report_html(built.page)
    assert cells(page, "results")[1][3] == "0* to 100*"
    assert "*" not in cells(page, "results")[0][3]
    note = "The interval is clipped at 0 or 100 %"
    assert f"* {note}" in page
    assert note in built.text
    assert "\\*" not in page
    folder = write_study(tmp_path / "calm", {"plain": 0.0}, seeds=3)
    built = build(compare([folder]), "x")
    assert note not in built.text + report_html(built.page)
    assert results.share_range_text(17.724, 103.21) == "17.72 to 100*"
    assert results.share_range_text(-3.0, 40.1) == "0* to 40.10"
    assert results.share_range_text(100.0, 100.0 + 1e-13) == "100.00 to 100.00"
    assert results.share_range_text(math.nan, math.nan) == "-"


def test_without_out_the_page_is_written_to_the_study(
    tmp_path: Path, write_study: Study, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    names = ["report.csv", "report.html", "report.md"]
    folder = write_study(tmp_path / "s", ARMS, seeds=2)
    run = folder / "plain/seed-0"
    for alone in (folder, run):
        assert main(["report", str(alone)]) == 0
        assert f"report: {alone}/report.html (" in capsys.readouterr().out
        assert sorted(path.name for path in alone.glob("report.*")) == names
    assert not list(Path().iterdir())
    first = (folder / "report.csv").read_bytes()
    assert main(["report", str(folder)]) == 0  # what lies there now is no run, and no reason to refuse
    assert (folder / "report.csv").read_bytes() == first
    assert main(["report", str(run), str(folder / "better/seed-0")]) == 0
    assert sorted(path.name for path in Path().iterdir()) == names
    capsys.readouterr()
    assert "the folder nowhere does not exist: pass the folder of a study" in error(["nowhere"], capsys)


def test_mistakes_are_reported_in_one_line(
    tmp_path: Path, write_study: Study, write_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_study(tmp_path / "s", {"a": 0.0}, seeds=1)
    out = ["--out", str(tmp_path / "r.html")]
    assert "the folder nowhere does not exist" in error(["nowhere", *out], capsys)
    assert "is a file: pass folders" in error([str(folder / "study.json"), *out], capsys)
    (tmp_path / "empty").mkdir()
    assert "empty is neither a run folder nor a study" in error([str(tmp_path / "empty"), *out], capsys)
    assert "It contains runs: pass" in error([str(folder / "a"), *out], capsys)
    (tmp_path / "empty/config.yaml").write_text("model: {}")
    assert "has no metrics.csv" in error([str(tmp_path / "empty"), *out], capsys)
    assert "is a study: pass only this" in error([str(folder), str(tmp_path / "empty"), *out], capsys)
    said = error([str(folder), *out, "--metric", "val/acuracy"], capsys)
    assert "no run has the metric 'val/acuracy'. Did you mean val/accuracy?" in said
    assert "--baseline (=b) must be one of the arms a" in error([str(folder), *out, "--baseline", "b"], capsys)
    assert "there is no option --metrik. Did you mean --metric?" in error([str(folder), "--metrik", "x"], capsys)
    assert "must end in .html" in error([str(folder), "--out", str(tmp_path / "r.csv")], capsys)
    (tmp_path / "r").mkdir()
    (tmp_path / "r/report.html").mkdir()
    assert "report.html is a folder" in error([str(folder), "--out", str(tmp_path / "r")], capsys)
    shutil.rmtree(tmp_path / "r")
    (folder / "a/seed-0/metrics.csv").unlink()
    assert "has written metrics yet" in error([str(folder), *out], capsys)
    (folder / "a/seed-0/done.json").write_text('{"state": "failed", "error": "no data"}')
    said = error([str(folder), *out], capsys)
    assert f"all 1 runs in {folder} failed before they wrote a metric, the first (a, seed 0) with: no data; " in said
    assert f"see {folder}/a/seed-0.log." in said
    assert not list(tmp_path.glob("r.*"))


def test_a_closed_folder(
    tmp_path: Path, write_study: Study, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_study(tmp_path / "s", {"a": 0.0}, seeds=1)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written: permission denied" in error([str(folder), "--out", str(tmp_path / "r.html")], capsys)


def test_it_does_not_import_torch(tmp_path: Path, write_study: Study) -> None:
    folder = write_study(tmp_path / "s", {"a": 0.0}, seeds=1)
    code = "import sys; from lightning_cifar.cli import main; main(sys.argv[1:]); "
    code += "print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    args = ["report", str(folder), "--out", str(tmp_path / "r.html")]
    done = subprocess.run([sys.executable, "-c", code, *args], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False False"


def test_panels_as_pictures(tmp_path: Path, write_study: Study) -> None:
    folder = write_study(tmp_path / "s", ARMS, seeds=2)
    assert main(["report", str(folder), "--out", str(tmp_path / "r.html"), "--png"]) == 0
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    assert names == [f"r-{name}.png" for name in ("train-accuracy", "train-loss", "val-accuracy", "val-loss")]


def test_the_curves_keep_to_their_budget() -> None:
    for lengths in ([10_000] * 300, [10_000] * 300 + [50] * 500, [100] * 10, [5_000_000]):
        pieces = num_pieces(lengths)
        size = sum(16 / 3 * (length if length <= pieces else 3 * pieces) for length in lengths)
        assert size <= BUDGET
    assert num_pieces([100] * 10) > 100


def test_pictures_are_shrunk(tmp_path: Path, write_study: Study) -> None:
    from PIL import Image

    folder = write_study(tmp_path / "s", ARMS, seeds=1) / "plain/seed-0/pictures"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (900, 1500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    (folder / "broken.png").write_bytes(b"\x89PNG")
    content, kind = shrink(folder / "noise.png", 60_000)
    assert (len(content) <= 60_000, kind) == (True, "webp")
    page = build(compare([tmp_path / "s"]), "x").page
    assert list(page.pictures) == ["noise"]
    assert "broken.png cannot be read" in page.picture_notes[0]


def test_pictures_are_opened_by_their_content(
    tmp_path: Path, write_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import EpsImagePlugin, Image

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("started Ghostscript"))
    folder = write_study(tmp_path / "s", {"plain": 0.0}, seeds=1) / "plain/seed-0/pictures"
    folder.mkdir()
    Image.new("RGB", (40, 30)).save(folder / "script.png", "EPS")
    Image.new("RGB", (40, 30)).save(folder / "photograph.png", "JPEG")
    Image.new("1", (8, 8)).save(folder / "bomb.png")
    head = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 1, 0, 0, 0, 0)  # of 300 MB
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + (folder / "bomb.png").read_bytes()[33:])
    Image.new("RGB", (40, 30)).save(tmp_path / "own.png")
    (folder / "link.png").symlink_to(tmp_path / "own.png")
    page = build(compare([tmp_path / "s"]), "x").page
    ((picture,),) = page.pictures.values()
    assert list(page.pictures) == ["photograph"]
    assert picture.kind == "jpeg"
    assert len(page.picture_notes) == 2
    assert "bomb.png cannot be read as a picture (it has more than 89 million pixels" in page.picture_notes[0]
    assert "script.png cannot be read as a picture (not an image (png, jpeg, webp, bmp, gif)" in page.picture_notes[1]
    assert not any("\n" in note for note in page.picture_notes)


def test_a_run_that_is_being_written(tmp_path: Path, write_run: Run) -> None:
    write_run(tmp_path / "r", seed=0, epochs=2)
    path = tmp_path / "r/metrics.csv"
    whole = results.read_curves(tmp_path / "r")
    text = path.read_bytes()
    path.write_bytes(text[:-9])  # the last row is cut off in its number
    part = results.read_curves(tmp_path / "r")
    assert part["train/loss"].value.tolist() == whole["train/loss"].value.tolist()[:-1]
    path.write_bytes(text + b"5,,119,,,,,,,0.4")  # in its last number, of which there may be more
    assert results.read_curves(tmp_path / "r")["val/loss"].value.tolist() == whole["val/loss"].value.tolist()
    path.write_bytes(text.replace(b"0.1,", b"none,", 1))
    assert math.isnan(results.read_curves(tmp_path / "r")["lr"].value[0])
    path.write_bytes(b"")
    assert results.read_curves(tmp_path / "r") == {}


def test_verdicts_of_a_study(tmp_path: Path, write_study: Study) -> None:
    folder = write_study(tmp_path / "s", ARMS, seeds=6)
    held = json.loads((folder / "study.json").read_text())
    rules = {"margin": 0.02, "compare": "all", "looks": 1}
    (folder / "study.json").write_text(json.dumps({**held, **rules}))
    built = build(compare([folder]), "x")
    page = report_html(built.page)
    rows = {(row[0], row[1]): row[-2] for row in cells(page, "differences")}
    assert rows == {("better", "plain"): "better", ("the same", "plain"): "equivalent", ("the same", "better"): "worse"}
    assert "2 of 3 pairs of arms differ significantly in final val/accuracy" in built.text
    assert "the same and plain are equivalent within the margin of 2 points: " in built.text
    assert "smaller than the margin of 2 points" in page
    assert len(cells(report_html(build(compare([folder], compare="baseline"), "x").page), "differences")) == 2
    assert "margin" not in build(compare([folder], metric="val/loss"), "x").text, "declared for another metric"


def test_looks(tmp_path: Path, write_study: Study) -> None:
    folder = write_study(tmp_path / "s", ARMS, seeds=6)
    about = json.loads((folder / "about.json").read_text())
    once = build(compare([folder]), "x")
    assert "looks" not in once.text
    (folder / "about.json").write_text(json.dumps({**about, "seen": [4]}))
    twice = compare([folder])
    assert twice.rules.looks == 2
    text = build(twice, "x").text
    assert "Seeds were added after results were seen (4, then 6 seeds): p-values are multiplied by 2" in text
    assert "The study file declares looks: 1" in text
    assert "at most 7.5%" in text
    held = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**held, "looks": 3}))
    declared = compare([folder])
    assert declared.rules.looks == 3
    assert "declares" not in build(declared, "x").text


def test_better_runs_and_bootstrap(tmp_path: Path, write_study: Study) -> None:
    few, many = (write_study(tmp_path / f"{n}", {"plain": 0.0, "better": 0.03}, seeds=n) for n in (9, 10))
    tables = [build(compare([folder]), "x").page.differences for folder in (few, many)]
    assert ["bootstrap interval*" in table.head for table in tables] == [False, True]
    (row,) = tables[1].rows
    shown = dict(zip(tables[1].head, row, strict=True))
    values = results.finals(compare([many]).runs, ["plain", "better"], "val/accuracy")
    gaps = [100 * (values["better"][seed] - values["plain"][seed]) for seed in range(10)]
    low, high = (float(text) for text in shown["bootstrap interval*"].split(" to "))
    assert low < np.mean(gaps) < high
    assert (low, high) == pytest.approx([float(text) for text in shown["corrected interval*"].split(" to ")], abs=0.3)
    wins = [first > second for first in values["better"].values() for second in values["plain"].values()]
    assert float(shown["better runs %*"]) == pytest.approx(100 * np.mean(wins), abs=0.01)


def test_effects_of_a_grid(tmp_path: Path, write_study: Study) -> None:
    sizes = {"slow plain": 0.0, "slow flip": 0.05, "fast plain": 0.1, "fast flip": 0.25}
    folder = write_study(tmp_path / "s", sizes, seeds=4)
    about = json.loads((folder / "about.json").read_text())
    assert build(compare([folder]), "x").page.sections == []
    rates, augments = {"slow": 0.1, "fast": 0.2}, {"plain": [], "flip": ["flip"]}
    overrides = {arm: {"model.lr": rates[arm.split()[0]], "data.augment": augments[arm.split()[1]]} for arm in sizes}
    (folder / "about.json").write_text(json.dumps({**about, "overrides": overrides}))
    (section,) = build(compare([folder]), "x").page.sections
    names = [row[0] for row in section.table.rows]
    assert names == ["model.lr 0.2", 'data.augment ["flip"]', 'interaction of model.lr 0.2 and data.augment ["flip"]']
    for row, size in zip(section.table.rows, (15.0, 10.0, 10.0), strict=True):
        assert float(row[3]) == pytest.approx(size, abs=1.5)
        assert row[-1] == "shown"
    assert section.pictures[0].content.startswith(b"\x89PNG")
    del overrides["fast flip"]["model.lr"]
    (folder / "about.json").write_text(json.dumps({**about, "overrides": overrides}))
    assert build(compare([folder]), "x").page.sections == [], "not a grid"


def test_sources_of_variance(tmp_path: Path, write_study: Study) -> None:
    folder = write_study(tmp_path / "s", {"plain": 0.0, "better": 0.1}, seeds=3)
    rng, shares = np.random.default_rng(0), {"plain": 0.6, "better": 0.7}
    bits = {(arm, seed): rng.uniform(size=101) < share for arm, share in shares.items() for seed in range(3)}
    for (arm, seed), correct in bits.items():
        np.savez(folder / arm / f"seed-{seed}/correct.npz", bits=np.packbits(correct), count=101)
    compared = compare([folder])
    for run in compared.runs:
        found = read_correct(run)
        assert found is not None
        assert found.tolist() == bits[run.arm, run.seed].tolist()
    (section,) = build(compared, "x").page.sections
    expected = variance_sources([bits["better", seed].astype(int) - bits["plain", seed] for seed in range(3)])
    (row,) = section.table.rows
    assert row[:3] == ["better", "plain", "3"]
    assert row[3:6] == [results.number_text(100 * value) for value in (*expected, expected.total)]
    assert f"can reduce {(expected.seeds / expected.total) ** 2:.0%} of the variance" in row
    assert "101 validation images" in section.notes[0]
    (folder / "plain/seed-0/correct.npz").write_bytes(b"PK")
    assert build(compare([folder]), "x").page.sections[0].table.rows[0][2] == "2"
