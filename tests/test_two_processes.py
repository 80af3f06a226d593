"""A training with two processes on the CPU ends, and only rank zero writes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_cifar import cli

ARGS = [
    "fit",
    "--model",
    "LeNet",
    "--data",
    "SyntheticDataModule",
    "--data.num_train",
    "256",
    "--data.num_val",
    "65",
    "--data.batch_size",
    "32",
    "--trainer.max_epochs",
    "2",
    "--trainer.accelerator",
    "cpu",
    "--trainer.devices",
    "2",
    "--trainer.strategy",
    "ddp",
    "--trainer.log_every_n_steps",
    "1",
]


def run(args: list[str], folder: Path) -> str:
    """The command's output. A run that hangs until pytest's timeout is killed with all of its processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LIGHTNING_CIFAR_TRACEBACK": "1", "COLUMNS": "200"}
    log = folder / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "lightning_cifar", *args],
            cwd=folder,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            code = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    text = log.read_text()
    assert code == 0, text[-3000:]
    return text


def test_fit_with_two_processes(tmp_path: Path) -> None:
    run([*ARGS, "--run_dir", "run"], tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["run"]
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["epochs"] == 2
    assert result["steps"] == 2 * 256 // (2 * 32)
    assert len(list((tmp_path / "run").glob("events.out.*"))) == 1
    assert (tmp_path / "run/checkpoints/best.ckpt").is_file()
    # 65 validation images, shared by two: each counted once.
    correct = result["metrics"]["val/accuracy"] * 65
    assert correct == pytest.approx(round(correct), abs=1e-3)


def _evaluate(verb: str, folder: str, devices: int) -> dict[str, float]:
    """Run ``test`` or ``predict`` on 203 images in batches of 40, and return the metrics."""
    args = [verb, "--model", "LeNet", "--data", "SyntheticDataModule", "--data.num_test", "203"]
    args += ["--data.eval_batch_size", "40", "--run_dir", folder, "--trainer.accelerator", "cpu"]
    args += ["--trainer.devices", str(devices), "--trainer.enable_progress_bar", "false"]
    args += ["--trainer.callbacks", "PredictionGrid"] if verb == "test" else []
    args += ["--trainer.strategy", "ddp_fork"] if devices > 1 else []
    assert cli.main(args) == 0
    result = Path(folder, "result.json")
    return dict(json.loads(result.read_text())["metrics"]) if result.is_file() else {}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.filterwarnings("ignore")  # Lightning's advice on several devices
def test_two_processes_report_the_same_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one, two = _evaluate("test", "one", 1), _evaluate("test", "two", 2)
    assert one.keys() == two.keys()
    assert two == pytest.approx(one, rel=1e-5)
    for name in ("confusion_test.csv", "mistakes_test.csv"):
        assert Path("two", name).read_text() == Path("one", name).read_text()
    _evaluate("predict", "p1", 1)
    _evaluate("predict", "p2", 2)
    rows = Path("p2/predictions.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["image", *map(str, range(203))]
    assert rows == Path("p1/predictions.csv").read_text().splitlines()
