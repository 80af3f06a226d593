"""Reuse the memory of large tensors, which the C library would return to the system after each step."""

from __future__ import annotations

import ctypes
import os

# Of malloc.h of the GNU C library.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let this process and its children keep freed memory, so that each step does not get new pages from the system.

    New pages cost up to a fifth of a training step of DilatedNet (docs/results.md). Call it before torch is imported:
    torch then also asks for huge pages. Without the GNU C library, it does nothing. Values that the user has set in the
    environment remain.

    Example:
        >>> keep_freed_memory()
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # of torch, read at its first allocation
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    for option, name, value in ((_MMAP_MAX, "MALLOC_MMAP_MAX_", 0), (_TRIM_THRESHOLD, "MALLOC_TRIM_THRESHOLD_", -1)):
        if name not in os.environ:
            mallopt(option, value)
