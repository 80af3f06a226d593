"""``lightning-cifar study --executor ray``: a real Ray on this machine; a killed run resumes."""

import importlib.util
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from shared import study_rows

from lightning_cifar.cli import main
from lightning_cifar.errors import UsageError
from lightning_cifar.studies import ray_executor
from lightning_cifar.studies.jobs import prepare, state_of
from lightning_cifar.studies.ray_executor import Resources, read_resources
from lightning_cifar.studies.spec import read_study

BASE: dict[str, Any] = {
    "trainer": {"max_epochs": 4, "log_every_n_steps": 1, "accelerator": "cpu"},
    "model": {"class_path": "LeNet", "init_args": {"lr": 0.05, "dropout": 0.2}},
    "data": {"class_path": "SyntheticDataModule", "init_args": {"num_train": 128, "num_val": 50, "num_test": 50}},
}

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs Ray: pip install 'lightning-cifar[ray]'"
)
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads the processes from /proc")


def write(folder: Path, arms: dict[str, Any]) -> str:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"base": BASE, "arms": arms, "seeds": 1}, sort_keys=False))
    return str(path)


def processes_below(pid: int) -> dict[int, str]:
    """Number and name of all descendants of a process, on Linux."""
    found: dict[int, str] = {}
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            title = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ").strip()
            found |= {child: title} | processes_below(child)
    return found


