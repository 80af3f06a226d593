"""Received run and study folders: links, special files and malformed content do not hang, crash or lead outside."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
import yaml

from lightning_cifar.cli import main
from lightning_cifar.studies.jobs import prepare
from lightning_cifar.studies.spec import read_study

FIXTURE = Path(__file__).parents[1] / "fixtures" / "runs_of_version_0_1_0.tar.xz"
STUDY = {
    "base": {
        "model": {"class_path": "LeNet"},
        "data": {"class_path": "SyntheticDataModule", "init_args": {"num_train": 32, "num_val": 32, "num_test": 32}},
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
    },
    "arms": {"plain": {"model.lr": 0.01}, "fast": {"model.lr": 0.02}},
    "seeds": 1,
}
CPU = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
COMMANDS = {
    "report": ["report", "run"],
    "report of a study": ["report", "out"],
    "study": ["study", "study.yaml", "--out", "out"],
    "resume": ["fit", "--resume", "run", "--trainer.max_epochs", "3", *CPU],
    "export": ["export", "run", "--format", "safetensors", "--check", "8"],
    "explain": ["explain", "--ckpt_path", "run/checkpoints/best.ckpt", "--images", "images", "--stride", "8"],
}
FRAME = "pictures/.frames/weights/000000.npz"
FILES = {  # that a command reads or writes
    "report": ["result.json", "config.yaml", "metrics.csv", "times.csv", "done.json", "pictures/a.png"],
    "report of a study": [
        "study.json",
        "about.json",
        *(f"plain/seed-0/{name}" for name in ("done.json", "result.json", "config.yaml", "metrics.csv", "times.csv")),
    ],
    "study": ["study.json", "about.json", ".lock", "results.md", "plain/config.yaml", "plain/seed-0/done.json"],
    "resume": ["config.yaml", "metrics.csv", "hparams.yaml", ".lock", FRAME, "checkpoints/resume.ckpt.sha256"],
    "export": ["result.json", "checkpoints/best.ckpt.sha256"],
    "explain": ["checkpoints/best.ckpt.sha256"],
}
LINKED = {  # folders, and files that are only appended to
    "report": ["pictures"],
    "report of a study": ["plain", "plain/seed-0"],
    "study": ["plain", "plain/seed-0", "plain/seed-0.log", "plain/seed-0/checkpoints", "plain/seed-0/pictures"],
    "resume": ["pictures", "pictures/.frames", "checkpoints", "events.out.tfevents.1"],
    "export": ["export"],
}
LAUGHS = "a: &a [0,0,0,0,0,0,0,0,0,0]\n" + "\n".join(
    f"{b}: &{b} [*{a}{f',*{a}' * 9}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
Expected = Literal["refused", "accepted", "either"]


def content(text: str | bytes) -> Callable[[Path, Path], None]:
    def write(path: Path, outside: Path) -> None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    return write


def moved(path: Path, outside: Path) -> Path:
    path.rename(outside / path.name)
    return outside / path.name


def fifo(path: Path, outside: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def zero(path: Path, outside: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def folder(path: Path, outside: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").touch()


LINK = "a link to a place outside"
SPECIAL: dict[str, Callable[[Path, Path], None]] = {
    LINK: lambda path, outside: path.symlink_to(moved(path, outside)),
    "a hard link": lambda path, outside: path.hardlink_to(moved(path, outside)),
    "a pipe": fifo,
    "a device without end": zero,
    "a folder": folder,
}
CONTENT: dict[str, Callable[[Path, Path], None]] = {
    "empty": content(""),
    "truncated": lambda path, outside: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]) and None,
    "another type": content("[1, 2]"),
    "values of another type": content('{"state": 3, "arms": 3, "metrics": 3, "versions": 3, "seed_everything": []}'),
    "no key": content("{}"),
    "100,000 brackets": content("[" * 100_000),
    "aliases without end": content(LAUGHS),
    "a huge number": content('{"state": "done", "metrics": {"a": ' + "9" * 5000 + "}}"),
    "not UTF-8": lambda path, outside: path.write_bytes(b"\xff\xfe" + path.read_bytes()) and None,
    "NUL bytes": content(b"\0" * 1000),
}


def expected_of_content(command: str, name: str, kind: str) -> Expected:
    if command in ("study", "resume") and not name.endswith(("study.json", "done.json", ".sha256", ".ckpt")):
        return "accepted"  # written, or read for a picture alone
    if name.endswith("config.yaml"):
        return {"no key": "accepted", "values of another type": "accepted", "truncated": "either"}.get(kind, "refused")
    if name.endswith((".csv", ".png", ".sha256")):
        return "either"
    if command == "study" and name == "study.json":
        return "refused"
    if name.endswith(("done.json", "result.json")) and kind not in (
        "another type",
        "values of another type",
        "no key",
        "100,000 brackets",
    ):
        return "either"  # what a power cut can leave: the run has not ended
    if kind == "no key":
        return "accepted" if name.endswith(("result.json", "about.json")) else "refused"
    return "refused"


# Of content that is not read, or only for a picture, so that the run is trained on.
TRAINED = [
    (".lock", "NUL bytes"),
    ("hparams.yaml", "aliases without end"),
    ("metrics.csv", "not UTF-8"),
    (FRAME, "empty"),
]
TRAINED += [("checkpoints/resume.ckpt.sha256", kind) for kind in CONTENT]


class Case(NamedTuple):
    command: str
    name: str
    attack: Callable[[Path, Path], None]
    expected: Expected


CASES: dict[str, Case] = {}
for command, names in FILES.items():
    for name in names:
        for kind, attack in SPECIAL.items():
            writes = command in ("study", "resume")
            harmless = (kind == "a hard link" and not writes) or name.endswith(".png")
            expected: Expected = "accepted" if harmless else "either" if kind == "a folder" and writes else "refused"
            CASES[f"{command}: {name} is {kind}"] = Case(command, name, attack, expected)
        for kind, attack in CONTENT.items() if command != "explain" else ():  # it reads what export reads
            wanted = expected_of_content(command, name, kind)
            trains = command == "resume" or (command, Path(name).name) == ("study", "done.json")
            if wanted == "refused" or not trains or (name, kind) in TRAINED:
                CASES[f"{command}: {name} holds {kind}"] = Case(command, name, attack, wanted)
for command, names in LINKED.items():
    for name in names:
        # A report reads pictures alone, and leaves out what lies outside.
        found: Expected = "accepted" if command == "report" else "refused"
        CASES[f"{command}: {name} is {LINK}"] = Case(command, name, SPECIAL[LINK], found)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run, a finished study and images."""
    place = tmp_path_factory.mktemp("honest")
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(place, filter="data")
    run = (place / "lenet").rename(place / "run")
    images = place / "images"
    images.mkdir()
    (run / FRAME).parent.mkdir(parents=True)
    (run / FRAME).write_bytes(b"damaged")
    from PIL import Image

    for path in (images / "a.png", run / "pictures/a.png"):
        Image.new("RGB", (32, 32)).save(path)
    for name in ("events.out.tfevents.1", ".lock"):
        (run / name).touch()
    (run / "times.csv").write_text("epoch,step,seconds\n0,2,1.5\n1,4,3.0\n")
    (run / "done.json").write_text('{"state": "done", "seconds": 3.0, "metrics": {"val/accuracy": 0.1}}')
    (place / "study.yaml").write_text(yaml.safe_dump(STUDY))
    study = read_study(place / "study.yaml")
    for job in prepare(study, place / "out", threads=1):
        shutil.copytree(run, job.path)
        job.log.touch()
    (place / "out/about.json").write_text(json.dumps(study.about(), default=str))
    for name in (".lock", "results.md"):
        (place / "out" / name).touch()
    (run / "export").mkdir()
    return place


