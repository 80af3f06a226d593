"""Run each command of the README and the docs on tiny data for one epoch. Exceptions are marked with a reason."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import runpy
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from lightning_cifar import cli
from lightning_cifar.commands import bench
from lightning_cifar.configuration import find_config
from lightning_cifar.data import CIFAR10DataModule, MNISTDataModule
from lightning_cifar.data.image_datamodule import LabelledImages
from lightning_cifar.models import LeNet
from lightning_cifar.studies import local
from lightning_cifar.studies.jobs import Job
from lightning_cifar.studies.run import work

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARK = re.compile(r"<!-- not run by the tests: (.+?) -->\n+```\w*\n(.*?)```", re.DOTALL)
QUIET = "--trainer.accelerator cpu --trainer.enable_progress_bar false --trainer.max_epochs 2".split()  # noqa: SIM905
IMAGES = "--data.num_train 24 --data.num_val 12 --data.batch_size 12".split()  # noqa: SIM905

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
]


def commands_of(page: Path) -> Iterator[str]:
    """What stands in blocks of code and between backticks and begins with our command."""
    text = MARK.sub("", page.read_text())
    for block in re.findall(r"^```(?:sh|bash)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(r"(\.venv/bin/|[A-Z]+=\S+ )?lightning-cifar ", line):
                yield re.sub(r"\s+#.*", "", line)
    for code in re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)):
        if code.startswith("lightning-cifar ") and len(code.split()) > 2:
            yield " ".join(code.split())


COMMANDS = list({command: (page, command) for page in PAGES[::-1] for command in commands_of(page)}.values())


def test_the_pages_have_commands() -> None:
    """Else nothing below would be tested."""
    assert len(COMMANDS) > 50


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that broke in its second epoch, and with that a checkpoint of its first."""
    folder = tmp_path_factory.mktemp("broken") / "run"
    step, count = LeNet.training_step, 0

    def training_step(self: LeNet, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return step(self, *args)

    args = ["fit", "--model", "LeNet", "--data", "SyntheticDataModule", "--data.num_test", "12", *IMAGES, *QUIET]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LeNet, "training_step", training_step)
        assert cli.main([*args, "--run_dir", str(folder)]) == 130
    return folder