def wait_for(happened: Any) -> None:
    """Wait for as long as pytest's timeout lets a test run."""
    while not happened():
        time.sleep(0.02)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_command: Any) -> Any:
    """Start a study on a Ray with two workers, in a process and a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def begin(study: str, out: str) -> Any:
        args = ["study", study, "--executor", "ray", "--jobs", "2", "--threads", "1", "--out", out]
        # Ray gives its workers a low priority, with which they would wait for the other tests.
        return start_command(*args, log=tmp_path / "log", HOME=str(tmp_path), RAY_worker_niceness="0")

    return begin


def ended(process: Any, code: int) -> str:
    """Wait for the end of a process with an exit code, and return what it printed."""
    process.join()
    text = Path("log").read_text()
    assert process.exitcode == code, text
    return text


@needs_ray
@needs_proc
def test_a_killed_run_resumes_and_the_study_equals_the_local_one(tmp_path: Path, start: Any) -> None:
    study = write(tmp_path, {"slow": {"model.lr": 0.01}, "mixup": {"model.mixup": 0.5}})
    process = start(study, "ray")

    def workers() -> list[int]:
        return [pid for pid, title in processes_below(process.pid).items() if title == "ray::mixup, seed 0"]

    wait_for(Path("ray/mixup/seed-0/times.csv").exists)  # one epoch is over
    (victim,) = workers()
    os.kill(victim, signal.SIGKILL)
    epochs = Path("ray/mixup/seed-0/times.csv").read_text().count("\n") - 1
    assert epochs < 4, "it was killed in the middle"
    text = ended(process, 0)
    assert "worker" not in text, "Ray's own words about it"
    assert "2 at a time, 1 threads each" in text
    assert "mixup, seed 0: broken" in text
    assert "[2/2]" in text
    assert not (tmp_path / ".ray").exists(), "Ray left a secret behind"

    assert main(["study", study, "--jobs", "2", "--threads", "1", "--out", "local"]) == 0
    found = study_rows(Path("ray"))
    assert [(row["arm"], row["state"]) for row in found] == [("slow", "done"), ("mixup", "done")]
    assert found == study_rows(Path("local"))
    log = Path("ray/mixup/seed-0.log").read_text()
    assert "Restor" in log, "it went on from its checkpoint"


@needs_ray
@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_and_keeps_what_is_done(number: int, code: int, tmp_path: Path, start: Any) -> None:
    process = start(write(tmp_path, {"short": {"trainer.max_epochs": 1}, "long": {"trainer.max_epochs": 10**6}}), "out")
    wait_for(lambda: all(Path(f"out/{name}").exists() for name in ("long/seed-0/times.csv", "short/seed-0/done.json")))
    below = processes_below(process.pid)
    assert "ray::long, seed 0" in below.values()
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # what Ctrl-C does
    else:
        os.kill(process.pid, number)
    errors = ended(process, code)
    assert "stopped, 1 of 2 runs are done; to continue, repeat the command" in errors
    assert "Traceback" not in errors
    assert "***" not in errors, "a stack of C++"
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below))


@needs_ray
@needs_proc
@pytest.mark.slow
def test_a_killed_study_leaves_no_runs_behind(tmp_path: Path, start: Any) -> None:
    process = start(write(tmp_path, {"long": {"trainer.max_epochs": 10**6}}), "out")
    wait_for(Path("out/long/seed-0/times.csv").exists)
    below = processes_below(process.pid)
    process.kill()
    runs = [pid for pid, title in below.items() if title == "ray::long, seed 0"]
    assert len(runs) == 1
    wait_for(lambda: not Path(f"/proc/{runs[0]}").exists())
    for pid in below:  # agents of Ray's, which would stay for a minute
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    before = Path("out/long/seed-0/times.csv").read_text()
    time.sleep(1)
    assert Path("out/long/seed-0/times.csv").read_text() == before


class DoomedRay:
    """A Ray on which every process that starts a run dies."""

    class exceptions:  # noqa: N801
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            pass

    def __init__(self) -> None:
        self.started: list[str] = []
        self.most = self.running = 0
        self.ended = False

    def remote(self, **_: Any) -> Any:
        return lambda thing: self

    def options(self, name: str) -> Any:
        def start(*_: object) -> int:
            self.started.append(name)
            self.running += 1
            self.most = max(self.most, self.running)
            return len(self.started)

        return SimpleNamespace(remote=start)

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 2}}]

    def wait(self, references: list[int], **_: Any) -> tuple[list[int], list[int]]:
        return references[:1], references[1:]

    def get(self, reference: int) -> None:
        self.running -= 1
        raise self.exceptions.RayError

    def shutdown(self) -> None:
        self.ended = True


def test_a_run_that_always_dies_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = prepare(
        read_study(Path(write(tmp_path, {"a": {"model.lr": 1.0}, "b": {"model.lr": 2.0}}))), tmp_path / "o", threads=1
    )
    ray = DoomedRay()
    monkeypatch.setattr(ray_executor, "import_ray", lambda address: ray)
    monkeypatch.setattr(ray_executor, "_connect", lambda *_: None)
    monkeypatch.setattr(ray_executor, "_messages", lambda *_: [])
    heard: list[Any] = []
    ray_executor.run_on_ray(jobs, 1, lambda *news: heard.append(news), address=None, resources=Resources())
    tries = 1 + ray_executor.RETRIES
    assert ray.started == ["a, seed 0"] * tries + ["b, seed 0"] * tries
    assert heard == [(job, "broken") for job in jobs for _ in range(tries)]
    assert ray.most == 1, "--jobs"
    assert ray.ended
    ray_executor.run_on_ray([], 1, lambda *news: None, address=None, resources=Resources())
    assert len(ray.started) == 2 * tries, "nothing to do starts nothing"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cpu: 1", "is not JSON"),
        ("[1]", "must be a JSON object"),
        ('{"gppu": 1}', "'gppu' must be cpu or gpu. Did you mean gpu?"),
        ('{"cpu": -1}', r"cpu \(=-1\) must be 0, or a number of at least 0.0001"),
        ('{"cpu": NaN}', r"cpu \(=nan\) must be 0"),
        ('{"cpu": Infinity}', r"cpu \(=inf\) must be 0"),
        ('{"gpu": "all"}', r"gpu \(=all\) must be 0"),
        ('{"gpu": true}', r"gpu \(=True\) must be 0"),
        ('{"gpu": 1.5}', r"gpu \(=1.5\) must be a fraction of one GPU, or a whole number"),
        ('{"cpu": 0}', "cpu and gpu are 0"),
    ],
)
def test_resources_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_resources(text)
    assert "\n" not in str(caught.value)


def test_resources() -> None:
    assert read_resources("{}") == Resources(cpu=1, gpu=0)
    assert read_resources('{"cpu": 0.5, "gpu": 0.25}') == Resources(cpu=0.5, gpu=0.25)


def test_missing_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    small = {"Alive": True, "Resources": {"CPU": 2.0}}
    large = {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}}
    lost = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
    refuse = ray_executor._check_resources
    with pytest.raises(UsageError, match=r"needs 1 cpu and 0.25 gpu, but the largest node has only 2 and 0"):
        refuse([small, lost], Resources(1, 0.25))
    with pytest.raises(UsageError, match=r"needs 1 cpu and 4 gpu, but the largest node has only 8 and 2"):
        refuse([small, large, lost], Resources(1, 4))
    with pytest.raises(UsageError, match="the largest node has only 0 and 0"):
        refuse([lost], Resources())
    refuse([small, large], Resources(8, 2))
    refuse([small], Resources(2, 0))
    assert capsys.readouterr().err == ""
    refuse([small, large], Resources(1, 0))
    assert "the runs do not use the 2 GPUs" in capsys.readouterr().err


def test_mistakes_are_one_line_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write(tmp_path, {"a": {"model.lr": 1.0}})
    monkeypatch.setattr(os, "environ", dict(os.environ))

    def error(*args: str) -> str:
        assert main(["study", study, "--out", str(tmp_path / "out"), *args]) == 2
        assert not (tmp_path / "out").exists()
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        return text

    assert "--resources needs Ray: add --executor ray." in error("--resources", "{}")
    assert "--address needs Ray: add --executor ray." in error("--address", "auto")
    assert "cpu (=-1) must be 0" in error("--executor", "ray", "--resources", '{"cpu": -1}')
    assert "invalid choice: 'rai'" in error("--executor", "rai")
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    assert "pip install 'lightning-cifar[ray]'" in error("--executor", "ray")


@needs_ray
def test_addresses_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    ray = ray_executor.import_ray("auto")
    for address in ("nonsense", "ray://127.0.0.1:10001", ":6379", "127.0.0.1:"):
        with pytest.raises(UsageError, match=r"must be HOST:PORT of a cluster .*, or auto"):
            ray_executor._connect(ray, address, None)
    for address in ("127.0.0.1:9", "127.0.0.1:99999"):
        with pytest.raises(UsageError, match="Ray does not respond"):
            ray_executor._connect(ray, address, None)


def test_a_node_that_cannot_access_the_folder(tmp_path: Path) -> None:
    (job,) = prepare(read_study(Path(write(tmp_path, {"a": {"model.lr": 1.0}}))), tmp_path / "out", threads=1)
    Path(job.config).unlink()
    with pytest.raises(UsageError, match=r"cannot find .* on storage that all nodes share"):
        ray_executor._run(job, str(tmp_path), False, None)
    assert state_of(job) == "waiting"
