"""The command line: ``lightning-cifar fit | validate | test | predict | lr-find | explain | study | report | ...``.

Errors that do not need torch, such as a missing file, are reported before torch is imported, which takes seconds.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from lightning_cifar import streams
from lightning_cifar.checkpoints.find import find_checkpoint
from lightning_cifar.commands.table import COMMANDS, usage_lines
from lightning_cifar.configuration import find_config, list_configs
from lightning_cifar.errors import UsageError, did_you_mean, innermost
from lightning_cifar.files.paths import expand_user
from lightning_cifar.files.text import plain_text
from lightning_cifar.memory import keep_freed_memory
from lightning_cifar.runs.arguments import Arguments
from lightning_cifar.runs.early_options import check_options
from lightning_cifar.runs.signals import Terminated
from lightning_cifar.runs.user_modules import forget_current_folder

_USAGE_ERRORS = ("conditioned on metric", "checkpoint contains only the model")  # in errors of Lightning
TRACEBACK = "LIGHTNING_CIFAR_TRACEBACK"
USAGE = f"""\
usage: lightning-cifar [-h] [--version] {{{",".join(COMMANDS)}}} ...

Train convolutional networks on CIFAR-10 and compare training choices.

{usage_lines()}

All settings are options: see lightning-cifar fit --help, --model.help LeNet, --data.help CIFAR10DataModule.
--print_config prints the whole configuration. {TRACEBACK}=1 shows the traceback of an error.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run a command of the command line.

    Args:
        args: Arguments, the command first; None means those of the process.

    Returns:
        Exit code: 0 on success, 2 for an error of the user, 130 if interrupted, 143 if terminated.
    """
    args = sys.argv[1:] if args is None else args
    if not args or args[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if args else 2
    if args[0] == "--version":
        names = ("lightning-cifar", "torch", "torchvision", "lightning")
        print(", ".join(f"{name} {version(name)}" for name in names))
        return 0
    try:
        arguments = _checked(Arguments(args[0], tuple(args[1:])))
        keep_freed_memory()
        if arguments.command not in ("report", "gradcheck", "bench", "regimes", "doctor"):
            _quieten()
        if module := COMMANDS[arguments.command].module:
            code: int | None = import_module(f"lightning_cifar.commands.{module}").main(arguments.args)
            return code or 0
        from lightning_cifar.runs.cli import RunCLI
        from lightning_cifar.runs.start import start_run

        start_run(RunCLI, arguments)
    except KeyboardInterrupt as error:
        terminated = isinstance(error, Terminated)
        what = "terminated" if terminated else "interrupted"
        print(f"lightning-cifar: {what}{': ' if str(error) else ''}{error}", file=sys.stderr)
        return 143 if terminated else 130
    except Exception as error:
        if os.environ.get(TRACEBACK) or not _is_usage_error(error):
            raise
        return _report(error)
    return 0


def _is_usage_error(error: Exception) -> bool:
    if isinstance(error, UsageError | ValueError | TypeError | OSError):
        return not isinstance(error, BrokenPipeError)
    # By name, so that Lightning is not imported.
    return type(error).__name__ == "MisconfigurationException" or any(part in str(error) for part in _USAGE_ERRORS)


def _report(error: Exception) -> int:
    # A message can quote a received file, which can contain control characters.
    print(f"lightning-cifar: error: {plain_text(innermost(error))}", file=sys.stderr)
    return 2


def _checked(arguments: Arguments) -> Arguments:
    """Check the arguments without importing torch, and find the files of configurations and checkpoints."""
    if arguments.command not in COMMANDS:
        hint = did_you_mean(arguments.command, COMMANDS)
        raise UsageError(f"there is no command {arguments.command!r}.{hint} There are {', '.join(COMMANDS)}.")
    if COMMANDS[arguments.command].module and arguments.command not in ("lr-find", "fork"):
        return arguments  # the command has another parser
    arguments = arguments.map(("-c", "--config"), _find_configuration)
    _ = arguments.configurations  # raises if a file does not contain settings
    if not COMMANDS[arguments.command].module:
        check_options(arguments)
    path = arguments.get("--ckpt_path")
    if path is None or path == "null":
        return arguments
    found = find_checkpoint(expand_user(path))
    if found.chosen:
        print(f"checkpoint: {found.path}", file=sys.stderr)
    return arguments.replace("--ckpt_path", "--ckpt_path", str(found.path))


def _find_configuration(path: str) -> str:
    found = find_config(str(expand_user(path)))
    if os.path.isdir(found):
        inside = os.path.join(found, "config.yaml")
        hint = f"pass {inside}" if os.path.isfile(inside) else "pass a YAML file"
        raise UsageError(f"{path} is a folder: {hint}.")
    if not os.path.isfile(found):
        hint = did_you_mean(path, list_configs())
        raise UsageError(f"there is no configuration {path}: pass an existing YAML file.{hint}")
    return found


def _quieten() -> None:
    """Filter tips and internals of Lightning out of the log."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # they concern calls in Lightning

    hidden = ("Tip:", "to estimate number of stepping batches", "TPU available", "`max_epochs=0` reached")  # of lr-find

    def is_shown(record: logging.LogRecord) -> bool:
        return not any(part in record.getMessage() for part in hidden)

    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).addFilter(is_shown)


def console() -> None:
    """Entry point of the console script."""
    forget_current_folder()
    os.environ["MPLBACKEND"] = "agg"  # `!lightning-cifar` inherits that of the notebook, which may not be importable
    streams.protect(sys.argv[1:])
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has ended, such as `| head`
        streams.discard(1)
        code = 141
    except OSError as error:  # from flush()
        streams.discard(1)
        code = _report(OSError(f"the output cannot be written: {error.strerror}"))
    sys.exit(code)
