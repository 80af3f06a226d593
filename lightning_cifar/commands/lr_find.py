"""The command ``lightning-cifar lr-find``: sweep the learning rate of a configured experiment, train nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_cifar.errors import CommandParser, UsageError
from lightning_cifar.files.output import choose_output

REFUSED = ("--ckpt_path", "--trainer.fast_dev_run")
"""Options of ``fit`` that make no sense here."""


def main(words: Sequence[str]) -> None:
    """Run the command: our options are taken out, the rest is a ``fit`` command line.

    Raises:
        UsageError: If an option or a value is wrong.
    """
    options, rest = _parser().parse_known_args(list(words))
    for word in rest:
        if word.split("=")[0] in REFUSED:
            raise UsageError(f"lr-find sweeps from fresh weights: leave {word.split('=')[0]} out.")

    # From here on torch is needed, which takes seconds to load.
    from lightning_cifar.callbacks import LRRangeFinder
    from lightning_cifar.runs.arguments import Arguments
    from lightning_cifar.runs.lr_find_cli import LRFindCLI

    finder = LRRangeFinder(
        options.min_lr,
        options.max_lr,
        options.num_steps,
        options.seeds,
        options.spacing,
        zoom=options.zoom,
    )
    out = [] if options.out is None else ["--run_dir", str(choose_output(Path(options.out), None))]
    LRFindCLI.start(Arguments("fit", (*rest, *out)), option="--out", finder=finder)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="lightning-cifar lr-find",
        description="Sweep the learning rate of an experiment and suggest one. All options of fit work too.",
        allow_abbrev=False,
    )
    parser.add_argument("--min_lr", type=float, default=1e-4, help="first learning rate (default %(default)g)")
    parser.add_argument("--max_lr", type=float, default=10.0, help="last learning rate (default %(default)g)")
    parser.add_argument("--num_steps", type=int, default=200, help="optimizer steps of a sweep (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="sweeps, on other batches each (default %(default)s)")
    parser.add_argument("--spacing", choices=("geometric", "linear"), default="geometric", help="of the learning rates")
    parser.add_argument("--zoom", type=float, nargs=2, metavar=("LOW", "HIGH"), help="window of a second picture")
    parser.add_argument("--out", help="folder for the results; must not exist (default: one in runs/)")
    return parser
