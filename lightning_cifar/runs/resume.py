"""Continue a broken run in its own folder."""

from __future__ import annotations

import sys
from pathlib import Path

from lightning_cifar.errors import UsageError
from lightning_cifar.files.checksums import DamagedError, read_verified
from lightning_cifar.files.links import refuse_links

CHECKPOINTS = (Path("checkpoints") / "resume.ckpt", Path("checkpoints") / "resume.previous.ckpt")  # the newer one first


def with_resume(words: list[str]) -> tuple[list[str], Path | None]:
    """Replace ``--resume FOLDER`` by the checkpoint and the folder that it means.

    Returns:
        The words, and the folder; None where nothing is resumed.

    Raises:
        UsageError: The folder is not a run's, or holds nothing to go on from, or its run ended.
    """
    given = [word.split("=", 1)[1] for word in words if word.startswith("--resume=")]
    if "--resume" in words[:-1]:
        given.append(words[words.index("--resume") + 1])
    if not given:
        if "--resume" in words:
            raise UsageError("--resume needs the folder of a run: --resume runs/LeNet-20261121-093000.")
        return words, None
    folder = Path(given[-1])
    for option in ("--ckpt_path", "--run_dir"):
        if any(word.split("=")[0] == option for word in words):
            raise UsageError(f"--resume {folder} says already where to go on: leave {option} out.")
    if words[0] != "fit":
        raise UsageError(f"--resume goes on training: lightning-cifar fit --resume {folder}.")
    if not (folder / "config.yaml").is_file():
        raise UsageError(f"{folder} is not the folder of a run: it has no config.yaml.")
    refuse_links(folder)
    if (folder / "result.json").is_file() and not any(word.startswith("--trainer.max_") for word in words):
        raise UsageError(f"the run in {folder} ended: to train on, add --trainer.max_epochs.")
    path = _last_good(folder)
    rest = [
        word
        for i, word in enumerate(words)
        if not (word.startswith("--resume") or (i > 0 and words[i - 1] == "--resume"))
    ]
    return [*rest, "--ckpt_path", str(path), "--run_dir", str(folder)], folder


def can_resume(folder: Path) -> bool:
    """Whether there is something to go on from."""
    return any((folder / name).is_file() for name in CHECKPOINTS)


def _last_good(folder: Path) -> Path:
    """The newest undamaged checkpoint to go on from; what is damaged is said.

    Raises:
        UsageError: There is none.
    """
    damaged = []
    for path in (folder / name for name in CHECKPOINTS):
        if not path.is_file():
            continue
        try:
            read_verified(path)
        except DamagedError as error:
            damaged.append(str(error))
            continue
        for message in damaged:
            print(f"{message} Going on from {path.name}.", file=sys.stderr)
        return path
    if damaged:
        raise UsageError(f"{damaged[0]} Start anew with --config {folder}/config.yaml.")
    raise UsageError(
        f"{folder} broke before its first {CHECKPOINTS[0]}: start anew with --config {folder}/config.yaml."
    )


def remove_parts(folder: Path) -> None:
    """Remove what a killed run had begun to write."""
    for path in folder.rglob(".*.part"):
        path.unlink(missing_ok=True)
