"""``make gpu`` on a CPU with tiny settings: every command of its parts ends well, and a repetition continues."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).parent.parent / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_parts_have_names_of_their_own_and_ready_commands(gpu: Any) -> None:
    names = [part.name for part in gpu.PARTS]
    assert len(set(names)) == len(names)
    for part in gpu.PARTS:
        words = part.command.split()
        for word in words:
            if word.endswith((".py", ".yaml")) and word[0] != "{":
                assert (PATH.parent.parent / word).is_file(), (part.name, word)


def record(code: int, output: str) -> dict[str, Any]:
    return {"command": "python x.py", "machine": "this one", "output": output, "code": code, "seconds": 1.0}


def test_the_page_holds_figures_and_what_is_missing(gpu: Any) -> None:
    page = gpu.page_of({"steps": record(0, "fine"), "resume": record(1, "first\nlast | line")}, gpu.parse([]))
    assert f"1 of {len(gpu.PARTS)} parts are measured" in page
    assert "## Steps of all models without a wait for the device\n\nTarget: none. 1 s on this one." in page
    assert "| `resume` | A killed and resumed run | the bits of the whole run | last / line |" in page
    assert "at most 2 % of a DilatedNet step | not run yet |" in page
    assert "\npython benchmarks/input_pipeline.py --device cuda\n" in page


def test_the_page_in_docs_lists_all_parts(gpu: Any) -> None:
    page = (gpu.ROOT / "docs" / "gpu.md").read_text()
    if "Nothing has been measured" in page:
        assert page == gpu.page_of({}, gpu.parse([])), "run python benchmarks/gpu.py --parts"
    assert page.startswith(gpu.INTRODUCTION)
    assert [part.title for part in gpu.PARTS if f"| {part.title.partition(', seed')[0]} |" not in page] == []


def test_trials_do_not_write_the_page_in_docs(gpu: Any) -> None:
    assert gpu.parse([]).page == gpu.ROOT / "docs" / "gpu.md"
    for options in (["--tiny"], ["--device", "cpu"]):
        trial = gpu.parse(options)
        assert gpu.ROOT / trial.out == trial.page.parent
        assert trial.out != gpu.parse([]).out


def test_a_training_that_was_stopped_is_resumed(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def run(words: list[str], **_: Any) -> Any:
        started.append(words[1:])
        return gpu.argparse.Namespace(returncode=0, stdout="done")

    monkeypatch.setattr(gpu.subprocess, "run", run)
    monkeypatch.setattr(gpu, "machine", lambda device: "this one")
    part = next(part for part in gpu.PARTS if part.name == "best-0")
    options = gpu.parse(["--out", str(tmp_path)])
    folder = tmp_path / "best-0"
    for name in ("config.yaml", "checkpoints/resume.ckpt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    resumed = gpu.measure(part, options, 600.0)
    (folder / "result.json").touch()
    repeated = gpu.measure(part, options, 600.0)
    assert started == [["-m", "lightning_cifar", "fit", "--resume", str(folder)], gpu.command_of(part, options)]
    assert resumed["seconds"] > 600 > repeated["seconds"]
    assert resumed["command"] == repeated["command"]
    assert not folder.exists()


def test_a_repeated_command_continues(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[str] = []

    def measure(part: Any, options: Any, spent: float) -> dict[str, Any]:
        started.append(part.name)
        return record(int(part.name == "resume" and len(started) < 3), "done")

    monkeypatch.setattr(gpu, "measure", measure)
    command = ["--out", str(tmp_path / "out"), "--page", str(tmp_path / "gpu.md"), "--parts", "steps", "resume"]
    assert gpu.main(command) == 1
    assert gpu.main(command) == 0
    assert gpu.main(command) == 0
    assert started == ["steps", "resume", "resume"]
    assert "2 of" in (tmp_path / "gpu.md").read_text()


def test_a_part_that_takes_too_long_is_stopped(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "LIMIT", 0.01)
    options = gpu.parse(["--device", "cpu", "--tiny", "--out", str(tmp_path)])
    found = gpu.measure(gpu.PARTS[0], options)
    assert found["code"] != 0
    assert "stopped after 0.01 seconds" in found["output"]


def run(gpu: Any, names: list[str], folder: Path) -> None:
    script = folder / "airbench.py"
    script.write_text("print('94 %')")
    command = ["--device", "cpu", "--tiny", "--out", str(folder / "out"), "--airbench", str(script)]
    code = gpu.main([*command, "--parts", *names])
    for name in names:
        found = json.loads((folder / "out" / f"{name}.json").read_text())
        assert found["code"] == 0, found["output"]
        assert found["output"].strip()
    assert code == 0
    assert f"{len(names)} of {len(gpu.PARTS)} parts are measured" in (folder / "out" / "gpu.md").read_text()


def test_tiny(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = {*gpu.ROOT.glob("runs/*")}
    run(gpu, ["speed-0", "airbench"], tmp_path)
    assert (tmp_path / "out" / "speed-0" / "result.json").is_file()
    assert {*gpu.ROOT.glob("runs/*")} == before


@pytest.mark.slow
def test_all_tiny(gpu: Any, tmp_path: Path) -> None:
    """All parts but those that differ only in their seed from another."""
    run(gpu, [part.name for part in gpu.PARTS if not re.search("-[1-4]$", part.name)], tmp_path)
