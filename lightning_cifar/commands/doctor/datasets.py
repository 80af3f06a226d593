"""Which data sets are there, whole and as published. Reads files, and fetches none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lightning_cifar.commands.doctor.findings import Fact, Finding, Told, command

if TYPE_CHECKING:
    from lightning_cifar.data.sources import IdxSource

LARGEST = 300_000_000  # bytes of a file that is read for its checksum: half a second


class Found(NamedTuple):
    """What there is of a data set in a folder.

    Attributes:
        files: Each file that is there, with the md5 that it must have.
        missing: Names of those that are not.
        part: A download that broke off.
    """

    files: dict[Path, str]
    missing: list[str]
    part: bool = False


def datasets(roots: Sequence[Path]) -> Iterator[Told]:
    """CIFAR-10, MNIST and FashionMNIST in each folder."""
    from lightning_cifar.data.sources import FASHION_MNIST, MNIST

    has_cifar10 = False
    for root in roots:
        for name, found in (
            ("CIFAR10", find_cifar10_files(root)),
            ("MNIST", find_idx_files(root, MNIST)),
            ("FashionMNIST", find_idx_files(root, FASHION_MNIST)),
        ):
            state, finding = judge(name, root, found)
            yield Fact("data", f"{name} in {root}", state)
            if finding:
                yield finding
                has_cifar10 |= name == "CIFAR10"
    if not has_cifar10:
        where = " or ".join(map(str, roots))
        consequence = "what trains on it stops at once; SyntheticDataModule needs no data"
        yield Finding("CIFAR10", "note", f"CIFAR-10 is not in {where}", consequence, _download("CIFAR10", roots[0]))


def find_cifar10_files(root: Path) -> Found:
    """Those that a run would read, or what there is of them."""
    from lightning_cifar.data import sources

    source = sources.find_cifar10(root)
    part = (root / f"{sources.ARCHIVE}.part").is_file()
    if source is not None and source.is_file():
        return Found({source: sources.ARCHIVE_MD5}, [])
    folders = [source] if source is not None else [root / sources.FOLDER, root]
    for folder in folders:
        there = {folder / name: md5 for name, md5 in sources.OFFICIAL_MD5.items() if (folder / name).is_file()}
        if there:
            return Found(there, [name for name in sources.OFFICIAL_MD5 if folder / name not in there], part)
    return Found({}, list(sources.OFFICIAL_MD5), part)


def find_idx_files(root: Path, source: IdxSource) -> Found:
    """The same of a data set in MNIST's format; unpacked files go first."""
    files: dict[Path, str] = {}
    missing, part = [], False
    for file in source.files:
        unpacked = source.folder(root) / file.name
        packed = unpacked.with_name(f"{file.name}.gz")
        part |= packed.with_name(f"{packed.name}.part").is_file()
        if unpacked.is_file():
            files[unpacked] = file.unpacked_md5
        elif packed.is_file():
            files[packed] = file.md5
        else:
            missing.append(file.name)
    return Found(files, missing, part)


def judge(name: str, root: Path, found: Found) -> tuple[str, Finding | None]:
    """The state in a word or two, and what is to be said of it; nothing is said of what is not there."""
    total = len(found.files) + len(found.missing)
    if not found.files and not found.part:
        return "not there", None
    if found.missing:
        state = f"incomplete: {len(found.files)} of {total} files" + (", a download broke off" if found.part else "")
        what = f"{name} in {root} lacks {', '.join(found.missing[:3])}{' ...' if len(found.missing) > 3 else ''}"
        return state, Finding(name, "fix", what, "what trains on it stops at once", _download(name, root))
    wrong = [path for path, md5 in found.files.items() if _md5(path) not in (md5, None)]
    if len(wrong) == total > 1:
        what = f"no file of {name} in {root} is as published: this is another copy, or another set of images"
        consequence = "it is refused until it is said to be meant"
        return "complete, not as published", Finding(name, "note", what, consequence, "pass --data.verify false")
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        what = f"{wrong[0]}{more} of {name} differs from the published file"
        consequence = "what trains on it stops at once"
        fix = f"{command('rm', *map(str, wrong))} && {_download(name, root)}"
        return f"differs: {len(wrong)} of {total} files", Finding(name, "fix", what, consequence, fix)
    return "complete, checksums as published", Finding(name, "ok", f"{name} in {root} is complete, as published")


def _md5(path: Path) -> str | None:
    """None where it would take too long."""
    if path.stat().st_size > LARGEST:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _download(name: str, root: Path) -> str:
    """The command that fetches what is missing, and tries it with one batch."""
    words = ["--model", "LeNet", "--data", f"{name}DataModule", "--data.root", str(root), "--data.download", "true"]
    return command("lightning-cifar", "fit", *words, "--trainer.fast_dev_run", "true")