@pytest.fixture
def world(tmp_path: Path, broken: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the pages speak of: small data in the place of the real one, a run, photographs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))

    def load(self: CIFAR10DataModule | MNISTDataModule, part: str) -> LabelledImages:
        generator = np.random.default_rng(part == "train")
        size, channels = (28, 1) if isinstance(self, MNISTDataModule) else (32, 3)
        count = 48 if part == "train" else 20
        images = generator.integers(0, 256, (count, size, size, channels), dtype=np.uint8)
        return LabelledImages(images, np.arange(count) % 10)

    for module in (CIFAR10DataModule, MNISTDataModule):
        monkeypatch.setattr(module, "prepare_data", lambda self: None)
        monkeypatch.setattr(module, "load", load)

    def run_here(jobs: Sequence[Job], num_jobs: int, watch: local.Watcher) -> None:
        for job in jobs[:1]:
            watch(job, work(job, lambda progress: None))
        for job in jobs[1:]:  # the arms are built by the command before anything runs; their trainings are the same
            shutil.copytree(jobs[0].path, job.path, dirs_exist_ok=True)  # tuning continues runs
            watch(job, "done")

    monkeypatch.setattr(local, "run_locally", run_here)
    monkeypatch.setattr(bench, "CIFAR", bench.CIFAR[-1:])
    shutil.copytree(broken, tmp_path / "runs" / "...")
    for name in ("FOLDER", "DIR", "animals"):
        for kind in ("cat", "dog"):
            (tmp_path / name / kind).mkdir(parents=True)
            for i in range(12):
                pixels = np.random.default_rng(i).integers(0, 256, (40, 36, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / name / kind / f"{i}.png")
    (tmp_path / "my_pipeline.yaml").write_text("- HorizontalFlip: {p: 0.5}\n")
    return tmp_path


def small(args: list[str]) -> list[str]:
    """Return the arguments of a command with options that make it small."""
    verb = args[0]
    if verb in ("fit", "validate", "test", "predict", "lr-find"):
        return args if "help" in " ".join(args) else [*args, *small_training(args)]
    if verb == "report" and "runs/first" in args:  # three runs of docs/forks.md
        return ["report", "runs/..."]
    if verb == "fork" or (verb == "microscope" and "runs/kept" in args):
        assert (
            cli.main(
                small(["fit", "--config", "configs/lenet.yaml", "--keep_every_n_epochs", "1", "--run_dir", "kept"])
            )
            == 0
        )
        more = ["--epoch", "1", *args[4:]] if verb == "fork" else args[2:]
        return [verb, "kept", *more]
    if verb == "surface":  # each run of the command, with two epochs
        runs = dict.fromkeys(word for word in args if word.startswith("runs/"))
        names = {run: f"made-{number}" for number, run in enumerate(runs)}
        for name in names.values():
            overlay = "configs/callbacks/weight_trajectory.yaml"
            fit = small(["fit", "--config", "configs/lenet.yaml", "--config", overlay, "--run_dir", name])
            assert cli.main([*fit, "--trainer.max_epochs", "2"]) == 0
        return [*(names.get(word, word) for word in args), "--points", "3"]
    if verb == "study":
        seeds = [] if "--seeds" in args else ["--seeds", "2"]
        # The trunk has 6 epochs; tuning stops settings after 2 and 4.
        epochs = 7 if "when_to_drop" in args[1] else 5 if "tuned" in args[1] else 1
        changes = [f"trainer.max_epochs={epochs}", "data.num_train=24", "data.num_val=12", "data.batch_size=12"]
        changes += ["data.num_test=12"] if "small" in args[1] else []
        return [*args, *seeds, "--threads", "1", *(word for change in changes for word in ("--set", change))]
    if verb == "report" and args[1].startswith("runs/studies/"):
        name, _, kind = Path(args[1]).name.partition("-")
        path = f"configs/studies/{kind}/{name}.yaml"
        assert cli.main(small(["study", path, "--out", args[1]])) == 0
    if verb == "bench":
        return [*args, "--rounds", "1"]
    if verb == "gradcheck" and "--function" not in args:
        return [*args, "--num", "1"]
    return args


def small_training(args: list[str]) -> list[str]:
    if "--resume" in args:
        return []
    configs = [yaml.safe_load(Path(find_config(b)).read_text()) for a, b in itertools.pairwise(args) if a == "--config"]
    model, data = (
        next((word for name, word in itertools.pairwise(args) if name == f"--{part}"), None)
        or next((config[part]["class_path"] for config in configs if part in config), "")
        for part in ("model", "data")
    )
    more = list(QUIET) if args[0] != "lr-find" else QUIET[:4]
    if data.endswith(("CIFAR10DataModule", "MNISTDataModule", "SyntheticDataModule")):
        more += IMAGES
    if data.endswith("SyntheticDataModule"):
        more += ["--data.num_test", "12"]
    if "Pretrained" in model:  # published weights and 224 pixels are for those who have a network and time
        more += ["--model.weights", "null"]
        more += ["--model.input_size", "63" if "AlexNet" in model else "32"] if args[0] == "fit" else []
        if args[0] == "fit":
            more += ["--data.batch_size", "6"]
    if args[0] == "lr-find":
        more += ["--num_steps", "10", "--seeds", "2"]
    return more


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page.stem}: {command}" for page, command in COMMANDS])
def test_it_runs(page: Path, command: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = shlex.split(re.sub(r"> \S+", "", command), comments=True)
    while "=" in args[0]:
        monkeypatch.setenv(*args.pop(0).split("=", 1))
    assert args.pop(0) in ("lightning-cifar", ".venv/bin/lightning-cifar")
    best = "runs/.../checkpoints/best.ckpt"
    args = [{"...": best, "RUN_FOLDER": "runs/...", "RUN": "runs/..."}.get(word, word) for word in args]
    args = [word.replace("NAME", "augmentation") for word in args]
    if args[0] in ("explain", "microscope"):
        args = [f"{word}/cat" if word in ("FOLDER", "DIR") else word for word in args]
    args = [word for run in args for word in ([str(world / "runs/...")] if run == "RUNS..." else [run])]
    try:
        code = cli.main(small(args))
    except SystemExit as end:
        code = end.code
    assert not code


def test_marks_name_a_reason() -> None:
    reasons = [reason for page in PAGES for reason, _ in MARK.findall(page.read_text())]
    assert all(re.search("network|GPU|cluster|hours|shell", reason) for reason in reasons), reasons


def test_other_commands_name_existing_files() -> None:
    """Targets of make, and benchmarks with their options, which ``make slow`` runs."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        text = page.read_text()
        for args in re.findall(r"(?:^|`)make ((?:[a-z]+ ?)+)(?:`|$| +#)", text, re.MULTILINE):
            assert set(args.split()) <= targets, f"{page.name}: make {args}"
        for script, options in re.findall(r"python ((?:benchmarks|examples|docs)/\w+\.py)([^`\n#]*)", text):
            source = (ROOT / script).read_text()
            for option in re.findall(r"--[\w-]+", options):
                assert f'"{option}"' in source, f"{page.name}: {script} {option}"


def test_links_are_valid() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", page.read_text()):
            if not target.startswith(("http:", "https:")):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_the_gallery_creates_all_pictures(world: Path) -> None:
    """All but the range test of a large network, the screenshots and the tree, in their small forms."""
    gallery = runpy.run_path(str(ROOT / "docs" / "gallery.py"))
    names = {path.name for path in (ROOT / "docs" / "pictures").iterdir()}
    assert set(gallery["RECIPES"]) == names
    study = small(["study", "configs/studies/tuned/augmentation.yaml"])[2:]
    left_out = ("lr_range", "microscope", "tensorboard", "forks", "surface", "sharpness")
    made = [name for name in gallery["RECIPES"] if not name.startswith(left_out)]
    gallery["remake"](made, gallery["Gallery"](world / "out", [*QUIET, *IMAGES], study, ["--rounds", "1"]))
    left = names ^ {path.name for path in (world / "out").iterdir()}
    assert left == {name for name in names if name.startswith(left_out)}


def test_every_picture_is_shown() -> None:
    shown = {name for page in PAGES for name in re.findall(r"pictures/([\w.-]+)\)", page.read_text())}
    assert shown == {path.name for path in (ROOT / "docs" / "pictures").iterdir()}
    gallery = (ROOT / "docs" / "gallery.md").read_text()
    assert [name for name in shown if name not in gallery and not name.startswith("regime_")] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_on_the_page_is_valid_and_its_imports_exist(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        tree = ast.parse(block)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lightning_cifar"):
                module = importlib.import_module(node.module or "")
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []
