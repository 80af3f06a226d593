"""Memory of large tensors is used again."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from lightning_cifar.memory import keep_freed_memory

OFF = {"MALLOC_MMAP_MAX_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072", "THP_MEM_ALLOC_ENABLE": "0"}  # docs/results.md

# Prints the new pages that the second half of 20 equal tensors needs, in KiB per tensor of 64 MiB.
PAGES = """
import resource
{first}
import torch

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt * resource.getpagesize() // 1024

for _ in range(10):
    torch.ones(2**24)
before = pages()
for _ in range(10):
    torch.ones(2**24)
print((pages() - before) // 10)
"""
KEEP = "from lightning_cifar.memory import keep_freed_memory; keep_freed_memory()"


def new_pages(first: str) -> int:
    done = subprocess.run([sys.executable, "-c", PAGES.format(first=first)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*OFF, "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the GNU C library")
def test_a_freed_tensor_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")  # a huge page is counted like a small one
    assert new_pages(KEEP) < 2**16 / 10, "of the 2**16 KiB that are new if the memory was returned"


@pytest.mark.skipif(os.name != "posix", reason="needs a C library of POSIX")
@pytest.mark.parametrize("given", [{}, OFF, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}])
def test_settings_of_the_user_remain(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> None:
    changes: list[tuple[int, int]] = []
    library = SimpleNamespace(mallopt=lambda *change: changes.append(change))
    monkeypatch.setattr("lightning_cifar.memory.ctypes.CDLL", lambda _: library)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    keep_freed_memory()
    assert len(changes) == (0 if given else 2)
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == given.get("THP_MEM_ALLOC_ENABLE", "1")
