"""Files with the same content in different splits, which make the scores of a network too good."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def find_copies(splits: Mapping[str, Sequence[Path]]) -> list[tuple[Path, Path]]:
    """Find the files whose content is also in an earlier split.

    Only files of a size that occurs in two splits are read. Unreadable files are skipped.

    Returns:
        Pairs of such a file and the first file with the same content.
    """
    by_size: dict[int, list[tuple[str, Path]]] = defaultdict(list)
    for split, paths in splits.items():
        for path in paths:
            try:
                status = path.stat()
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode) and status.st_size:
                by_size[status.st_size].append((split, path))
    suspects = [each for same in by_size.values() if len({split for split, _ in same}) > 1 for each in same]
    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
        digests = list(pool.map(_digest, [path for _, path in suspects]))
    first: dict[bytes, tuple[str, Path]] = {}
    copies = []
    for (split, path), digest in zip(suspects, digests, strict=True):
        if digest is None:
            continue
        original, where = first.setdefault(digest, (split, path))
        if original != split:
            copies.append((path, where))
    return sorted(copies)


def _digest(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, hashlib.blake2b).digest()
    except OSError:
        return None
