"""The command ``lightning-cifar fork``: continue a run from a kept epoch, with changed settings, in a new folder."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_cifar.commands.options import positive_int
from lightning_cifar.errors import CommandParser, UsageError
from lightning_cifar.files.paths import expand_user


def main(args: Sequence[str]) -> None:
    """Run the command; ``args`` follow ``lightning-cifar fork``: the run, then options of ``fork`` and of ``fit``.

    Raises:
        UsageError: If an option is wrong, the run has no state of that epoch, or a setting does not fit the state.
    """
    if args and args[0].startswith("-") and not {"-h", "--help"} & {*args}:
        raise UsageError(f"the folder of the run comes first: lightning-cifar fork runs/... {args[0]} ...")
    options, rest = _parser().parse_known_args(args)

    # From here on torch is needed, which takes seconds to load.
    from lightning_cifar.runs.arguments import Arguments
    from lightning_cifar.runs.cli import RunCLI
    from lightning_cifar.runs.fork import Fork
    from lightning_cifar.runs.start import start_run

    arguments = Arguments("fit", tuple(rest))
    start_run(RunCLI, arguments, fork=Fork(options.run, options.epoch, options.restart_schedule == "true"))


def _parser() -> CommandParser:
    parser = CommandParser(
        "fork", description="Continue a run from a kept epoch in a new folder. All settings of fit can be changed."
    )
    add = parser.add_argument
    add("run", type=expand_user, metavar="RUN", help="folder of a run that used --keep_every_n_epochs")
    add("--epoch", type=positive_int, required=True, help="number of completed epochs at the fork")
    schedule_help = "start the learning-rate schedule again over the remaining steps (default: its progress continues)"
    add("--restart_schedule", type=str.lower, choices=("true", "false"), default="false", help=schedule_help)
    return parser
