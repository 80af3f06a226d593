"""Source distribution and wheel are complete, and work outside of the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools import build_meta; print(build_meta.build_{}('dist'))"
# The finder of an editable install would give what the wheel lacks.
WITHOUT_CHECKOUT = """\
import runpy, sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
import lightning_cifar
print(*lightning_cifar.__path__)
runpy.run_module("lightning_cifar", run_name="__main__")
"""

pytestmark = pytest.mark.slow


def run(folder: Path, *args: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *args],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both, the wheel built from what the source distribution holds."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "source").mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md"):
        shutil.copy(ROOT / name, folder / "source")
    for name in ("lightning_cifar", "configs"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    source = run(folder / "source", "-c", BUILD.format("sdist")).splitlines()[-1]
    with tarfile.open(folder / "source" / "dist" / source) as archive:
        archive.extractall(folder, filter="data")
    unpacked = folder / source.removesuffix(".tar.gz")
    run(unpacked, "-c", BUILD.format("wheel"))
    return unpacked / "dist"


def test_the_wheel_is_complete(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    kinds = {".py", ".js", ".css", ".pyi", ".typed", ".bash", ".fish", ".sh", ".zsh"}
    files = [path for path in (ROOT / "lightning_cifar").rglob("*") if path.suffix in kinds]
    assert [path for path in files if path.relative_to(ROOT).as_posix() not in held] == []
    configs = [path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")]
    assert [path for path in configs if f"lightning_cifar/{path}" not in held] == []
    strange = [name for name in held if not name.startswith(("lightning_cifar/", "lightning_cifar-"))]
    assert strange == []
    assert [name for name in held if name.endswith((".c", ".h", ".pyx"))] == []


def test_an_installed_wheel_trains_in_any_folder(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    target, here = tmp_path / "installed", tmp_path / "here"
    here.mkdir()
    run(here, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(wheel))

    def installed(*args: str) -> str:
        return run(here, "-c", WITHOUT_CHECKOUT, *args, PYTHONPATH=str(target))

    assert installed("--help").startswith(f"{target / 'lightning_cifar'}\nusage: lightning-cifar")
    command = "fit --config configs/demo.yaml --trainer.max_steps 1 --trainer.limit_val_batches 1 --run_dir run"
    installed(*command.split())
    assert (here / "run" / "checkpoints" / "last.ckpt").is_file()
