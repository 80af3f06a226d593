"""Fixtures of the fault campaigns: the number of faults, and a server that runs commands in new processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MOST = os.environ.get("LIGHTNING_CIFAR_FAULTS")


@pytest.fixture
def faults() -> Callable[[int], int]:
    """Return a function that limits the number of faults of a campaign to LIGHTNING_CIFAR_FAULTS, if it is set."""
    return lambda whole: min(whole, int(MOST)) if MOST else whole


class Server:
    """See fork_server.py."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs = 0
        args = [sys.executable, str(Path(__file__).with_name("fork_server.py"))]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "LIGHTNING_CIFAR_TRACEBACK": "1"}
        with (folder / "server.log").open("w") as log:
            self.process = subprocess.Popen(
                args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, cwd=folder
            )
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (self.folder / "server.log").read_text()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def run(self, folder: Path, *runs: list[str], **job: Any) -> dict[str, Any]:
        """Run commands in parallel; file operations in ``folder`` are counted."""
        assert self.process.stdin is not None
        self.jobs += 1
        log, note = self.folder / f"job-{self.jobs}.log", self.folder / "note"
        whole = {"runs": runs, "folder": str(folder), "log": str(log), "note": str(note), **job}
        self.process.stdin.write(json.dumps(whole) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        logs = [Path(f"{log}.{i}") for i in range(len(runs))]
        answer["said"] = [each.read_text() if each.exists() else "" for each in logs]  # killed before it wrote
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.kill()  # nothing runs in it between jobs
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()
