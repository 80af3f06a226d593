"""Files that a run writes with any callbacks, loggers and Trainer settings of the user, on tiny data."""

from __future__ import annotations

import csv
import json
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import Namespace
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lightning_cifar import cli
from lightning_cifar.runs.trainer_settings import fastest_precision, precision_hint

DATA = [
    *("--data", "SyntheticDataModule", "--data.num_train", "96", "--data.num_val", "40", "--data.num_test", "50"),
    *("--data.batch_size", "32", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
]
FIT = ["fit", "--model", "LeNet", *DATA, "--trainer.max_epochs", "3"]
GUIDE = Path(__file__).parents[1] / "docs/guide.md"
PLAIN, WIDE = "{class_path: MLP, init_args: {hidden_sizes: [8]}}", "{class_path: MLP, init_args: {hidden_sizes: [16]}}"
MEMBERS = f"{{plain: {PLAIN}, wide: {WIDE}}}"
PAIR = ["fit", "--model", "SideBySide", "--model.members", MEMBERS, *DATA, "--trainer.max_epochs", "4"]

pytestmark = pytest.mark.usefixtures("in_tmp")


def table(folder: str) -> list[dict[str, str]]:
    with Path(folder, "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def logged(folder: str, name: str) -> list[float]:
    return [float(row[name]) for row in table(folder) if row[name]]


def result(folder: str) -> dict[str, Any]:
    return dict(json.loads(Path(folder, "result.json").read_text()))


def checkpoint(path: str) -> dict[str, Any]:
    return dict(torch.load(path, weights_only=True))


@pytest.mark.parametrize("monitor", [["val/accuracy", "max"], ["val/loss", "min"], None], ids=str)
def test_checkpoints_of_the_user_are_written_beside_best_and_last(monitor: list[str] | None) -> None:
    own = ["--trainer.callbacks", "ModelCheckpoint", "--trainer.callbacks.dirpath", "own"]
    if monitor:
        own += ["--trainer.callbacks.monitor", monitor[0], "--trainer.callbacks.mode", monitor[1]]
    assert cli.main([*FIT, *own, "--run_dir", "run", "--test_after_fit", "true"]) == 0
    assert len(list(Path("own").glob("*.ckpt"))) == 1
    assert checkpoint("run/checkpoints/last.ckpt")["global_step"] == 9
    scores = logged("run", "val/accuracy")
    assert checkpoint("run/checkpoints/best.ckpt")["global_step"] == 3 * (scores.index(max(scores)) + 1)
    found = result("run")
    assert (found["best"], found["best_metric"]) == (pytest.approx(max(scores)), "val/accuracy")


def test_a_checkpoint_of_the_same_name_replaces_the_default() -> None:
    own = ["--trainer.callbacks", "ModelCheckpoint", "--trainer.callbacks.filename", "best"]
    own += ["--trainer.callbacks.monitor", "val/loss"]
    assert cli.main([*FIT, *own, "--run_dir", "run"]) == 0
    assert {path.name for path in Path("run/checkpoints").glob("*.ckpt")} >= {"best.ckpt", "last.ckpt"}
    assert result("run")["best_metric"] == "val/loss"
    assert result("run")["best"] == pytest.approx(min(logged("run", "val/loss")))


@pytest.mark.filterwarnings("ignore:LossCurves found none")  # it looks before the module has logged its first epoch
def test_which_weights_are_tested_is_printed_and_the_guide_lists_every_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*FIT, "--run_dir", "a", "--test_after_fit", "true"]) == 0
    said = capsys.readouterr().out
    assert "test of a/checkpoints/best.ckpt (best val/accuracy)" in said
    assert f"test/accuracy {result('a')['metrics']['test/accuracy']:.4g}" in said
    rows = [
        line.split("|")[1]
        for line in GUIDE.read_text().split("| file | contents |")[1].split("\n\n")[0].splitlines()[2:]
    ]
    patterns = re.findall("`(.*?)`", "".join(rows))
    files = [str(path.relative_to("a")) for path in Path("a").rglob("*") if path.is_file()]
    assert [name for name in files if not any(fnmatch(name, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in files)] == []
    assert cli.main([*FIT, "--run_dir", "c", "--test_after_fit", "true", "--trainer.limit_val_batches", "0"]) == 0
    assert "test of c/checkpoints/best.ckpt (the last epoch, since there is no validation)" in capsys.readouterr().out
    late = ["--trainer.check_val_every_n_epoch", "5"]
    assert cli.main([*FIT, "--run_dir", "b", "--test_after_fit", "true", *late]) == 0
    assert "test of the last weights (there is no best checkpoint: no validation ran)" in capsys.readouterr().out
    assert result("b")["best"] is None


@pytest.mark.parametrize("own", [["CSVLogger", "elsewhere"], ["TensorBoardLogger", "elsewhere"]], ids=str)
def test_a_logger_of_the_user_leaves_the_run_folder_complete(
    own: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--trainer.logger", own[0], "--trainer.logger.save_dir", own[1]]
    assert cli.main([*FIT, *args, "--trainer.max_epochs", "2", "--run_dir", "run"]) == 0
    assert "TensorBoard: tensorboard --logdir run" in capsys.readouterr().out
    names = {path.name for path in Path("run").iterdir()}
    assert names >= {"config.yaml", "metrics.csv", "result.json", "checkpoints", "pictures", "class_accuracy_val.csv"}
    assert list(Path("run").glob("events.out.tfevents.*"))
    added = [path.name for path in Path("elsewhere").rglob("*") if path.is_file()]
    assert any(name == "metrics.csv" if own[0] == "CSVLogger" else name.startswith("events.") for name in added)
    assert not any(name.endswith((".png", ".ckpt")) for name in added)
    assert cli.main(["fit", "--resume", "run", "--trainer.max_epochs", "3"]) == 0
    assert len(logged("run", "val/loss")) == 3


def test_a_logger_that_writes_into_the_run_folder_replaces_the_default() -> None:
    args = ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "run", "--trainer.logger.name", ""]
    assert cli.main([*FIT, *args, "--trainer.logger.version", "", "--run_dir", "run"]) == 0
    assert len(logged("run", "val/loss")) == 3


def test_without_a_logger_no_tensorboard_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*FIT, "--trainer.logger", "false", "--run_dir", "run"]) == 0
    assert "tensorboard" not in capsys.readouterr().out.lower()
    assert not Path("run/metrics.csv").exists()
    assert Path("run/checkpoints/best.ckpt").is_file()


