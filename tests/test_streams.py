"""Output streams that are closed, full, or cannot encode the name of a class."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_cifar.studies.jobs import redirect_output

# Prints three times more than a buffer holds, as a run between two epochs does.
PRINTS = """
import sys
from lightning_cifar import streams
streams.protect({args})
for _ in range(3):
    print("\\u65e5\\u672c" + "x" * 10_000, flush=True)
    print("progress", file=sys.stderr)
open("result", "w").write("done")
"""


def process(args: list[str], folder: Path, redirection: str) -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -c '{PRINTS.format(args=args).replace(chr(39), chr(34))}' {redirection}"
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("redirection", [">&-", ">&- 2>&-", "<&- >&- 2>&-", "| true", "2>&1 | true", ">/dev/full"])
def test_a_run_continues_without_its_output(redirection: str, tmp_path: Path) -> None:
    done = process(["fit", "--model", "LeNet"], tmp_path, redirection)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "result").read_text() == "done"
    assert "Traceback" not in done.stderr
    assert done.stderr.count("the run continues without it") == (redirection in ("| true", ">/dev/full"))


@pytest.mark.parametrize("args", [["report", "runs"], ["fit", "--help"], ["fit", "--model.help=LeNet"]])
def test_a_help_text_ends_with_its_reader(args: list[str], tmp_path: Path) -> None:
    done = process(args, tmp_path, "| true")
    assert done.returncode != 0
    assert not (tmp_path / "result").exists()


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        ("| true", 141, ""),
        (">/dev/full", 2, "lightning-cifar: error: the output cannot be written: No space left on device\n"),
        (">&-", 0, ""),
    ],
)
def test_the_exit_code_of_a_short_command(redirection: str, code: int, said: str, tmp_path: Path) -> None:
    command = f"set -o pipefail; {sys.executable} -m lightning_cifar --help {redirection}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.parametrize("args", [["fit"], ["report"]])
def test_a_character_that_cannot_be_shown_is_escaped(args: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    code = PRINTS.format(args=args)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(r"\u65e5\u672cxxx")


def test_the_log_of_a_study_shows_every_character(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from {redirect_output.__module__} import redirect_output; "
    code += "redirect_output(Path('log')); print('\\u65e5')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=environment)
    assert (tmp_path / "log").read_text(encoding="utf-8") == "\u65e5\n"
