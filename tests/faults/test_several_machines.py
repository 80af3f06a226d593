"""Two nodes on one machine: network namespaces with addresses of their own, which only a virtual cable connects.

Runs on two nodes (DDP with gloo) and studies on a Ray cluster of two nodes give the results of one node. A node is
killed with all of its processes; the run ends with an error and resumes, and the study completes. Needs root and
iproute2.
"""

from __future__ import annotations

import csv
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

KILLS = runpy.run_path(str(Path(__file__).with_name("test_kills.py")))
outcome, differences = KILLS["outcome"], KILLS["differences"]

LENET = {"class_path": "LeNet", "init_args": {"dropout": 0.2, "mixup": 0.3, "optimizer": "adam", "lr": 0.003}}
SIDE_BY_SIDE = {
    "class_path": "SideBySide",
    "init_args": {
        "shared": {"hidden_sizes": [8], "lr": 0.05},
        "members": {"plain": {"class_path": "MLP"}, "dropout": {"class_path": "MLP", "init_args": {"dropout": 0.5}}},
    },
}
GIF = {"class_path": "WeightGIF", "init_args": {"every_n_epochs": 1, "columns": 2, "max_kernels": 2}}
TRAINER = {"max_epochs": 8, "log_every_n_steps": 1, "enable_progress_bar": False, "accelerator": "cpu"}
DATA = {
    "class_path": "SyntheticDataModule",
    "init_args": {"num_train": 202, "num_val": 65, "num_test": 43, "batch_size": 16, "augment": ["flip", {"crop": 4}]},
}


def command(*args: str) -> None:
    subprocess.run(args, check=True, capture_output=True, text=True)


class Node:
    """A network namespace, in which programs run. They share the file system with the other nodes."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *args: str, folder: Path, log: Path, **environment: str) -> subprocess.Popen[bytes]:
        whole = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment}
        with log.open("w") as file:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *args], cwd=folder, stdout=file, stderr=file, env=whole
            )
        self.started.append(process)
        return process

    def kill(self) -> None:
        """Kill all processes of the node at once, as when its power fails."""
        while found := subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, check=True).stdout:
            for pid in map(int, found.split()):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            for process in self.started:
                process.poll()  # without it, an ended process would stay in the list
        for process in self.started:
            process.wait()


@pytest.fixture
def nodes() -> Iterator[tuple[Node, Node]]:
    """Two nodes, 10.77.0.1 and 10.77.0.2, that cannot reach anything else."""
    if shutil.which("ip") is None:
        pytest.skip("needs ip (Debian: apt-get install iproute2)")
    first, second = (Node(f"lightning{os.getpid()}-{i}", f"10.77.0.{i}") for i in (1, 2))
    try:
        command("ip", "netns", "add", first.name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces need root: {error.stderr.strip()}")
    try:
        command("ip", "netns", "add", second.name)
        peer = ["peer", "name", "cable", "netns", second.name]
        command("ip", "link", "add", "cable", "netns", first.name, "type", "veth", *peer)
        for node in (first, second):
            command("ip", "-n", node.name, "address", "add", f"{node.address}/24", "dev", "cable")
            for device in ("cable", "lo"):
                command("ip", "-n", node.name, "link", "set", device, "up")
        yield first, second
    finally:
        for node in (first, second):
            node.kill()
            command("ip", "netns", "delete", node.name)


def wait_for(happened: Callable[[], bool], *processes: subprocess.Popen[bytes]) -> None:
    """Wait until something happened while the processes run, for as long as pytest's timeout lets a test run."""
    while not happened():
        assert all(process.poll() is None for process in processes), "a process ended too early"
        time.sleep(0.005)


# ---------------------------------------------------------------- DDP


