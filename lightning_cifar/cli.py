"""The command line: ``lightning-cifar fit | validate | test | predict | lr-find | explain | study | report | ...``.

What needs no torch (the version, a missing file) is answered before torch is loaded, which takes seconds.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version

from lightning_cifar import streams
from lightning_cifar.checkpoints.find import find_checkpoint
from lightning_cifar.commands.table import COMMANDS, usage_lines
from lightning_cifar.configuration import find_config, list_configs
from lightning_cifar.errors import UsageError, did_you_mean, innermost
from lightning_cifar.files.paths import expand_user
from lightning_cifar.files.text import plain_text
from lightning_cifar.runs.arguments import Arguments
from lightning_cifar.runs.signals import Terminated
from lightning_cifar.runs.user_modules import forget_current_folder

_TOLD = ("conditioned on metric", "checkpoint contains only the model")  # in errors of Lightning
TRACEBACK = "LIGHTNING_CIFAR_TRACEBACK"
USAGE = f"""\
usage: lightning-cifar [-h] [--version] {{{",".join(COMMANDS)}}} ...

What a training choice does to a convolutional network on CIFAR-10.

{usage_lines()}

Every setting is an option: lightning-cifar fit --help, --model.help LeNet, --data.help CIFAR10DataModule.
--print_config writes the whole configuration. {TRACEBACK}=1 shows where an error comes from.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it worked, 2 if the user can mend what went wrong, 130 if interrupted, 143 if terminated.

    Args:
        args: Words of the command line; None takes those of the process.
    """
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if words else 2
    if words[0] == "--version":
        names = ("lightning-cifar", "torch", "torchvision", "lightning")
        print(", ".join(f"{name} {version(name)}" for name in names))
        return 0
    try:
        arguments = _checked(Arguments.parse(words))
        verb = _own_verb(arguments.command)
        if verb is not None:
            return verb(arguments.args) or 0
        from lightning_cifar.runs.cli import RunCLI

        RunCLI.start(arguments)
    except KeyboardInterrupt as error:
        terminated = isinstance(error, Terminated)
        what = "terminated" if terminated else "interrupted"
        print(f"lightning-cifar: {what}{': ' if str(error) else ''}{error}", file=sys.stderr)
        return 143 if terminated else 130
    except BrokenPipeError:
        raise
    except (UsageError, ValueError, TypeError, OSError) as error:
        if os.environ.get(TRACEBACK):
            raise
        return _tell(error)
    except Exception as error:
        # Lightning's own words for what a user can mend; named here so that they need not be imported.
        told = type(error).__name__ == "MisconfigurationException" or any(part in str(error) for part in _TOLD)
        if not told or os.environ.get(TRACEBACK):
            raise
        return _tell(error)
    return 0


def _own_verb(name: str) -> Callable[[Sequence[str]], int | None] | None:
    """One of our own commands, imported when it is called; None for those that Lightning has."""
    if name not in ("report", "gradcheck", "bench", "regimes", "doctor"):
        _quieten()
    if not (module := COMMANDS[name].module):
        return None
    verb: Callable[[Sequence[str]], int | None] = import_module(f"lightning_cifar.commands.{module}").main
    return verb


def _tell(error: Exception) -> int:
    print(f"lightning-cifar: error: {plain_text(innermost(error))}", file=sys.stderr)
    return 2


def _checked(arguments: Arguments) -> Arguments:
    """Refuse what needs no torch to be refused; shipped configurations and folders stand for files."""
    if arguments.command not in COMMANDS:
        hint = did_you_mean(arguments.command, COMMANDS)
        raise UsageError(f"there is no command {arguments.command!r}.{hint} There are {', '.join(COMMANDS)}.")
    if COMMANDS[arguments.command].module and arguments.command != "lr-find":
        return arguments  # it has a parser of its own
    arguments = arguments.map(("-c", "--config"), _find_configuration)
    _ = arguments.configurations  # refuses what holds no settings
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
    """Keep Lightning's advertising and internals out of the log."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's calls, not the user's

    def is_ours_to_show(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not any(part in message for part in ("Tip:", "to estimate number of stepping batches", "TPU available"))

    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).addFilter(is_ours_to_show)


def console() -> None:
    """Entry point of the console script."""
    forget_current_folder()
    os.environ["MPLBACKEND"] = "agg"  # a notebook's, which `!lightning-cifar` inherits, may not be importable here
    streams.protect(sys.argv[1:])
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # who read the output has gone, as `| head` does
        streams.discard(1)
        code = 141
    except OSError as error:  # from flush()
        streams.discard(1)
        code = _tell(OSError(f"the output cannot be written: {error.strerror}"))
    sys.exit(code)
