"""What only shows once the libraries are loaded. Runs in a process of its own: ``libraries`` starts it."""

from __future__ import annotations

import json
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from lightning_cifar.commands.doctor import machine
from lightning_cifar.commands.doctor.findings import Fact, Finding, Probe, Told, gigabytes, guarded
from lightning_cifar.commands.doctor.packages import compiler, installed, reinstall
from lightning_cifar.errors import one_line


def main() -> None:
    """Tell everything, a JSON list a line: ``["stage", name]``, ``["fact", ...]`` or ``["finding", ...]``."""
    # Libraries that print would spoil the lines.
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    from lightning_cifar.commands.doctor.datasets import datasets

    roots = [Path(word) for word in sys.argv[2:]]
    broken: set[str] = set()

    def tell(kind: str, *content: str) -> None:
        lines.write(json.dumps([kind, *content]) + "\n")
        lines.flush()  # before what may end the process

    stages: list[tuple[str, Probe, set[str]]] = [
        ("the compiled convolutions", convolutions, set()),
        ("torch", lambda: loaded("torch", broken), set()),
        ("torchvision", lambda: loaded("torchvision", broken), {"torch"}),
        ("lightning", lambda: loaded("lightning.pytorch", broken), {"torch", "torchvision"}),
        ("the devices", devices, {"torch"}),
        ("the backends of torch", backends, {"torch"}),
        ("the data", lambda: datasets(roots), {"torch", "torchvision", "lightning.pytorch"}),
    ]
    for name, probe, needs in stages:
        tell("stage", name)
        if not needs & broken:
            for told in guarded(probe, name):
                tell("fact" if isinstance(told, Fact) else "finding", *told)
        elif name == "the data":
            tell("finding", *Finding("data", "note", "the data were not looked at", "the libraries do not load"))


# ---------------------------------------------------------------- libraries


def loaded(name: str, broken: set[str]) -> Iterator[Told]:
    """Whether a library can be imported."""
    package = name.partition(".")[0]
    try:
        import_module(name)
    except (Exception, SystemExit) as error:
        broken.add(name)
        yield judge_import(package, f"{type(error).__name__}: {one_line(error)[:200]}")
    else:
        yield Finding(f"import {package}", "ok", f"{package} {installed(package)} can be imported")


def judge_import(package: str, error: str) -> Finding:
    """Of an import that broke."""
    torch = installed("torch")
    fix = f"python -m pip install --force-reinstall {package}=={installed(package)}"
    if package in ("torch", "torchvision"):
        fix = reinstall(torch) if torch else "python -m pip install torch torchvision"
    what = f"{package} {installed(package)} cannot be imported ({error})"
    return Finding(f"import {package}", "fix", what, "no command that trains starts", fix)


# ---------------------------------------------------------------- hand-made convolutions


def convolutions() -> Iterator[Told]:
    """Whether they are compiled, and what for."""
    from lightning_cifar.ext import convolution

    built = convolution.instruction_set()
    value = f"compiled, for {built}" if built else f"NumPy: {convolution.NOT_BUILT}"
    yield Fact("backends", "hand-made convolutions", value)
    yield judge_convolutions(built, convolution.NOT_BUILT, compiler())


def judge_convolutions(built: str, reason: str, c_compiler: str) -> Finding:
    """Of the instruction set that they were built for, or the reason why they were not."""
    if built:
        return Finding("convolutions", "ok", f"the compiled convolutions are built, and use {built}")
    consequence = "the hand-made layers compute with NumPy, several times slower; nothing else needs them"
    again = "python -m pip install --force-reinstall --no-deps . (in the checkout)"
    if "LIGHTNING_CIFAR_EXT_DISABLE" in reason:
        what = "the compiled convolutions are switched off"
        return Finding("convolutions", "note", what, consequence, "unset LIGHTNING_CIFAR_EXT_DISABLE")
    if not c_compiler:
        get = {"Darwin": "xcode-select --install", "Linux": "apt-get install gcc libc6-dev"}
        what = "the compiled convolutions are not built, and there is no C compiler"
        first = get.get(platform.system(), "install Visual Studio's build tools")
        return Finding("convolutions", "note", what, consequence, f"{first} && {again}")
    return Finding("convolutions", "note", "the compiled convolutions are not built", consequence, again)


# ---------------------------------------------------------------- devices


class Card(NamedTuple):
    """One graphics card; ``capability`` is CUDA's, such as (9, 0)."""

    name: str
    memory: int  # bytes
    capability: tuple[int, int]


