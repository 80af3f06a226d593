"""Installation with and without a compiler, and kernels with bounds checks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the source tree"),
]
USE = """
import numpy as np
from lightning_cifar.ext import convolution
y = convolution.conv2d(np.ones((1, 2, 4, 4), np.float32), np.ones((3, 2, 3, 3), np.float32))
assert (y == 18).all()
print(convolution.__file__, convolution.active_backend())
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a copy of the source tree without built files."""
    copy = tmp_path / "source"
    shutil.copytree(
        ROOT / "lightning_cifar", copy / "lightning_cifar", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    for name in ("setup.py", "pyproject.toml", "README.md", "MANIFEST.in"):
        shutil.copy(ROOT / name, copy)
    return copy


def run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LIGHTNING_CIFAR_EXT")}
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=clean | environment, capture_output=True, text=True, check=False
    )


def install(source: Path, target: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    pip = ("-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index", "--target", str(target), ".")
    return run(*pip, cwd=source, **environment)


def backend_of(target: Path) -> str:
    result = run("-c", USE, cwd=target.parent, PYTHONPATH=str(target))
    assert result.returncode == 0, result.stderr
    file, backend = result.stdout.split()
    assert Path(file).is_relative_to(target)
    return backend


def test_with_a_compiler(source: Path, tmp_path: Path) -> None:
    result = install(source, tmp_path / "target", LIGHTNING_CIFAR_EXT_REQUIRE="1")
    assert result.returncode == 0, result.stderr
    assert backend_of(tmp_path / "target") == "cython"


def test_without_a_compiler(source: Path, tmp_path: Path) -> None:
    result = install(source, tmp_path / "target", CC="/bin/false")
    assert result.returncode == 0, result.stderr
    assert backend_of(tmp_path / "target") == "im2col"
    refused = run("-c", USE, cwd=tmp_path, PYTHONPATH=str(tmp_path / "target"), LIGHTNING_CIFAR_EXT_REQUIRE="1")
    assert "install a C compiler and Cython" in refused.stderr


def test_without_cython(source: Path, tmp_path: Path) -> None:
    (tmp_path / "Cython").mkdir()
    (tmp_path / "Cython" / "__init__.py").write_text("raise ImportError('hidden')")
    result = install(source, tmp_path / "target", PYTHONPATH=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert backend_of(tmp_path / "target") == "im2col"


def test_a_required_build_raises_without_a_compiler(source: Path, tmp_path: Path) -> None:
    result = install(source, tmp_path / "target", CC="/bin/false", LIGHTNING_CIFAR_EXT_REQUIRE="1")
    assert result.returncode != 0
    assert "/bin/false" in result.stderr


def test_disabled(source: Path, tmp_path: Path) -> None:
    result = install(source, tmp_path / "target", LIGHTNING_CIFAR_EXT_DISABLE="1")
    assert result.returncode == 0, result.stderr
    assert not list((tmp_path / "target").rglob("*.so"))
    assert backend_of(tmp_path / "target") == "im2col"


def test_fuzz_with_bounds_checks(source: Path) -> None:
    """Runs the fuzz test with Cython's bounds checks and GCC's address and undefined-behaviour sanitizers."""
    compiler = shutil.which("gcc")
    library = (
        compiler
        and subprocess.run(
            [compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
        ).stdout.strip()
    )
    if not library or not Path(library).exists():
        pytest.skip("no address sanitizer here")
    built = run(
        "setup.py", "build_ext", "--inplace", cwd=source,
        CC="gcc", LIGHTNING_CIFAR_EXT_CHECKED="1", LIGHTNING_CIFAR_EXT_REQUIRE="1",
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    fuzz = shutil.copy(Path(__file__).with_name("test_convolution_fuzz.py"), source)
    checked = {"LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONPATH": str(source)}
    where = run("-c", USE, cwd=source, **checked)
    assert where.stdout.split() == [str(source / "lightning_cifar/ext/convolution.py"), "cython"], where.stderr
    result = run("-m", "pytest", "-q", "-x", "-s", "-p", "no:cacheprovider", fuzz, cwd=source, **checked)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert "1 passed" in result.stdout
