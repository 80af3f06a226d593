"""Start a run: find the checkpoint and its settings, parse and run the command line, and explain errors in one line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TypeVar

from lightning_cifar.checkpoints.reading import Checkpoint
from lightning_cifar.checkpoints.settings import trained_settings
from lightning_cifar.errors import UsageError, one_line
from lightning_cifar.runs.arguments import Arguments
from lightning_cifar.runs.cli import RunCLI
from lightning_cifar.runs.compatibility import is_of_restoring
from lightning_cifar.runs.disk_full import is_full, no_space, silent_writers
from lightning_cifar.runs.expected_warnings import expected_warnings_ignored
from lightning_cifar.runs.folder import RunFolder
from lightning_cifar.runs.fork import Fork, start_fork
from lightning_cifar.runs.lost_process import is_of_lost_process, lost_process
from lightning_cifar.runs.resume import Resumed, can_resume, find_resumed
from lightning_cifar.runs.signals import interruption_behind, terminations_raised
from lightning_cifar.runs.user_modules import allow_modules

AnyRun = TypeVar("AnyRun", bound=RunCLI)


def start_run(
    kind: type[AnyRun],
    arguments: Arguments,
    *,
    option: str = "--run_dir",
    fork: Fork | None = None,
    **extra: Any,
) -> AnyRun:
    """Parse and run a command line.

    The folder of the run is created after all checks have passed, and is never used by another run.

    Args:
        option: Option with which the user names the folder of the run, for messages.
        fork: Where the run starts, instead of new weights.

    Raises:
        UsageError: If the command line is wrong.
        KeyboardInterrupt: If the run was interrupted. The message contains the command that continues it.
    """
    with expected_warnings_ignored(), silent_writers(), terminations_raised():
        parent = None
        if fork is None:
            arguments, resumed = find_resumed(arguments)
        else:
            arguments, resumed, parent = start_fork(arguments, fork)
        allow_modules(*arguments.class_paths, *(resumed.class_paths if resumed else ()))
        folder = RunFolder(resumed if parent is None else None, option=option)
        try:
            checkpoint, defaults = _settings(arguments, resumed)
            return kind(arguments, folder, checkpoint, defaults, parent, **extra)
        except SystemExit as stop:
            interruption = interruption_behind(stop)
            if interruption is None:
                raise
            # Lightning has closed the training, and would exit with 0 or 1.
            can = folder.path is not None and can_resume(folder.path)
            raise interruption(f"continue with: lightning-cifar fit --resume {folder.path}" if can else "") from stop
        except Exception as error:
            folder.leave_nothing()
            if is_full(error) and folder.is_claimed:
                assert folder.path is not None
                raise no_space(folder.path, resumes=kind is RunCLI) from error
            if is_of_lost_process(error):
                raise lost_process(error, folder.path) from error
            if is_of_restoring(error):
                name = arguments.get("--ckpt_path")
                raise UsageError(f"{name} cannot be restored here: {one_line(error)[:160]}") from error
            raise
        finally:
            folder.release()


def _settings(arguments: Arguments, resumed: Resumed | None) -> tuple[Checkpoint | None, dict[str, Any]]:
    """Return the checkpoint of a command line and its settings, which explicit options override."""
    if resumed is not None:
        config = {key: value for key, value in resumed.config.items() if key != "test_after_fit" or value}
        held = resumed.checkpoint.hyper_parameters
        settings = config.get("model", {}).get("init_args", {})
        for name, value in held.items():  # at the end of the run, such as a learning rate that was found
            if name in settings:
                settings[name] = list(value) if isinstance(value, tuple) else value
        return resumed.checkpoint, config
    path = arguments.get("--ckpt_path")
    if path in (None, "null"):
        return None, {}
    assert path is not None
    checkpoint = Checkpoint.read(Path(path))
    given = [section for section in ("model", "data") if arguments.configures(section)]
    of_fit = arguments.command == "fit"
    settings, left_out = trained_settings(checkpoint, of_fit=of_fit, allowed=arguments.named_classes, given=given)
    if left_out and of_fit and not arguments.configurations:
        names = ", ".join(left_out)
        print(f"{path}: {names} are not taken from a checkpoint: pass them, or --config.", file=sys.stderr)
    return checkpoint, settings