def test_metrics_and_tensorboard_of_a_continued_run_have_the_same_rows() -> None:
    every = ["--trainer.log_every_n_steps", "1"]
    assert cli.main([*FIT, *every, "--trainer.max_epochs", "2", "--run_dir", "a"]) == 0
    args = ["--ckpt_path", "a/checkpoints/last.ckpt", "--trainer.max_epochs", "3", "--run_dir", "b"]
    assert cli.main(["fit", *args]) == 0  # in a new folder, and in its own
    assert cli.main(["fit", "--resume", "a", "--trainer.max_epochs", "3"]) == 0
    for folder in "ab":
        events = EventAccumulator(folder, {"scalars": 0})
        events.Reload()
        shared = [tag for tag in events.Tags()["scalars"] if not tag.startswith(("best/", "end/", "run/"))]
        assert "hp_metric" not in shared
        points = {(tag, event.step): event.value for tag in shared for event in events.Scalars(tag)}
        rows = [(int(row.pop("step")), row) for row in table(folder)]
        cells = {(name, step): float(value) for step, row in rows for name, value in row.items() if value}
        assert points == pytest.approx(cells, rel=1e-6)
        assert {step for _, step in cells} >= set(range(9))


def test_each_of_several_networks_is_tested_at_its_best(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*PAIR, "--run_dir", "run", "--test_after_fit", "true", "--model.shared", "{lr: 0.3}"]) == 0
    said = capsys.readouterr().out
    assert "test of run/checkpoints/best.ckpt (each network at its best val/accuracy)" in said
    found = result("run")
    for name in ("plain", "wide"):
        accuracy, loss = (found["metrics"][f"test/{metric}/{name}"] for metric in ("accuracy", "loss"))
        assert f"{name}  test/loss {loss:.4g}  test/accuracy {accuracy:.4g}" in said
        assert found["best"][name] == pytest.approx(max(logged("run", f"val/accuracy/{name}")))
        assert found["best_metric"][name] == "val/accuracy"
    assert cli.main(["validate", "--ckpt_path", "run/checkpoints/best.ckpt", "--run_dir", "v"]) == 0
    again = result("v")["metrics"]
    assert {name: again[f"val/accuracy/{name}"] for name in ("plain", "wide")} == pytest.approx(found["best"])


def test_several_networks_predict_into_separate_files() -> None:
    assert cli.main(["predict", *PAIR[1:-2], "--run_dir", "p"]) == 0
    for name in ("plain", "wide"):
        assert len(Path(f"p/predictions_{name}.csv").read_text().splitlines()) == 51


def test_the_result_names_the_processor() -> None:
    assert cli.main([*FIT, "--trainer.max_epochs", "1", "--run_dir", "run"]) == 0
    name = result("run")["machine"]["processor"]
    cpuinfo = Path("/proc/cpuinfo")
    assert name
    assert "model name" not in (text := cpuinfo.read_text() if cpuinfo.is_file() else "") or name in text


