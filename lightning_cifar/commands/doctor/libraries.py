"""Checks that import torch and related libraries, in a separate process that may crash or hang.

The process writes one JSON list per line: the name of the next stage, or a check. It starts outside of the current
folder and imports nothing from there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path

from lightning_cifar.commands.doctor.checks import Check, gigabytes, guarded, installed, reinstall
from lightning_cifar.errors import UsageError, one_line
from lightning_cifar.files.reading import open_regular

# -P and the folder of this package (site-packages or a checkout): modules in the current folder are not imported.
_START = f"""\
import sys
sys.path.append({str(Path(__file__).parents[3])!r})
from lightning_cifar.commands.doctor.libraries import main
main()
"""
LARGEST = 300_000_000  # bytes, more than any published file; half a second of checksums


def libraries(root: Path, base: Path, *, longest: float = 300) -> Iterator[Check]:
    """Yield the checks of the process, and its stage if it crashes or takes more than ``longest`` seconds."""
    args = [sys.executable, "-P", "-c", _START, os.path.abspath(root), os.path.abspath(base)]
    elsewhere, no_input = Path(sys.executable).parent, subprocess.DEVNULL
    try:
        done = subprocess.run(args, check=False, cwd=elsewhere, stdin=no_input, capture_output=True, timeout=longest)
        output, code = done.stdout, done.returncode
        end = f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
    except subprocess.TimeoutExpired as error:
        output, code, end = error.stdout or b"", 1, f"did not end within {longest:g} seconds"
    stage = "Python"
    for line in output.decode(errors="replace").splitlines():
        try:
            content = json.loads(line)
        except ValueError:  # truncated when the process ended
            continue
        if len(content) > 1:
            yield Check(*content)
        else:
            stage = content[0]
    if code:
        yield Check("libraries", "fix", f"the process that loads {stage} {end}; training would fail too", reinstall())


def main() -> None:
    """Run the checks in the separate process."""
    # Libraries that print must not write between the JSON lines.
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    stages: list[tuple[str, Callable[[], Iterable[Check]]]] = [("convolutions", convolutions)]
    stages += [(name, partial(imported, name)) for name in ("torch", "torchvision", "lightning.pytorch")]
    stages += [("gpu", gpu), ("data", partial(datasets, Path(sys.argv[1]), Path(sys.argv[2])))]
    for name, stage in stages:
        print(json.dumps([name]), file=lines, flush=True)  # before the process may crash
        for check in guarded(name, stage):
            print(json.dumps(check), file=lines, flush=True)
            if check.level == "fix" and check.name.startswith("import "):
                return


def imported(name: str) -> Iterator[Check]:
    """Check whether a library can be imported."""
    package = name.partition(".")[0]
    try:
        import_module(name)
    except (Exception, SystemExit) as error:
        text = f"{package} {installed(package)} cannot be imported ({type(error).__name__}: {one_line(error)[:200]})"
        again = f"python -m pip install --force-reinstall {package}=={installed(package)}"
        yield Check(f"import {package}", "fix", text, again if package == "lightning" else reinstall())
    else:
        yield Check(f"import {package}", "ok", "works")


def convolutions() -> Iterator[Check]:
    """Check whether the hand-written convolutions are compiled."""
    from lightning_cifar.ext import convolution

    if used := convolution.instruction_set():
        yield Check("convolutions", "ok", f"compiled, for {used}")
    else:
        text = f"{convolution.NOT_BUILT}: the hand-written layers use NumPy, which is several times slower"
        fix = "install a C compiler, then python -m pip install --force-reinstall --no-deps . (in the checkout)"
        yield Check("convolutions", "note", text, fix)


def gpu() -> Iterator[Check]:
    """Check each GPU with a computation, or report why torch does not use one."""
    import torch

    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        card = torch.cuda.get_device_properties(i)
        text = f"cuda:{i} is {card.name}, {gigabytes(card.total_memory)}"
        try:
            torch.ones(8, device=f"cuda:{i}").sum().item()
        except RuntimeError as error:
            text += f": a computation fails ({one_line(error)[:200]})"
            fix = "install a build of torch for this GPU: https://pytorch.org/get-started/previous-versions"
            yield Check("gpu", "fix", text, fix)
        else:
            yield Check("gpu", "ok", text)
    if torch.backends.mps.is_available():
        yield Check("gpu", "ok", "Apple GPU (mps)")
    elif not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        text = f"torch (CUDA {torch.version.cuda}) finds no GPU although an NVIDIA driver is installed: the CPU is used"
        fix = "unset CUDA_VISIBLE_DEVICES, update the driver, or install another torch: https://pytorch.org/get-started"
        yield Check("gpu", "note", text, fix)
    elif not torch.cuda.is_available():
        yield Check("gpu", "ok", "no GPU with a driver found: training runs on the CPU")


def datasets(root: Path, base: Path) -> Iterator[Check]:
    """Check CIFAR-10, MNIST and FashionMNIST in ``root``; links to files outside of ``base`` are not followed."""
    from lightning_cifar.data import sources

    source, archive = sources.find_cifar10(root), root / sources.ARCHIVE
    folders = [each for each in (source, root / sources.FOLDER) if each and each.is_dir()]
    folder = folders[0] if folders else root
    files = {folder / name: md5 for name, md5 in sources.OFFICIAL_MD5.items()}
    yield from _check("CIFAR10", root, base, {archive: sources.ARCHIVE_MD5} if source == archive else files)
    for kind in (sources.MNIST, sources.FASHION_MNIST):
        read: dict[Path, str] = {}
        for file in kind.files:
            path = kind.find(root, file)
            if path is None or root / kind.name not in path.parents:  # files in root may belong to either data set
                path = kind.folder(root) / f"{file.name}.gz"
            read[path] = file.md5 if path.suffix == ".gz" else file.unpacked_md5
        yield from _check(kind.name, root, base, read)


def _check(name: str, root: Path, base: Path, files: dict[Path, str]) -> Iterator[Check]:
    """Check one data set, which consists of these files with their MD5."""
    found = [path for path in files if os.path.lexists(path)]
    args = ["--model", "LeNet", "--data", f"{name}DataModule", "--data.root", str(root), "--data.download", "true"]
    download = shlex.join(["lightning-cifar", "fit", *args, "--trainer.fast_dev_run", "true"])
    if not found:
        if name == "CIFAR10":
            text = f"not in {root}: the provided configurations download it (170 MB); SyntheticDataModule needs no data"
            yield Check(name, "note", text, download)
    elif outside := [path for path in found if not path.resolve().is_relative_to(base.resolve())]:
        text = f"{outside[0]} is not read: a link points outside {base}"
        yield Check(name, "note", text, shlex.join(["lightning-cifar", "doctor", "--root", str(root.resolve())]))
    elif missing := [path.name for path in files if path not in found]:
        text = f"{', '.join(missing)} missing in {root}: --data.download true downloads it"
        yield Check(name, "note", text, download)
    elif not (wrong := [path for path, md5 in files.items() if _md5(path) != md5]):
        yield Check(name, "ok", f"complete in {root}, all checksums correct")
    elif len(wrong) == len(files) > 1:
        text = f"the checksums of all files in {root} differ: a run rejects modified data by default"
        yield Check(name, "note", text, "--data.verify false, if this is intended")
    else:
        text = f"wrong checksum, so a run rejects it: {', '.join(map(str, wrong))}"
        yield Check(name, "fix", text, f"{shlex.join(['rm', *map(str, wrong)])} && {download}")


def _md5(path: Path) -> str:
    """Return the MD5 of a regular file; empty if it cannot be read or is larger than any published file."""
    with suppress(OSError, UsageError), open(open_regular(path, follow=True), "rb") as file:
        if os.fstat(file.fileno()).st_size <= LARGEST:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return ""
