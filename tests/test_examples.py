"""Each example runs in its own folder and prints the expected text; the notebook runs in a real kernel."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
SAYS = {
    "distillation": r"LeNet: .*%\n(.*\n)*DistilledLeNet: validation accuracy \d+\.\d%",
    "export": r"(true class \w+, predicted \w+\n){8}",
    "find_lr": r"trained with a peak of 0\.\d+",
    "hand_made": r"difference to torch \d\.\de-1\d",
    "own_callback": r"picture: .*weight_norms\.png",
    "own_data": r"\('across', 'aslant', 'down'\)",
    "own_model": r"test/accuracy",
    "resume": r"interrupted: .*\n(.*\n)*bit-identical: True",
    "see_inside": r"lowers the probability most",
    "side_by_side": r"batch_norm: validation accuracy",
    "study": r"today is (better|worse) than as in 1998|No difference between|today differs from",
    "train": r"best checkpoint: runs/examples/train/checkpoints/.*\.ckpt",
    "transfer": r"a head on a trained body, 300 images: \d+\.\d%",
}

SMALLER = {  # as many steps as a test needs
    r"num_train([=: ]+)\d{4}": r"num_train\g<1>320",
    r"max_epochs=(10|5)": "max_epochs=3",
    r"max_epochs: 4": "max_epochs: 1",
    r"seeds: 3": "seeds: 2",
    r"global_step == 50": "global_step == 8",
    r"every_n_steps=50": "every_n_steps=5",
    r"LRRangeFinder\(num_sweeps=2\)": "LRRangeFinder(num_steps=50, num_sweeps=2)",
}

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*already configured with model summary.*"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty.*"),
]


def test_each_is_listed() -> None:
    guide = (EXAMPLES.parent / "docs" / "guide.md").read_text()
    assert set(SAYS) == set(NAMES)
    assert [name for name in NAMES if f"examples/{name}.py" not in guide] == []


def smaller(text: str) -> str:
    for pattern, replacement in SMALLER.items():
        text = re.sub(pattern, replacement, text)
    return text


def copy_smaller(name: str, folder: Path) -> Path:
    path = folder / f"{name}.py"
    path.write_text(smaller((EXAMPLES / path.name).read_text()))
    return path


@pytest.mark.parametrize("name", [name for name in NAMES if name != "study"])
def test_it_runs_and_prints_the_expected_text(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if name == "export":
        for package in ("onnxruntime", "onnxscript"):
            pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    runpy.run_path(str(copy_smaller(name, tmp_path)), run_name="__main__")
    assert re.search(SAYS[name], capfd.readouterr().out)
    for picture in tmp_path.rglob("*.png"):
        assert picture.stat().st_size > 1000


@pytest.mark.slow
def test_the_study_runs(tmp_path: Path) -> None:
    """In a process of its own: its runs are processes that import the file again."""
    args = [sys.executable, str(copy_smaller("study", tmp_path))]
    done = subprocess.run(args, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(SAYS["study"], done.stdout)
    assert (tmp_path / "runs/examples/study/report.html").stat().st_size > 10_000


def test_the_notebook_runs_and_shows_its_pictures(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    notebook = nbformat.read(EXAMPLES / "first_run.ipynb", 4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "it is kept without outputs"
    for cell in notebook.cells:
        cell.source = smaller(cell.source)
    client = nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = [
        (cell.source.splitlines()[0], kind)
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        for kind in output.get("data", {})
        if kind.startswith("image/")
    ]
    assert [kind for _, kind in shown] == ["image/png", "image/gif", "image/png", "image/png", "image/png"]
    said = json.dumps([cell.get("outputs") for cell in notebook.cells], ensure_ascii=False)
    assert "found lr: " in said
    for unwanted in ("Tip:", "litlogger", "Warning", "deprecated", "the divergence supports"):
        assert unwanted not in said
    assert shown[3][0].startswith("images, labels"), "a Figure that ends a cell is drawn, without pyplot"
