"""Memory of large tensors is used again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the GNU C library")
def test_a_freed_tensor_is_used_again() -> None:
    assert new_pages(KEEP) < 64
