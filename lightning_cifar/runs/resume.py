"""Continue an interrupted run in its folder."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_cifar.checkpoints.reading import RUN_ID, Checkpoint
from lightning_cifar.configuration import read_configuration
from lightning_cifar.errors import UsageError
from lightning_cifar.files.checksums import DamagedError
from lightning_cifar.files.links import refuse_links
from lightning_cifar.files.paths import expand_user
from lightning_cifar.runs.arguments import Arguments, dotted_names

CHECKPOINTS = (Path("checkpoints") / "resume.ckpt", Path("checkpoints") / "resume.previous.ckpt")  # the newer one first
_STATES = {  # parts of a checkpoint, beside the weights, that an exact continuation needs
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "exact_resume": dict,
}


@dataclass(frozen=True)
class Resumed:
    """A run to continue: its folder, the checkpoint to continue from, and the configuration in the folder."""

    folder: Path
    checkpoint: Checkpoint
    config: dict[str, Any]
    run_id: str | None

    @property
    def class_paths(self) -> frozenset[str]:
        """Dotted names in the configuration, which is trusted."""
        return dotted_names(self.config)


def find_resumed(arguments: Arguments) -> tuple[Arguments, Resumed | None]:
    """Find the run of ``--resume FOLDER``; return the arguments without it, and the run.

    The folder is trusted like a script: its ``config.yaml`` names the classes that run.

    Raises:
        UsageError: If the folder is not that of a run, has no checkpoint to continue from, or its run ended.
    """
    if not arguments.has("--resume"):
        return arguments, None
    given = arguments.get("--resume")
    if given is None:
        raise UsageError("--resume needs the folder of a run: --resume runs/LeNet-20261121-093000.")
    folder = expand_user(given)
    for option in ("--ckpt_path", "--run_dir"):
        if arguments.has(option):
            raise UsageError(f"--resume {folder} and {option} are mutually exclusive: leave {option} out.")
    if arguments.command != "fit":
        raise UsageError(f"--resume is an option of fit: lightning-cifar fit --resume {folder}.")
    if not (folder / "config.yaml").is_file():
        raise UsageError(f"{folder} is not the folder of a run: it has no config.yaml.")
    refuse_links(folder)
    if (folder / "result.json").is_file() and not any(name.startswith("--trainer.max_") for name, _ in arguments.pairs):
        raise UsageError(f"the run in {folder} has ended: to continue the training, add --trainer.max_epochs.")
    config = read_configuration(folder / "config.yaml")
    run_id = _run_id((folder / "config.yaml").read_text(encoding="utf-8"))
    checkpoint = _last_good(folder, run_id)
    more = ("--ckpt_path", str(checkpoint.path), "--run_dir", str(folder))
    return arguments.replace("--resume", *more), Resumed(folder, checkpoint, config, run_id)


def can_resume(folder: Path) -> bool:
    """Return whether the folder has a checkpoint to continue from."""
    return any((folder / name).is_file() for name in CHECKPOINTS)


def _last_good(folder: Path, run_id: str | None) -> Checkpoint:
    """Read the newest undamaged checkpoint. Damaged ones are reported.

    Raises:
        UsageError: If none is undamaged, or it belongs to another run.
    """
    damaged = []
    for path in (folder / name for name in CHECKPOINTS):
        if not path.is_file():
            continue
        try:
            checkpoint = Checkpoint.read(path)
        except UsageError as error:
            if not isinstance(error.__cause__, DamagedError):
                raise
            damaged.append(str(error.__cause__))
            continue
        _check(checkpoint, folder, run_id)
        for message in damaged:
            print(f"{message} Continuing from {path.name}.", file=sys.stderr)
        return checkpoint
    if damaged:
        raise UsageError(f"{damaged[0]} Start again with --config {folder}/config.yaml.")
    raise UsageError(f"{folder} has no {CHECKPOINTS[0]} yet: start again with --config {folder}/config.yaml.")


def _check(checkpoint: Checkpoint, folder: Path, run_id: str | None) -> None:
    """Check that a checkpoint belongs to this run and is complete."""
    advice = f"restore the checkpoint of this run, or start again with --config {folder}/config.yaml"
    for name, kind in _STATES.items():
        if not isinstance(checkpoint.content.get(name), kind):
            raise UsageError(f"{checkpoint.path} has no {name}, which the run needs to continue exactly: {advice}.")
    if checkpoint.content.get(RUN_ID) != run_id:
        raise UsageError(f"{checkpoint.path} belongs to another run than config.yaml in {folder}: {advice}.")


def _run_id(text: str) -> str | None:
    """Return the identifier of a run; None in folders of version 0.1.0."""
    found = re.match(r"# run ([0-9a-f]+)\n", text)
    return found[1] if found else None
