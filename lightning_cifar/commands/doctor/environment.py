"""Python, the terminal, variables of the environment, and the folder of runs."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from lightning_cifar.commands.doctor.findings import Fact, Finding, Told, command
from lightning_cifar.errors import did_you_mean

GROUP = "environment"
OLDEST, TESTED = (3, 11), ((3, 11), (3, 12))  # pyproject.toml allows newer ones: nobody ran them
VARIABLES = {
    "LIGHTNING_CIFAR_RUN_DIR": "every run writes there, into one folder: it is for the processes of one run",
    "LIGHTNING_CIFAR_TRACEBACK": "errors come with a traceback",
    "LIGHTNING_CIFAR_DATA": "the tests take the real data from there",
    "LIGHTNING_CIFAR_FAULTS": "the tests of faults try that many",
    "LIGHTNING_CIFAR_EXT_DISABLE": "the compiled convolutions are left out",
    "LIGHTNING_CIFAR_EXT_REQUIRE": "without the compiled convolutions nothing works",
    "LIGHTNING_CIFAR_EXT_CHECKED": "when they are built, the convolutions get slow checks",
    "LIGHTNING_CIFAR_EXT_THREADS": "the hand-made convolutions use that many threads",
    "LIGHTNING_CIFAR_EXT_ISA": "the hand-made convolutions use those instructions",
}
"""Ours, and what follows where they are set."""


def python() -> Iterator[Told]:
    yield judge_python(sys.version_info[:2])


def judge_python(version: tuple[int, int]) -> Finding:
    name = "Python {}.{}".format(*version)
    fix = "python3.12 -m venv .venv, and install there"
    if version < OLDEST:
        return Finding("python", "fix", f"{name} is too old", "the package needs 3.11 or newer", fix)
    if version not in TESTED:
        return Finding("python", "note", f"{name} is newer than those tested (3.11, 3.12)", "it may work", fix)
    return Finding("python", "ok", f"{name} is among those tested")


def terminal() -> Iterator[Told]:
    """Whether what we print can be shown."""
    encoding = (sys.stdout.encoding or "unknown").lower()
    yield Fact(GROUP, "output", f"{encoding}, {'a terminal' if sys.stdout.isatty() else 'no terminal'}")
    if encoding.replace("-", "").replace("_", "") == "utf8":
        yield Finding("encoding", "ok", "output is in UTF-8")
    else:
        # Progress bars of Lightning draw with letters outside of ASCII.
        fix = "set PYTHONUTF8=1" if platform.system() == "Windows" else "export PYTHONUTF8=1 LC_ALL=C.UTF-8"
        yield Finding("encoding", "note", f"output is in {encoding}, not in UTF-8", "progress bars may break off", fix)


def variables() -> Iterator[Told]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield from judge_variables(os.environ, cores)


def judge_variables(environment: Mapping[str, str], cores: int) -> Iterator[Told]:
    """Those of ours that are set, and OMP_NUM_THREADS."""
    ours = {name: value for name, value in environment.items() if name.startswith("LIGHTNING_CIFAR_") and value}
    for name, value in sorted(ours.items()):
        yield Fact(GROUP, name, value)
        what, unset = f"{name}={value} is set", f"unset {name}"
        if name not in VARIABLES:
            yield Finding(name, "note", what, f"nothing reads it.{did_you_mean(name, VARIABLES)}", unset)
        elif name.endswith("_THREADS") and not (value.isdecimal() and int(value) > 0):
            yield Finding(name, "fix", what, "it must be a positive number: hand-made layers do not load", unset)
        elif name.endswith("_ISA") and value not in ("avx512", "avx2", "portable"):
            yield Finding(name, "fix", what, "it must be avx512, avx2 or portable: hand-made layers do not load", unset)
        else:
            yield Finding(name, "fix" if name.endswith("_RUN_DIR") else "note", what, VARIABLES[name], unset)
    threads = environment.get("OMP_NUM_THREADS", "")
    if not threads:
        return
    yield Fact(GROUP, "OMP_NUM_THREADS", threads)
    what, mend = f"OMP_NUM_THREADS={threads}", "unset OMP_NUM_THREADS"
    if not (threads.isdecimal() and int(threads) > 0):
        yield Finding("threads", "note", f"{what} is no positive number", "it is ignored", mend)
    elif int(threads) > cores:
        yield Finding("threads", "note", f"{what}, for {cores} cores", "threads wait for each other", mend)
    elif int(threads) < cores:
        yield Finding("threads", "note", f"{what}, for {cores} cores", "training leaves cores unused", mend)


def runs_folder() -> Iterator[Told]:
    yield judge_runs_folder(Path("runs"))


def judge_runs_folder(folder: Path) -> Finding:
    """Whether runs can be written there."""
    consequence = "runs cannot be written: each command needs --run_dir"
    if folder.exists() and not folder.is_dir():
        return Finding("runs", "fix", f"{folder} is a file", consequence, command("mv", f"{folder}", f"{folder}.old"))
    place = folder if folder.exists() else folder.absolute().parent
    if not os.access(place, os.W_OK | os.X_OK):
        what = f"the folder {folder if folder.exists() else 'here'} cannot be written"
        return Finding("runs", "fix", what, consequence, "change to a folder of your own, or pass --run_dir")
    return Finding("runs", "ok", f"runs can be written to {folder}")
