"""The command ``lightning-cifar regimes``: learning-rate regimes to look at, without any training and without torch."""

from __future__ import annotations

import argparse
import io
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import yaml
from numpy.typing import NDArray

from lightning_cifar import plots
from lightning_cifar.artifacts import DPI
from lightning_cifar.errors import CommandParser, UsageError, did_you_mean
from lightning_cifar.files.atomic import write_atomically
from lightning_cifar.files.output import choose_output
from lightning_cifar.files.paths import expand_user
from lightning_cifar.schedules import REGIMES, Regime, lr_factor

PAPERS = {
    "step": "He et al. 2015, arXiv:1512.03385",
    "linear": "Li et al. 2019, arXiv:1905.04753",
    "cosine": "Loshchilov & Hutter 2016, arXiv:1608.03983",
    "one-cycle": "Smith & Topin 2017, arXiv:1708.07120",
    "triangular": "Smith 2015, arXiv:1506.01186",
    "warm-restarts": "Loshchilov & Hutter 2016, arXiv:1608.03983",
}
"""Where a regime comes from; exponential decay and the constant are older than any of these."""

# 5 times the least common multiple of 1 to 8: the turns of every preset are hit exactly.
_STEPS = 4200
_MOST_CYCLES = 100

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def main(words: Sequence[str]) -> None:
    """Draw regimes into a file, and say how they are written in a configuration.

    Args:
        words: Of the command line, after ``lightning-cifar regimes``.

    Raises:
        UsageError: If an option is unknown or out of range.
        OSError: If the picture cannot be written.
    """
    options = _parser().parse_args(words)
    settings = _settings(options)
    if options.lr is not None and not (math.isfinite(options.lr) and options.lr > 0):
        raise UsageError(f"lr (={options.lr}) must be a positive number.")
    if options.name and settings:
        given = list(settings)[-1]
        raise UsageError(f"--name and --{given} exclude each other: name a preset, or give settings.")

    if settings:
        file, regimes = "regime.png", {_in_yaml(settings)[1:-1]: settings}
        report = f"init_args: {_in_yaml(settings if options.lr is None else {'lr': options.lr, **settings})}\n"
    else:
        regimes = {name: _preset(name) for name in options.name or REGIMES}
        file = f"regime_{next(iter(regimes))}.png" if len(regimes) == 1 else "regimes.png"
        report = _table(regimes)
    path = choose_output(options.out, file)
    figure = plots.draw_regimes(
        {name: trace(regime, peak=options.lr or 1.0) for name, regime in regimes.items()},
        ylabel="learning rate / peak" if options.lr is None else "learning rate",
        log=options.log,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    done = "replaced" if path.exists() else "wrote"
    write_atomically(path, buffer.getvalue())
    sys.stdout.write(f"{report}{done} {path}\n")


def trace(settings: Regime, *, peak: float = 1.0) -> Curve:
    """Progress of training from 0 to 1, and the learning rate there.

    Raises:
        UsageError: If the settings are not a regime, or not one that can be drawn.
    """
    if (cycles := settings.get("cycles") or 1) > _MOST_CYCLES:
        raise UsageError(f"cycles (={cycles}) cannot be told apart in a picture: at most {_MOST_CYCLES}.")
    progress = np.arange(_STEPS + 1) / _STEPS
    try:
        factors = [lr_factor(float(point), **settings) for point in progress]
    except ValueError as error:
        schedule = str(settings.get("schedule", ""))
        hint = "" if schedule in REGIMES else did_you_mean(schedule, REGIMES)
        raise UsageError(f"{error}{hint}") from None
    return progress, peak * np.asarray(factors)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="lightning-cifar regimes",
        description="Look at learning-rate regimes without training: the usual ones by name, or one by its settings.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--out", type=expand_user, default=Path(), metavar="PATH", help="picture, or folder of it (default: here)"
    )
    parser.add_argument("--name", nargs="+", metavar="NAME", help=f"only these: {', '.join(REGIMES)}")
    parser.add_argument("--lr", type=float, help="peak: draw the learning rate itself, not its fraction of the peak")
    parser.add_argument("--log", action="store_true", help="logarithmic learning rate")
    one = parser.add_argument_group("one regime by its settings, as a model takes them")
    one.add_argument("--schedule", help=f"{', '.join(REGIMES)} (default: constant)")
    one.add_argument("--warmup", type=float, help="part of each cycle on the way up, 0 to 1 (default: 0)")
    one.add_argument("--cycles", type=int, help="number of cycles (default: 1)")
    one.add_argument("--cycle_mult", type=float, help="length of a cycle over the one before (default: 1)")
    one.add_argument("--final_lr", type=float, help="lowest point, as a fraction of the peak (default: by schedule)")
    return parser


def _settings(options: argparse.Namespace) -> Regime:
    """Those that were given, the schedule first; empty if none was."""
    values = {name: getattr(options, name) for name in Regime.__annotations__}
    given = {name: value for name, value in values.items() if value is not None}
    return cast(Regime, {"schedule": "constant", **given} if given else {})


def _preset(name: str) -> Regime:
    if name not in REGIMES:
        raise UsageError(f"there is no regime {name!r}.{did_you_mean(name, REGIMES)} There are {', '.join(REGIMES)}.")
    return REGIMES[name]


def _table(regimes: Mapping[str, Regime]) -> str:
    """Name, settings and paper, a regime a line."""
    rows = [("regime", "model.init_args", "paper")]
    rows += [(name, _in_yaml(settings), PAPERS.get(name, "-")) for name, settings in regimes.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "".join(f"{name:<{widths[0]}}  {settings:<{widths[1]}}  {paper}\n" for name, settings, paper in rows)


def _in_yaml(settings: Mapping[str, object]) -> str:
    """On one line, in braces."""
    text: str = yaml.safe_dump(dict(settings), default_flow_style=True, sort_keys=False, width=math.inf)
    return text.strip()
