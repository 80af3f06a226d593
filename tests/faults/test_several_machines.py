"""Two nodes on one machine: network namespaces with addresses of their own, which only a virtual cable connects.

Runs on two nodes (DDP with gloo) and studies on a Ray cluster of two nodes give the results of one node. A node is
killed with all of its processes; the run ends with an error and resumes, and the study completes. Needs root and
iproute2; ``make faults`` runs it.
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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4000)]

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


def words(args: tuple[str, ...], *, devices: int, num_nodes: int) -> list[str]:
    counts = ["--trainer.devices", str(devices), "--trainer.num_nodes", str(num_nodes)]
    return [sys.executable, "-m", "lightning_cifar", *args, *counts, "--trainer.strategy", "ddp"]


def run_on_one(*args: str, folder: Path) -> None:
    """Run a command with two processes on this machine."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    log = folder / "one.log"
    with log.open("w") as file:
        whole = words(args, devices=2, num_nodes=1)
        process = subprocess.Popen(whole, cwd=folder, stdout=file, stderr=file, env=environment, start_new_session=True)
    try:
        code = process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)  # both processes
        raise
    assert code == 0, log.read_text()


class Pair:
    """Commands with one process on each of two nodes, in the folders ``folder/first`` and ``folder/second``."""

    def __init__(self, nodes: tuple[Node, Node], folder: Path) -> None:
        self.nodes, self.folder = nodes, folder
        self.port = 29500

    def begin(self, *args: str, folders: tuple[str, str]) -> list[subprocess.Popen[bytes]]:
        self.port += 1  # that of an earlier run may still be in use
        both = {"MASTER_ADDR": self.nodes[0].address, "MASTER_PORT": str(self.port), "GLOO_SOCKET_IFNAME": "cable"}
        begun = []
        for rank, (node, name) in enumerate(zip(self.nodes, folders, strict=True)):
            (self.folder / name).mkdir(exist_ok=True)
            place = {"folder": self.folder / name, "log": self.folder / f"{node.name}.log"}
            begun.append(node.start(*words(args, devices=1, num_nodes=2), **place, **both, NODE_RANK=str(rank)))
        return begun

    def run(self, *args: str, folders: tuple[str, str]) -> None:
        codes = [process.wait() for process in self.begin(*args, folders=folders)]
        assert codes == [0, 0], "\n".join(map(self.log, self.nodes))

    def log(self, node: Node) -> str:
        return (self.folder / f"{node.name}.log").read_text()


@pytest.fixture
def pair(nodes: tuple[Node, Node], tmp_path: Path) -> Pair:
    return Pair(nodes, tmp_path)


class Whole:
    """A run with two processes on one node, with which the others are compared."""

    def __init__(self, folder: Path, model: dict[str, Any]) -> None:
        callbacks = [GIF] if model is LENET else []
        config = {"trainer": {**TRAINER, "callbacks": callbacks}, "model": model, "data": DATA, "test_after_fit": True}
        path = folder / "fit.yaml"
        path.write_text(yaml.safe_dump(config))
        self.args = ("fit", "--config", str(path), "--run_dir", "run")
        run_on_one(*self.args, folder=folder)
        self.folder = folder / "run"
        self.end = outcome(self.folder)


@pytest.fixture(scope="module", params=[LENET, SIDE_BY_SIDE], ids=["lenet", "side_by_side"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("whole"), request.param)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_two_nodes_train_like_one(pair: Pair, whole: Whole, tmp_path: Path) -> None:
    """To the bit, with a folder that both nodes share and with separate ones."""
    pair.run(*whole.args, folders=("shared", "shared"))
    assert differences(whole.end, outcome(tmp_path / "shared/run")) == []
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["run"]

    pair.run(*whole.args, folders=("first", "second"))
    assert differences(whole.end, outcome(tmp_path / "first/run")) == []
    assert files(tmp_path / "second") == [], "only rank zero writes"


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_node_ends_the_run_which_resumes(killed: int, pair: Pair, whole: Whole, tmp_path: Path) -> None:
    """The other node reports it; with separate folders, the folder of the run is copied to the second node."""
    folders = ("shared", "shared") if killed else ("first", "second")
    run, second = tmp_path / folders[0] / "run", tmp_path / folders[1]
    processes = pair.begin(*whole.args, folders=folders)
    wait_for((run / "checkpoints/resume.previous.ckpt").exists, *processes)
    pair.nodes[killed].kill()
    code = processes[1 - killed].wait()
    text = pair.log(pair.nodes[1 - killed])
    assert not (run / "result.json").exists(), "it was killed in the middle"
    assert code == 2, text
    (error,) = (line for line in text.splitlines() if line.startswith("lightning-cifar: error: "))
    assert "no connection to another process of this training" in error
    assert ("--resume run" in error) == bool(killed)
    assert "Traceback" not in text

    if not killed:
        assert files(second) == []
        shutil.copytree(run, second / "run")
    before = files(second)
    pair.run("fit", "--resume", "run", folders=folders)
    assert differences(whole.end, outcome(run)) == []
    assert killed or files(second) == before


@pytest.mark.parametrize("whole", [LENET], indirect=True, ids=["lenet"])
def test_two_nodes_evaluate_like_one(pair: Pair, whole: Whole, tmp_path: Path) -> None:
    for verb in ("test", "predict"):
        checkpoint = str(whole.folder / "checkpoints/best.ckpt")
        args = (verb, "--ckpt_path", checkpoint, "--run_dir", verb, "--trainer.accelerator", "cpu")
        run_on_one(*args, folder=tmp_path)
        pair.run(*args, folders=("first", "second"))
        one, two = tmp_path / verb, tmp_path / "first" / verb
        tables = [path.name for path in one.glob("*.csv")]
        assert tables
        for table in tables:
            assert (two / table).read_bytes() == (one / table).read_bytes(), table
        if verb == "test":
            metrics = [json.loads((each / "result.json").read_text())["metrics"] for each in (one, two)]
            assert metrics[0] == metrics[1]
        else:
            with (two / "predictions.csv").open(newline="") as file:
                assert [row["image"] for row in csv.DictReader(file)] == list(map(str, range(43)))
    assert files(tmp_path / "second") == []


# ---------------------------------------------------------------- Ray

STUDY = {
    "base": {"trainer": TRAINER, "model": LENET, "data": DATA},
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