def test_automatic_precision_is_resolved_before_it_is_stored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = [*FIT, "--trainer.max_epochs", "1", "--trainer.precision", "auto"]
    for precision in ("bf16-mixed", "32-true"):
        monkeypatch.setattr("lightning_cifar.runs.cli.fastest_precision", lambda kind, found=precision: (found, "..."))
        assert cli.main([*fit, "--run_dir", precision]) == 0
        assert f"precision: {precision}, because ..." in capsys.readouterr().out
        assert f"precision: {precision}\n" in Path(precision, "config.yaml").read_text()
        assert result(precision)["machine"]["precision"] == precision


@pytest.mark.parametrize(
    ("accelerator", "flags", "expected"),
    [
        ("auto", "avx512_bf16 amx_bf16 amx_tile", "bf16-mixed"),
        ("cpu", "avx512_bf16 amx_bf16 amx_tile", "bf16-mixed"),
        ("cpu", "avx512f avx512_bf16", "32-true"),
        ("cpu", "AuthenticAMD avx512f avx512_bf16", "bf16-mixed"),
        ("mps", "avx512_bf16 amx_bf16 amx_tile", "32-true"),
    ],
)
def test_automatic_precision_needs_a_device_that_computes_in_bfloat16(
    accelerator: str, flags: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(Path, "read_text", lambda path: f"flags : fpu {flags} sse\n")
    assert fastest_precision(accelerator)[0] == expected
    large, small = nn.Conv2d(64, 128, 3), nn.Conv2d(3, 8, 3)
    trainer = Namespace(accelerator=accelerator, precision=None)
    assert bool(precision_hint(trainer, large)) == (expected != "32-true")
    assert not precision_hint(trainer, small)
    assert not precision_hint(Namespace(accelerator=accelerator, precision="32-true"), large)


def test_compiled_networks_keep_the_names_of_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda call, **_: compiled.append(call) or call)
    assert cli.main([*FIT, "--trainer.max_epochs", "1", "--compile", "true", "--run_dir", "run"]) == 0
    assert len(compiled) == 1
    weights = torch.load("run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert not [name for name in weights if "_orig_mod" in name]
    compiled.clear()
    assert cli.main([*PAIR, "--compile", "true", "--run_dir", "pair"]) == 0
    assert len(compiled) == 2


def test_pretrained_networks_are_not_compiled(capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--model", "PretrainedSqueezeNet", "--model.weights", "null", "--model.input_size", "32"]
    assert cli.main(["fit", *model, *DATA, "--compile", "true", "--run_dir", "run"]) == 2
    assert "compile (=true) has no effect on PretrainedSqueezeNet" in capsys.readouterr().err
    assert not Path("run").exists()


def test_steps_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*FIT, "--trainer.log_every_n_steps", "0", "--run_dir", "run"]) == 0
    assert "train/loss_step" not in table("run")[0]
    assert len(logged("run", "train/loss")) == 3
    capsys.readouterr()
    assert cli.main([*FIT, "--trainer.barebones", "true", "--run_dir", "bare"]) == 2
    assert "error: trainer.barebones (=true) turns off checkpoints and logs" in capsys.readouterr().err
    assert not Path("bare").exists()


def test_a_last_batch_of_one_is_refused_with_batch_norm(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["fit", "--model", "MLP", "--model.hidden_sizes", "[8]", "--model.batch_norm", "true", *DATA]
    args += ["--data.num_train", "97", "--trainer.max_epochs", "1"]
    assert cli.main([*args, "--run_dir", "run"]) == 2
    assert "1 sample (97 in batches of 32), which batch normalisation cannot train on: set data.batch_size to 33" in (
        capsys.readouterr().err
    )
    assert not Path("run").exists()
    assert cli.main([*args, "--data.batch_size", "33", "--run_dir", "run"]) == 0
    assert cli.main([*args, "--trainer.limit_train_batches", "3", "--run_dir", "cut"]) == 0
    assert cli.main([*args, "--model.batch_norm", "false", "--run_dir", "plain"]) == 0


def test_a_skipped_sweep_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*FIT, "--trainer.max_epochs", "1", "--run_dir", "a"]) == 0
    args = ["fit", "--ckpt_path", "a/checkpoints/last.ckpt", "--config", "configs/callbacks/lr_finder.yaml"]
    assert cli.main([*args, "--trainer.max_epochs", "2", "--run_dir", "b"]) == 0
    assert "no learning-rate sweep: the training resumes from a/checkpoints/last.ckpt" in capfd.readouterr().err
    assert not Path("b/lr_range.csv").exists()


@pytest.mark.parametrize("option", ["--model.image_size", "--model.init_args.image_size"])
def test_what_the_data_determine_is_not_replaced_silently(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*FIT, option, "64", "--run_dir", "run"]) == 2
    assert "model.image_size (=64) is 32 in the data: leave it out." in capsys.readouterr().err
