"""Checks of the machine and of the installed versions. Imports no library except ``packaging``."""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Literal, NamedTuple

from lightning_cifar.errors import one_line
from lightning_cifar.files.processor import is_fast_in_bfloat16, processor_name

# Peak of `fit --model LeNet --data CIFAR10DataModule`, with or without crops: 1.64 GB (torch 2.14.1, 1 thread, n = 2).
NEEDED_MEMORY = 1.7e9
NEEDED_DISK = 0.5e9  # the archive of CIFAR-10 (0.17 GB) and some runs
EXTRAS = {"ray": "studies on a cluster", "export": "lightning-cifar export", "notebook": "progress bars in Jupyter"}


class Check(NamedTuple):
    """Result of a check, and its fix. The name is constant, so that programs can identify the check."""

    name: str
    level: Literal["ok", "note", "fix"]  # fix: a command fails; note: slower, or optional and missing
    text: str
    fix: str = ""  # a command, or an instruction


def guarded(name: str, check: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """Yield the results of a check; an exception is reported as a result."""
    try:
        yield from check()
    except (Exception, SystemExit) as error:
        text = f"the check failed ({type(error).__name__}: {one_line(error)[:300]})"
        yield Check(name, "note", text, "please report it with the complete output")


def processor() -> Iterator[Check]:
    """Report the system, the processor, and the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = processor_name()
    yield Check("processor", "ok", f"{name}, {cores} of {os.cpu_count()} cores for this process; {platform.platform()}")
    if is_fast_in_bfloat16():
        yield Check("precision", "ok", "computes in bfloat16: --trainer.precision auto trains large networks faster")


def memory() -> Iterator[Check]:
    """Check the physical memory, or the limit of the container."""
    total = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        if (limit := _read(path).strip()).isdecimal():
            total = min(total, float(limit))
    if total < NEEDED_MEMORY:
        text = f"{gigabytes(total)}: a run on CIFAR-10 needs about {gigabytes(NEEDED_MEMORY)} and may be killed"
        yield Check("memory", "note", text, "use a machine or container with more memory")
    else:
        yield Check("memory", "ok", gigabytes(total))


def disk() -> Iterator[Check]:
    """Check free space and write permission in the current folder, which contains runs and data."""
    free = shutil.disk_usage(".").free
    if not os.access(".", os.W_OK | os.X_OK):
        fix = "change to a folder that you can write to, or pass --run_dir or --out"
        yield Check("disk", "fix", "runs cannot be saved here: the current folder is not writable", fix)
    elif free < NEEDED_DISK:
        text = f"{gigabytes(free)} free here: data and runs need about {gigabytes(NEEDED_DISK)}"
        yield Check("disk", "fix", text, "remove runs that are no longer needed")
    else:
        yield Check("disk", "ok", f"{gigabytes(free)} free here")


def browser() -> Iterator[Check]:
    """Check the browser for the tests of HTML pages, if selenium, their other requirement, is installed."""
    found = any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))) and shutil.which("chromedriver")
    if importlib.util.find_spec("selenium") and not found:
        text = "Chromium with chromedriver is missing: tests of HTML pages are skipped; no command needs it"
        yield Check("browser", "note", text, "apt-get install chromium chromium-driver")


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.3g} GB"


def _read(path: str) -> str:
    """Read a system file; empty if it is missing."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def installed(name: str) -> str:
    """Return the installed version, or an empty string."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def packages() -> Iterator[Check]:
    """Compare Python, all required packages and the extras with the versions in pyproject.toml."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    def is_wrong(need: Requirement) -> bool:
        found = installed(need.name)
        return not found or not need.specifier.contains(found, prereleases=True)

    here = platform.python_version()
    if not installed("lightning-cifar"):
        text = f"Python {here}; lightning-cifar is not installed, so its requirements are unknown"
        yield Check("packages", "note", text, "python -m pip install --editable . (in the checkout)")
        return
    python = SpecifierSet(metadata("lightning-cifar")["Requires-Python"] or "")
    if not python.contains(here, prereleases=True):
        text = f"Python {here} does not work: {python} is needed"
        yield Check("packages", "fix", text, "python3.12 -m venv .venv, and install there")
    needs = [Requirement(text) for text in requires("lightning-cifar") or ()]
    required = [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    for need in filter(is_wrong, required):
        text = f"{need.name} is {installed(need.name) or 'not installed'}: {need.specifier} is needed"
        yield Check("packages", "fix", text, _install(str(need), *(["torchvision"] if need.name == "torch" else [])))
    names = ", ".join(f"{name} {installed(name)}" for name in ("lightning-cifar", *(need.name for need in required)))
    yield Check("versions", "ok", f"Python {here}, {names}")
    for extra, purpose in EXTRAS.items():
        optional = [need for need in needs if need.marker and need.marker.evaluate({"extra": extra})]
        if missing := [need for need in optional if need not in required and is_wrong(need)]:
            text = f"for {purpose}: {', '.join(need.name for need in missing)} missing, or with another version"
            fix = _install(*(f"{need.name}{need.specifier}" for need in missing))
            yield Check(f"extra {extra}", "note", text, fix)


def pair() -> Iterator[Check]:
    """Check whether the versions and builds of torch and torchvision are compatible."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    torch, vision = installed("torch"), installed("torchvision")
    if not (torch and vision):
        return
    both = f"torch {torch} and torchvision {vision}"
    asked = [need.specifier for need in map(Requirement, requires("torchvision") or ()) if need.name == "torch"]
    if any(not specifier.contains(torch, prereleases=True) for specifier in asked):
        yield Check("pair", "fix", f"{both} are not compatible: this torchvision needs torch {asked[0]}", reinstall())
    elif Version(torch).local != Version(vision).local:
        yield Check("pair", "note", f"{both} are from different indexes: operators may be missing", reinstall())
    else:
        yield Check("pair", "ok", f"{both} are compatible")


def reinstall() -> str:
    """Return the command that installs torch and a compatible torchvision from the same index."""
    found, _, build = installed("torch").partition("+")
    names = [f"torch=={'.'.join(found.split('.')[:2])}.*"] if found else ["torch"]
    index = ["--index-url", f"https://download.pytorch.org/whl/{build}"] if build else []
    return _install("--force-reinstall", *names, "torchvision", *index)  # pip chooses the compatible version


def _install(*args: str) -> str:
    return shlex.join(["python", "-m", "pip", "install", *args])