def devices() -> Iterator[Told]:
    import torch

    cards = []
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        of = torch.cuda.get_device_properties(i)
        cards.append(Card(of.name, of.total_memory, (of.major, of.minor)))
        capability = f"compute capability {of.major}.{of.minor}"
        yield Fact("devices", f"cuda:{i}", f"{of.name}, {gigabytes(of.total_memory)}, {capability}")
    if not cards:
        yield Fact("devices", "cuda", f"none; torch is built {_build(torch.version.cuda, torch.version.hip)}")
    built = torch.backends.mps.is_built()
    yield Fact("devices", "mps", "available" if torch.backends.mps.is_available() else "no device" if built else "none")
    yield Fact("devices", "CPU threads", f"{torch.get_num_threads()} of torch, {os.cpu_count()} processors")
    if torch.version.hip is None:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        seen = machine.has_nvidia_card(), machine.has_nvidia_driver()
        yield judge_cuda(torch.version.cuda, cards, torch.cuda.get_arch_list(), *seen, hidden)


def _build(cuda: str | None, hip: str | None) -> str:
    return f"for CUDA {cuda}" if cuda else f"for ROCm {hip}" if hip else "for the CPU alone"


def judge_cuda(
    built: str | None, cards: list[Card], archs: list[str], has_card: bool, has_driver: bool, hidden: str | None
) -> Finding:
    """Whether torch and the graphics cards find each other.

    Args:
        built: Version of CUDA that torch is built for.
        cards: Those that torch sees.
        archs: That torch has code for, such as ``sm_90``, or ``compute_90`` which newer cards can translate.
        has_card: Whether the system sees one, driver or not.
        hidden: What CUDA_VISIBLE_DEVICES says.
    """
    slow = "training runs on the CPU"
    if cards:
        for card in cards:
            if not _supports(archs, card.capability):
                what = f"torch {installed('torch')} has no code for {card.name} (capability {card.capability})"
                fix = "choose a build of torch for it: https://pytorch.org/get-started/previous-versions"
                return Finding("cuda", "fix", what, "training on it ends with 'no kernel image'", fix)
        return Finding("cuda", "ok", f"torch sees {len(cards)} graphics card{'s' if len(cards) > 1 else ''}")
    if not built:
        if not (has_card or has_driver):
            return Finding("cuda", "ok", "there is no NVIDIA card, and torch is built without CUDA")
        fix = "see https://pytorch.org/get-started for the command that installs torch and torchvision for it"
        return Finding("cuda", "note", "there is an NVIDIA card, and torch is built without CUDA", slow, fix)
    if hidden is not None and (has_card or has_driver) and hidden.strip() in ("", "-1"):
        what = f"CUDA_VISIBLE_DEVICES={hidden} hides the graphics cards"
        return Finding("cuda", "note", what, slow, "unset CUDA_VISIBLE_DEVICES")
    if has_driver:
        what = f"torch is built for CUDA {built}, there is a driver, and torch sees no card: the driver may be too old"
        return Finding("cuda", "fix", what, slow, "nvidia-smi tells of the driver: bring it up to date")
    if has_card:
        what = f"there is an NVIDIA card, torch is built for CUDA {built}, and there is no driver"
        return Finding("cuda", "fix", what, slow, "install NVIDIA's driver, on Ubuntu: ubuntu-drivers install")
    what = f"torch is built for CUDA {built}, and there is neither a driver nor an NVIDIA card"
    fix = reinstall(f"{installed('torch').partition('+')[0] or '2'}+cpu")
    return Finding("cuda", "note", what, f"{slow}; a build without CUDA would save gigabytes of disk", fix)


def _supports(archs: list[str], capability: tuple[int, int]) -> bool:
    """Compiled code runs on later cards of the same major number, ``compute_`` code on all later ones."""
    for arch in archs:
        kind, _, digits = arch.partition("_")
        digits = digits.rstrip("af")  # of one card, or of one family
        if not digits.isdecimal():
            continue
        made_for = int(digits[:-1]), int(digits[-1])
        if made_for <= capability and (kind == "compute" or made_for[0] == capability[0]):
            return True
    return not archs


# ---------------------------------------------------------------- backends


def backends() -> Iterator[Told]:
    import torch

    is_there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    yield Fact("backends", "oneDNN", "available" if is_there else "not available")
    yield Fact("backends", "torch on the CPU", torch.backends.cpu.get_cpu_capability())
    if torch.cuda.is_available():
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        yield Fact("backends", "cuDNN", str(cudnn or "not available"))
    on_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    yield bf16(on_gpu, torch.cuda.is_available(), machine.bf16_instructions())


def bf16(on_gpu: bool, has_gpu: bool, on_cpu: str) -> Fact:
    """What BF16 in hardware means for ``--trainer.precision``."""
    if on_gpu or (not has_gpu and on_cpu):
        where = "of the graphics card" if on_gpu else f"of the processor ({on_cpu})"
        value = f"in the hardware {where}: --trainer.precision bf16-mixed trains faster"
    elif has_gpu:
        value = "not in the hardware of the graphics card: --trainer.precision 16-mixed is the fast one there"
    else:
        value = "not in hardware: --trainer.precision bf16-mixed would be slower than the default, 32-true"
    return Fact("backends", "BF16", value)