@pytest.fixture
def received(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    place = tmp_path / "here"
    shutil.copytree(honest, place)
    monkeypatch.chdir(place)
    yield place
    for path in place.rglob("*"):
        if path.is_fifo():
            path.unlink()


def state_of(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def run_case(case: Case, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = place.parent / "outside"
    outside.mkdir()
    (outside / "canary").write_text("precious")
    root = Path("out" if case.command in ("study", "report of a study") else "run")
    if case.command == "resume":
        (root / "result.json").unlink()
    if case.command == "report" and case.name != "done.json":
        (root / "done.json").unlink()
    case.attack(root / case.name, outside)
    before = state_of(outside)
    code = main(COMMANDS[case.command])
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if line.startswith("lightning-cifar: error: ")]
    assert "Traceback" not in said
    assert code == (2 if errors else 0), said
    if case.expected != "either":
        assert (code == 2) == (case.expected == "refused"), said or "accepted"
    if errors:
        assert said.splitlines()[-1] == errors[-1]
        assert Path(case.name).name.split(".")[0] in errors[-1] or str(root) in errors[-1], errors[-1]
    assert state_of(outside) == before, "it wrote or removed outside"
    assert {path.name for path in place.parent.iterdir()} == {"here", "outside"}


NAMES = sorted(CASES)
MARKS = [
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*treespec.*"),
    pytest.mark.filterwarnings("ignore:WeightGIF"),
]
pytestmark = MARKS
SHORT = NAMES[::12]


@pytest.mark.parametrize("name", SHORT)
def test_some_of_the_received_folders(name: str, received: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_case(CASES[name], received, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in SHORT])
def test_the_other_received_folders(name: str, received: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_case(CASES[name], received, capsys)


def test_there_are_enough() -> None:
    assert len(NAMES) >= 200


# ---------------------------------------------------------------- folders that must be accepted


def edited(path: str, **changes: object) -> None:
    held = json.loads(Path(path).read_text())
    Path(path).write_text(json.dumps({**held, **changes}))


def linked_inside() -> None:
    checkpoints = Path("run/checkpoints")
    (checkpoints / "best.ckpt").rename(checkpoints / "epoch-1.ckpt")
    (checkpoints / "best.ckpt.sha256").unlink()
    (checkpoints / "best.ckpt").symlink_to("epoch-1.ckpt")


def linked_run() -> None:
    Path("run").rename("elsewhere")
    Path("run").symlink_to("elsewhere", target_is_directory=True)


def hard_linked() -> None:
    Path("backup").mkdir()
    for path in Path("run").iterdir():
        if path.is_file():
            (Path("backup") / path.name).hardlink_to(path)


HONEST: dict[str, tuple[str, Callable[[], object]]] = {
    "a run": ("report", lambda: None),
    "a run to export": ("export", lambda: None),
    "a study": ("report of a study", lambda: None),
    "a study that is started again": ("study", lambda: None),
    "a study from before its first run": ("report of a study", lambda: Path("out/about.json").unlink()),
    "a study with a run that broke": ("report of a study", lambda: Path("out/plain/seed-0/done.json").unlink()),
    "a study that was cut off": ("report of a study", lambda: Path("out/plain/seed-0/done.json").write_text("")),
    "a run that goes on": ("report", lambda: Path("run/done.json").unlink()),
    "a run without a result": ("report", lambda: [Path("run", name).unlink() for name in ("done.json", "result.json")]),
    "a run without a configuration": ("report", lambda: Path("run/config.yaml").unlink()),
    "a run without times": ("report", lambda: Path("run/times.csv").unlink()),
    "numbers that are not finite": ("report", lambda: edited("run/done.json", metrics={"val/loss": float("nan")})),
    "a metric that is null": ("report", lambda: edited("run/result.json", metrics={"val/loss": None}, best=None)),
    "more keys": ("report", lambda: edited("run/result.json", more={"a": [1]}, machine={"threads": 4})),
    "fewer keys": ("report", lambda: Path("run/result.json").write_text('{"command": "fit"}')),
    "accuracies of no test": ("export", lambda: edited("run/result.json", metrics={})),
    "an accuracy of the test": ("export", lambda: edited("run/result.json", metrics={"test/accuracy": 1})),
    "text of other alphabets": ("report of a study", lambda: edited("out/about.json", question="Größe, 学习率?")),
    "line ends of Windows": (
        "report",
        lambda: Path("run/metrics.csv").write_bytes(Path("run/metrics.csv").read_bytes().replace(b"\n", b"\r\n")),
    ),
    "a last row that is cut off": (
        "report",
        lambda: Path("run/metrics.csv").write_bytes(Path("run/metrics.csv").read_bytes()[:-9]),
    ),
    "keys that are numbers, and an alias": (
        "report",
        lambda: Path("run/config.yaml").write_text("trainer: &t {1: 2, a: 0.5, 2026-01-01: x}\nmodel: *t\n"),
    ),
    "a long number as text": ("report", lambda: Path("run/config.yaml").write_text(f"model: '{'1' * 5000}'\n")),
    "a checkpoint that is a link in the run": ("export", linked_inside),
    "a run named by a link: report": ("report", linked_run),
    "a run named by a link: export": ("export", linked_run),
    "a run named by a link: resume": ("resume", linked_run),
    "hard links of a backup: report": ("report", hard_linked),
    "hard links of a backup: export": ("export", hard_linked),
    "a checkpoint without its digest": ("export", lambda: Path("run/checkpoints/best.ckpt.sha256").unlink()),
    "a digest of two lines": (
        "export",
        lambda: Path("run/checkpoints/best.ckpt.sha256").write_text(
            f"{'0' * 64}  best.ckpt\n" + Path("run/checkpoints/best.ckpt.sha256").read_text()
        ),
    ),
    "what a killed run left": ("resume", lambda: Path("run/.config.yaml.1.part").write_text("half")),
}


def accepted(command: str, change: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> None:
    if command == "resume":
        Path("run/result.json").unlink()
    change()
    code = main(COMMANDS[command])
    assert code == 0, capsys.readouterr().err


SOME = [name for name, (command, _) in HONEST.items() if command != "resume"][::4]


@pytest.mark.parametrize("name", SOME)
def test_some_honest_folders_are_accepted(name: str, received: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accepted(*HONEST[name], capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in HONEST if name not in SOME])
def test_the_other_honest_folders_are_accepted(name: str, received: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accepted(*HONEST[name], capsys)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["report", "resume", "export"])
@pytest.mark.parametrize("name", ["lenet", "side_by_side", "squeezenet"])
def test_runs_of_version_0_1_0_are_accepted(
    name: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(filter="data")
    Path(name).rename("run")
    if (name, command) == ("side_by_side", "export"):
        pytest.skip("a file takes one network")
    accepted(command, lambda: None, capsys)
