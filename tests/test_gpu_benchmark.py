"""``make gpu`` on a CPU with tiny settings: every command of its parts ends well, and a repetition continues."""

import importlib.util
import json
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
    page = gpu.page_of({"steps": record(0, "fine"), "resume": record(1, "first\nlast | line")}, "cuda")
    assert f"1 of {len(gpu.PARTS)} parts are measured" in page
    assert "## Steps of all models without a wait for the device\n\nTarget: none. 1 s on this one." in page
    assert "| resume: A killed and resumed run | last / line |" in page
    assert "| input: Input pipeline with all data on the device | not run yet |" in page


def test_a_repeated_command_continues(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[str] = []

    def measure(part: Any, options: Any) -> dict[str, Any]:
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
    options = gpu.argparse.Namespace(device="cpu", data="data", out=tmp_path, airbench=None, tiny=True)
    found = gpu.measure(gpu.PARTS[0], options)
    assert found["code"] != 0
    assert "stopped after 0.01 seconds" in found["output"]


# All parts take more than a minute, most of it for imports: one belongs to the fast tests.
FAST = ("speed-0",)
SLOW = ("steps", "resume", "input", "throughput-LeNet", "occlusion", "lockstep", "transfer", "dilated-0", "best-0")


def run(gpu: Any, names: tuple[str, ...], folder: Path) -> None:
    command = ["--device", "cpu", "--tiny", "--out", str(folder / "out"), "--page", str(folder / "gpu.md")]
    code = gpu.main([*command, "--parts", *names])
    for name in names:
        found = json.loads((folder / "out" / f"{name}.json").read_text())
        assert found["code"] == 0, found["output"]
        assert found["output"].strip()
    assert code == 0
    assert f"{len(names)} of {len(gpu.PARTS)} parts are measured" in (folder / "gpu.md").read_text()


def test_tiny(gpu: Any, tmp_path: Path) -> None:
    run(gpu, FAST, tmp_path)


@pytest.mark.slow
def test_all_tiny(gpu: Any, tmp_path: Path) -> None:
    run(gpu, SLOW, tmp_path)
