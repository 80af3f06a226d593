"""The command ``lightning-cifar lr-find``: sweep the learning rate of an experiment without training it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_cifar.errors import CommandParser, UsageError
from lightning_cifar.files.output import choose_output

REFUSED = ("--ckpt_path", "--trainer.fast_dev_run")
"""Options of ``fit`` that are not valid here."""


def main(args: Sequence[str]) -> None:
    """Run the command. Arguments that are not options of ``lr-find`` are options of ``fit``."""
    options, rest = _parser().parse_known_args(args)
    for option in (arg.split("=")[0] for arg in rest):
        if option in REFUSED:
            raise UsageError(f"lr-find starts from new weights: leave {option} out.")

    # From here on torch is needed, which takes seconds to load.
    from lightning_cifar.callbacks import LRRangeFinder
    from lightning_cifar.runs.arguments import Arguments
    from lightning_cifar.runs.lr_find_cli import LRFindCLI
    from lightning_cifar.runs.start import start_run

    finder = LRRangeFinder(
        options.min_lr,
        options.max_lr,
        options.num_steps,
        options.seeds,
        options.spacing,
        zoom=options.zoom,
        verify=options.verify,
    )
    out = [] if options.out is None else ["--run_dir", str(choose_output(Path(options.out), None))]
    start_run(LRFindCLI, Arguments("fit", (*rest, *out)), option="--out", finder=finder)


def _parser() -> CommandParser:
    parser = CommandParser(
        "lr-find", description="Suggest a learning rate by sweeps. All options of fit are valid too."
    )
    add = parser.add_argument
    add("--min_lr", type=float, default=1e-4, help="first learning rate (default %(default)g)")
    add("--max_lr", type=float, default=10.0, help="last learning rate (default %(default)g)")
    add("--num_steps", type=int, default=200, help="optimizer steps of a sweep (default %(default)s)")
    add("--seeds", type=int, default=3, help="number of sweeps, each with different batches (default %(default)s)")
    add("--spacing", choices=("geometric", "linear"), default="geometric", help="spacing (default %(default)s)")
    add("--zoom", type=float, nargs=2, metavar=("LOW", "HIGH"), help="range of learning rates for a second picture")
    add("--verify", action="store_true", help="test the suggestion with short trainings and correct it")
    add("--out", help="folder for the results; must not exist (default: one in runs/)")
    return parser
