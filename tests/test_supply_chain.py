"""Dependencies are pinned, and a run opens no network connection."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PIPELINE = ROOT / "configs" / "albumentations" / "reference.yaml"
LOCKS = ("requirements.txt", "requirements-dev.txt")
# Releases that were malicious, or that execute code where a checkpoint is loaded; and one under another licence.
BAD = {
    "lightning": ["2.6.2", "2.6.3", "2.6.5"],
    "pytorch-lightning": ["2.6.2", "2.6.3", "2.6.5"],
    "albumentations": ["2.0.9", "2.1.0"],
}
# Opens no connection, and no door: every try ends the process.
FORBID = """
import sys
def hook(event, args):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"):
        local = event == "socket.connect" and isinstance(args[1], str)  # a file of this machine
        if not local:
            print("reached for the network:", event, args[1:], file=sys.stderr, flush=True)
            import os
            os._exit(99)
sys.addaudithook(hook)
"""


def project() -> list[Requirement]:
    held = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for lines in held["optional-dependencies"].values() for line in lines]
    return [Requirement(line) for line in [*held["dependencies"], *extras]]


def locked(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([^ ;]+)", (ROOT / name).read_text(), re.MULTILINE))


def test_bad_releases_are_excluded() -> None:
    for requirement in project():
        for bad in BAD.get(requirement.name, []):
            assert not requirement.specifier.contains(bad), f"{requirement} allows {bad}"
    for lock in LOCKS:
        for name, bad in BAD.items():
            assert locked(lock).get(name) not in bad
    for name in ("lightning", "pytorch-lightning"):
        assert version(name) not in BAD[name]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_digests(lock: str) -> None:
    text = (ROOT / lock).read_text()
    blocks = re.split(r"\n(?=[\w.-]+==)", text)[1:]
    assert len(blocks) > 60
    for block in blocks:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block.splitlines()[0]
    assert "://" not in text


def test_the_locks_match_the_project() -> None:
    dev = locked("requirements-dev.txt")
    for requirement in project():
        if requirement.name != "lightning-cifar" and "ray" not in requirement.name:
            assert requirement.specifier.contains(dev[requirement.name.lower()]), requirement
    base = locked("requirements.txt")
    assert base.items() <= dev.items()
    assert (base["torch"], base["torchvision"]) == ("2.14.1", "0.29.1")  # a pair


STEPS = f"""
import lightning_cifar, lightning_cifar.models, lightning_cifar.data, lightning_cifar.callbacks
needless = {{"albumentations", "pytorch_lightning"}} & {{*sys.modules}}
assert not needless, f"imported without need: {{needless}}"
print("imported", flush=True)
from lightning_cifar.data.albumentations_pipeline import load_pipeline
load_pipeline({str(PIPELINE)!r})
print("loaded a pipeline", flush=True)
from lightning_cifar.cli import main
args = "fit --model LeNet --data SyntheticDataModule --data.num_train 64 --data.num_val 32 --data.batch_size 32"
args += " --trainer.max_epochs 1 --test_after_fit true --trainer.accelerator cpu --run_dir run"
assert main(args.split()) == 0
"""


def test_no_connection_and_no_needless_import(tmp_path: Path) -> None:
    """Of imports, of a pipeline of albumentations, and of a training, one after the other in a new process."""
    args = [sys.executable, "-W", "ignore", "-c", FORBID + STEPS]
    there = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run(args, cwd=tmp_path, capture_output=True, text=True, check=False, env=there)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-2000:]
