"""Processor, memory, disk."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lightning_cifar.commands.doctor.findings import Fact, Finding, Told, gigabytes

GROUP = "machine"
# Peak of `fit --model LeNet --data CIFAR10DataModule`, with or without crops: 1.64 GB (torch 2.14.1, 1 thread, n = 2).
NEEDED_MEMORY = 1.7e9
NEEDED_DISK = 0.5e9  # the archive of CIFAR-10 (0.17 GB), and some runs
_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sve": "SVE", "asimd": "NEON", "neon": "NEON"}
_BF16 = {"amx_bf16": "AMX BF16", "avx512_bf16": "AVX-512 BF16", "bf16": "BF16"}


def processor() -> Iterator[Told]:
    """Name, cores and vector instructions of the processor."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    there = os.cpu_count() or cores
    yield Fact(GROUP, "system", f"{platform.system()} {platform.release()}, {platform.machine()}")
    yield Fact(GROUP, "processor", processor_name())
    yield Fact(GROUP, "cores", str(cores) if cores == there else f"{cores} of {there} for this process")
    flags = processor_flags()
    vectors = next((name for flag, name in _VECTORS.items() if flag in flags), "unknown")
    found = bf16_instructions()
    yield Fact(GROUP, "vector instructions", ", ".join([vectors, *([found] if found else [])]))


def processor_name() -> str:
    names = re.findall(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), flags=re.M)
    return names[0] if names else _sysctl("machdep.cpu.brand_string") or platform.processor() or "unknown"


def processor_flags() -> set[str]:
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _read("/proc/cpuinfo"), flags=re.M)
    if found:
        return set(found[1].split())
    if platform.machine() in ("arm64", "aarch64"):
        return {"neon", *(["bf16"] if _sysctl("hw.optional.arm.FEAT_BF16") == "1" else [])}
    return set(f"{_sysctl('machdep.cpu.features')} {_sysctl('machdep.cpu.leaf7_features')}".lower().split())


def bf16_instructions() -> str:
    """Those that multiply numbers of 16 bits (bfloat16); empty if the processor has none."""
    flags = processor_flags()
    return next((name for flag, name in _BF16.items() if flag in flags), "")


def memory() -> Iterator[Told]:
    """How much there is, a container's limit included, and whether CIFAR-10 fits."""
    total, free = memory_bytes()
    if not total:
        yield Fact(GROUP, "memory", "unknown")
        return
    yield Fact(GROUP, "memory", gigabytes(total) + (f", {gigabytes(free)} free" if free else ""))
    yield judge_memory(total, free)


def judge_memory(total: float, free: float) -> Finding:
    """Of numbers of bytes; 0 free is unknown."""
    need = f"a run on CIFAR-10 takes about {gigabytes(NEEDED_MEMORY)}"
    if total < NEEDED_MEMORY:
        what = f"there are {gigabytes(total)} of memory"
        return Finding("memory", "fix", what, f"{need} and may be killed", "take a machine or a container with more")
    if 0 < free < NEEDED_MEMORY:
        what = f"{gigabytes(free)} of memory are free"
        return Finding("memory", "note", what, f"{need} and may be killed", "close other programs")
    return Finding("memory", "ok", "there is memory enough for CIFAR-10")


def memory_bytes() -> tuple[float, float]:
    """In all, and free; 0 where unknown. The limit of a container counts."""
    found = {name: 1024.0 * int(kb) for name, kb in re.findall(r"^(\w+):\s+(\d+) kB", _read("/proc/meminfo"), re.M)}
    total, free = found.get("MemTotal", 0.0), found.get("MemAvailable", 0.0)
    if not total:
        return float(_sysctl("hw.memsize") or 0), 0.0
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        words = _read(limit).strip(), _read(used).strip()
        if words[0].isdecimal() and words[1].isdecimal() and int(words[0]) < total:
            # What is in use includes files that the system would give up: at least this much is free.
            return float(words[0]), max(1.0, min(free, float(words[0]) - float(words[1])))
    return total, free


def disk() -> Iterator[Told]:
    """Free space in this folder, where runs and data go."""
    free = shutil.disk_usage(".").free
    yield Fact(GROUP, "free disk space here", gigabytes(free))
    if free < NEEDED_DISK:
        what = f"{gigabytes(free)} of disk space are free here"
        yield Finding("disk", "fix", what, "a run may break off when it writes", "rm -r runs that are no longer needed")
    else:
        yield Finding("disk", "ok", "there is disk space enough for data and runs")


def has_nvidia_card() -> bool:
    """Whether a card of NVIDIA is seen by the system, driver or not; known on Linux only."""
    for device in Path("/sys/bus/pci/devices").glob("*"):
        if _read(device / "vendor").strip() == "0x10de" and _read(device / "class").startswith(("0x0300", "0x0302")):
            return True
    return False


def has_nvidia_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _sysctl(name: str) -> str:
    """Of macOS; empty elsewhere."""
    if platform.system() != "Darwin":
        return ""
    done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=10, check=False)
    return done.stdout.strip()