class Runs:
    """Commands of ``lightning-cifar`` with two processes, on one node or on two.

    The folder of a node is ``folder/NAME``: both may have the same one.
    """

    def __init__(self, nodes: tuple[Node, Node], folder: Path) -> None:
        self.nodes, self.folder = nodes, folder
        self.port = 29500

    def one(self, *args: str) -> None:
        """Run a command with two processes on the first node."""
        self._end([self._start(self.nodes[0], args, "one", "devices", {})], [0])

    def begin(self, args: tuple[str, ...], *folders: str) -> list[subprocess.Popen[bytes]]:
        """Start a command with one process on each node, in these folders."""
        self.port += 1  # that of an earlier run may still be in use
        both = {"MASTER_ADDR": self.nodes[0].address, "MASTER_PORT": str(self.port), "GLOO_SOCKET_IFNAME": "cable"}
        return [
            self._start(node, args, folder, "num_nodes", {**both, "NODE_RANK": str(rank)})
            for rank, (node, folder) in enumerate(zip(self.nodes, folders, strict=True))
        ]

    def two(self, *args: str, folders: tuple[str, str]) -> None:
        """Run a command with one process on each node."""
        self._end(self.begin(args, *folders), [0, 0])

    def log(self, node: Node) -> str:
        return (self.folder / f"{node.name}.log").read_text()

    def _start(
        self, node: Node, args: tuple[str, ...], folder: str, option: str, environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        path = self.folder / folder
        path.mkdir(exist_ok=True)
        counts = {"num_nodes": "1", "devices": "1", option: "2"}
        options = [word for name, value in counts.items() for word in (f"--trainer.{name}", value)]
        words = [sys.executable, "-m", "lightning_cifar", *args, *options, "--trainer.strategy", "ddp"]
        return node.start(*words, folder=path, log=self.folder / f"{node.name}.log", **environment)

    def _end(self, processes: list[subprocess.Popen[bytes]], codes: list[int]) -> None:
        found = [process.wait() for process in processes]
        assert found == codes, "\n".join(self.log(node)[-3000:] for node in self.nodes[: len(codes)])


@pytest.fixture
def runs(nodes: tuple[Node, Node], tmp_path: Path) -> Runs:
    return Runs(nodes, tmp_path)


def fit(folder: Path, model: dict[str, Any]) -> tuple[str, ...]:
    trainer = {**TRAINER, "callbacks": [GIF] if model is LENET else []}
    path = folder / "fit.yaml"
    path.write_text(yaml.safe_dump({"trainer": trainer, "model": model, "data": DATA, "test_after_fit": True}))
    return ("fit", "--config", str(path), "--run_dir", "run")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("model", [LENET, SIDE_BY_SIDE], ids=["lenet", "side_by_side"])
def test_two_nodes_train_like_one(model: dict[str, Any], runs: Runs, tmp_path: Path) -> None:
    """To the bit, with a folder that both nodes share and with separate ones, also if a node is killed."""
    args = fit(tmp_path, model)
    runs.one(*args)
    end = outcome(tmp_path / "one/run")

    runs.two(*args, folders=("shared", "shared"))
    assert differences(end, outcome(tmp_path / "shared/run")) == []
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["run"]

    runs.two(*args, folders=("first", "second"))
    assert differences(end, outcome(tmp_path / "first/run")) == []
    assert files(tmp_path / "second") == [], "only rank zero writes"


@pytest.mark.parametrize("killed", [0, 1])
@pytest.mark.parametrize("model", [LENET, SIDE_BY_SIDE], ids=["lenet", "side_by_side"])
def test_a_killed_node_ends_the_run_which_resumes(
    model: dict[str, Any], killed: int, runs: Runs, tmp_path: Path
) -> None:
    """The other node reports it; with separate folders, the folder of the run is copied to the second node."""
    args = fit(tmp_path, model)
    runs.one(*args)
    folders = ("shared", "shared") if killed else ("first", "second")
    run = tmp_path / folders[0] / "run"
    processes = runs.begin(args, *folders)
    wait_for((run / "checkpoints/resume.previous.ckpt").exists, *processes)
    runs.nodes[killed].kill()
    code = processes[1 - killed].wait()
    text = runs.log(runs.nodes[1 - killed])
    assert not (run / "result.json").exists(), "it was killed in the middle"
    assert code == 2, text
    last = text.splitlines()[-1]
    assert "no connection to another process of this training" in last, text
    assert ("--resume run" in last) == bool(killed)
    assert "Traceback" not in text

    if not killed:
        assert files(tmp_path / "second") == []
        shutil.copytree(run, tmp_path / "second/run")
        before = files(tmp_path / "second")
    runs.two("fit", "--resume", "run", folders=folders)
    assert differences(outcome(tmp_path / "one/run"), outcome(run)) == []
    if not killed:
        assert files(tmp_path / "second") == before


def test_two_nodes_evaluate_like_one(runs: Runs, tmp_path: Path) -> None:
    runs.one(*fit(tmp_path, LENET), "--trainer.max_epochs", "1")
    checkpoint = str(tmp_path / "one/run/checkpoints/best.ckpt")
    for verb in ("validate", "test", "predict"):
        args = (verb, "--ckpt_path", checkpoint, "--run_dir", verb, "--trainer.accelerator", "cpu")
        runs.one(*args)
        runs.two(*args, folders=("shared", "shared"))
        runs.two(*args, folders=("first", "second"))
        tables = [path.name for path in (tmp_path / "one" / verb).glob("*.csv")]
        assert tables
        for name in ("shared", "first"):
            folder = tmp_path / name / verb
            for table in tables:
                assert (folder / table).read_bytes() == (tmp_path / "one" / verb / table).read_bytes(), table
            if verb != "predict":
                results = [
                    json.loads((each / verb / "result.json").read_text()) for each in (tmp_path / "one", folder.parent)
                ]
                assert results[0]["metrics"] == results[1]["metrics"]
        if verb == "predict":
            with (tmp_path / "first/predict/predictions.csv").open(newline="") as file:
                assert [row["image"] for row in csv.DictReader(file)] == list(map(str, range(43)))
    assert files(tmp_path / "second") == []


# ---------------------------------------------------------------- Ray

STUDY = {
    "base": {"trainer": {**TRAINER, "max_epochs": 12}, "model": LENET, "data": DATA},
    "arms": {"plain": {"model.mixup": 0.0}, "mixup": {"model.mixup": 0.5}, "slow": {"model.lr": 0.001}},
    "seeds": 1,
}
ARMS = sorted(STUDY["arms"])  # type: ignore[call-overload]
RAY = "ray start --block --num-cpus 1 --object-store-memory 104857600 --disable-usage-stats --node-ip-address"


@pytest.fixture
def cluster(nodes: tuple[Node, Node], tmp_path: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """Start Ray on both nodes, one core each; return a function that starts a command on the first."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'lightning-cifar[ray]'")

    def start(node: Node, *args: str, log: Path) -> subprocess.Popen[bytes]:
        # Each node has its own /tmp/ray, in which a process finds the Ray of its machine.
        own = tmp_path / node.name
        own.mkdir(exist_ok=True)
        Path("/tmp/ray").mkdir(exist_ok=True)
        mounted = ["sh", "-c", 'mount --bind "$0" /tmp/ray && exec "$@"', str(own)]
        # Ray gives its workers a low priority, with which they would wait for the other tests.
        return node.start(*mounted, sys.executable, *args, folder=tmp_path, log=log, RAY_worker_niceness="0")

    def has_started(log: Path) -> Callable[[], bool]:
        return lambda: "Ray runtime started" in log.read_text()

    first, second = nodes
    address = f"{first.address}:6379"
    program = ["-m", "ray.scripts.scripts", *RAY.split()[1:]]
    for node, more in ((first, ["--head", "--port", "6379"]), (second, ["--address", address])):
        log = tmp_path / f"{node.name}.log"
        process = start(node, *program, node.address, *more, log=log)
        wait_for(has_started(log), process)
    options = ["--executor", "ray", "--address", address]
    return lambda *args: start(first, "-m", "lightning_cifar", *args, *options, log=tmp_path / "study.log")


def runs_on(node: Node) -> list[str]:
    """The arms whose runs are processes of a node."""
    pids = subprocess.run(["ip", "netns", "pids", node.name], capture_output=True, check=True, text=True).stdout.split()
    names = [path.read_text() for pid in pids if (path := Path(f"/proc/{pid}/cmdline")).exists()]
    return [arm for arm in ARMS if any(name.startswith(f"ray::{arm}, seed 0") for name in names)]


def rows(folder: Path) -> list[dict[str, str]]:
    """results.csv without times."""
    with (folder / "results.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if "seconds" not in key} for row in csv.DictReader(file)]


@pytest.mark.parametrize("killed", [False, True])
def test_a_study_on_two_nodes(killed: bool, nodes: Any, cluster: Any, tmp_path: Path) -> None:
    """Has the table of a study in local processes, also if a node is killed."""
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY, sort_keys=False))
    args = ("study", str(path), "--threads", "1", "--out")
    process = cluster(*args, "ray")
    wait_for(lambda: all(len(runs_on(node)) == 1 for node in nodes), process)
    if killed:
        (arm,) = runs_on(nodes[1])
        wait_for((tmp_path / f"ray/{arm}/seed-0/times.csv").exists, process)
        nodes[1].kill()
        assert not (tmp_path / f"ray/{arm}/seed-0/done.json").exists(), "it was killed in the middle"
    code = process.wait()
    text = (tmp_path / "study.log").read_text()
    assert code == 0, text
    assert ("broken" in text) == killed
    if killed:
        assert f"{arm}, seed 0: broken" in text
        assert "Restor" in (tmp_path / f"ray/{arm}/seed-0.log").read_text(), "it continued from its checkpoint"
    subprocess.run(
        [sys.executable, "-m", "lightning_cifar", *args, "local"], cwd=tmp_path, check=True, capture_output=True
    )
    found = rows(tmp_path / "ray")
    assert [row["state"] for row in found] == ["done"] * len(ARMS)
    assert found == rows(tmp_path / "local")
