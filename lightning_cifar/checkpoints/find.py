"""Find the checkpoint for a path: the file itself, or the best one in the folder of a run. Does not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lightning_cifar.errors import UsageError

TRAINED = ("best.ckpt", "last.ckpt")


class Found(NamedTuple):
    """A checkpoint, and the folder of its run."""

    path: Path
    folder: Path
    chosen: bool
    """Whether it was chosen among the files of a folder, so that its name is printed."""

    @property
    def is_best(self) -> bool:
        return self.path.name == TRAINED[0]


def find_checkpoint(path: Path) -> Found:
    """Find the checkpoint of a trained network.

    For the folder of a run, or its folder ``checkpoints``, this is ``best.ckpt``, else ``last.ckpt``, else the only
    other checkpoint in it, but never ``resume.ckpt``, which contains the weights at the start of an epoch.

    Raises:
        UsageError: If no checkpoint exists, or the choice is ambiguous.
    """
    if path.is_file():
        return Found(path, path.parent.parent if path.parent.name == "checkpoints" else path.parent, chosen=False)
    if not path.is_dir():
        raise UsageError(f"there is no checkpoint {path}: pass the folder of a run, or a file in its checkpoints/.")
    run = path.parent if path.resolve().name == "checkpoints" else path
    for folder in (run / "checkpoints", run):
        for name in TRAINED:
            if (folder / name).is_file():
                return Found(folder / name, run, chosen=True)
    others = [each for each in sorted((run / "checkpoints").glob("*.ckpt")) if not each.name.startswith("resume")]
    if len(others) == 1:
        return Found(others[0], run, chosen=True)
    if others:
        names = ", ".join(each.name for each in others[:5])
        raise UsageError(f"{run} has {len(others)} checkpoints ({names}): pass one of them, {others[-1]}.")
    inner = sorted(each.parent.parent for each in run.glob("*/checkpoints/*.ckpt"))
    hint = f"pass one run, {inner[0]}" if inner else "pass a checkpoint"
    raise UsageError(f"{run} has no {' or '.join(f'checkpoints/{name}' for name in TRAINED)}: {hint}.")
