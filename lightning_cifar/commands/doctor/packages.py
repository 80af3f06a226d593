"""Versions of what is installed, by its metadata: nothing is imported."""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.version import Version

from lightning_cifar.commands.doctor.findings import Fact, Finding, Level, Told, command

GROUP = "versions"
NEEDED = ("torch", "torchvision", "lightning", "torchmetrics", "numpy", "jsonargparse", "matplotlib", "tensorboard")
EXTRAS = ("albumentations", "ray", "safetensors", "onnx", "onnxscript", "onnxruntime", "cython", "captum")
INDEX = "https://download.pytorch.org/whl"


def installed(name: str) -> str:
    """The version, or nothing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def versions() -> Iterator[Told]:
    yield Fact(GROUP, "python", f"{platform.python_version()} ({platform.python_implementation()})")
    for name in ("lightning-cifar", *NEEDED):
        yield Fact(GROUP, name, installed(name) or "not installed")
    found = {name: installed(name) for name in EXTRAS}
    yield Fact(GROUP, "extras", ", ".join(f"{name} {there}" for name, there in found.items() if there) or "none")
    missing = [name for name, there in found.items() if not there]
    if missing:
        yield Fact(GROUP, "extras not installed", ", ".join(missing))


def requirements() -> Iterator[Told]:
    """Each package that ours asks for, and those of extras that are there, against the versions it asks for."""
    try:
        asked = [Requirement(text) for text in requires("lightning-cifar") or ()]
    except PackageNotFoundError:
        consequence = "what it asks for is unknown, and there is no command lightning-cifar"
        fix = "python -m pip install --editable . (in the checkout)"
        yield Finding("requirements", "note", "the package lightning-cifar is not installed", consequence, fix)
        return
    wrong = 0
    for need in asked:
        extra = need.marker is not None and not need.marker.evaluate({"extra": ""})
        there = installed(need.name)
        if (extra and not there) or (there and need.specifier.contains(there, prereleases=True)):
            continue
        wrong += 1
        what = f"{need.name} {there} is not {need.specifier}" if there else f"{need.name} is not installed"
        plain = f"{need.name}{need.specifier}"
        words = [plain, *(["torchvision"] if need.name == "torch" else [])]
        level: Level = "note" if extra else "fix"
        consequence = "what uses it may break" if extra else f"the package needs {plain}"
        yield Finding("requirements", level, what, consequence, command("python", "-m", "pip", "install", *words))
    if not wrong:
        yield Finding("requirements", "ok", "every package is among the versions asked for")


def pair() -> Iterator[Told]:
    """Whether torch and torchvision fit: what torchvision asks for, and the builds. Whether it loads is tried apart."""
    torch, vision = installed("torch"), installed("torchvision")
    if not (torch and vision):
        return  # told of already
    asks = next((need for need in map(Requirement, requires("torchvision") or ()) if need.name == "torch"), None)
    yield judge_pair(torch, vision, asks)


def judge_pair(torch: str, vision: str, asks: Requirement | None) -> Finding:
    """Of versions, and of what the metadata of torchvision asks for."""
    ours, theirs = Version(torch), Version(vision)
    both, fix = f"torch {torch} and torchvision {vision}", reinstall(torch)
    if asks is not None and not asks.specifier.contains(ours, prereleases=True):
        what = f"torchvision {vision} does not fit torch {torch}, since it asks for torch {asks.specifier}"
        return Finding("pair", "fix", what, "no command that trains starts", fix)
    if ours.local != theirs.local:
        what = f"{both} are from different indexes"
        return Finding("pair", "note", what, "operators may be missing", fix)
    return Finding("pair", "ok", f"{both} are a pair")


def reinstall(torch: str) -> str:
    """The command that installs torch and its torchvision from one index."""
    of = Version(torch)
    names = [f"torch=={of.major}.{of.minor}.*", "torchvision"]  # pip takes the one that asks for that torch
    index = ["--index-url", f"{INDEX}/{of.local}"] if of.local else []
    return command("python", "-m", "pip", "install", "--force-reinstall", *names, *index)


def compiler() -> str:
    """The name of a C compiler that is there, or nothing."""
    wished = shlex.split(os.environ.get("CC", ""))[:1]
    names = [*wished, *(("cl", "gcc", "clang") if platform.system() == "Windows" else ("cc", "gcc", "clang"))]
    return next((os.path.basename(name) for name in names if shutil.which(name)), "")


def tools() -> Iterator[Told]:
    """What is needed to build and to test."""
    yield Fact("tools", "C compiler", compiler() or "none found")
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((name for name in names if shutil.which(name)), "")
    driver = shutil.which("chromedriver") is not None
    yield Fact("tools", "browser (for tests)", f"{browser or 'none found'}{', chromedriver' if driver else ''}")
    if importlib.util.find_spec("selenium") and not (browser and driver):
        what = f"there is no {'chromedriver' if browser else 'Chromium'}"
        fix = "apt-get install chromium chromium-driver"
        yield Finding("browser", "note", what, "the tests that open pages are skipped; nothing else needs it", fix)
