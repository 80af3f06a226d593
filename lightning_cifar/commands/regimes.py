"""The command ``lightning-cifar regimes``: draw learning-rate schedules without training and without torch."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import yaml
from numpy.typing import NDArray

from lightning_cifar import plots
from lightning_cifar.artifacts import write_picture
from lightning_cifar.errors import CommandParser, UsageError, did_you_mean
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
"""Sources of the regimes. Constant and exponential schedules have no single source."""

# 5 times the least common multiple of 1 to 8, so that the turning points of all presets are drawn exactly.
_STEPS = 4200
_MAX_CYCLES = 100

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def main(args: Sequence[str]) -> None:
    """Draw regimes into a file, and print their settings; ``args`` follow ``lightning-cifar regimes``."""
    options = _parser().parse_args(args)
    settings = _settings(options)
    if options.lr is not None and not (math.isfinite(options.lr) and options.lr > 0):
        raise UsageError(f"lr (={options.lr}) must be a positive number.")
    if options.name and settings:
        given = list(settings)[-1]
        raise UsageError(f"--name and --{given} are mutually exclusive: name a preset, or give settings.")

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
    done = "replaced" if path.exists() else "wrote"
    write_picture(path, figure)
    sys.stdout.write(f"{report}{done} {path}\n")


def trace(settings: Regime, *, peak: float = 1.0) -> Curve:
    """Sample the learning rate of a regime.

    Returns:
        Progress of training from 0 to 1, and the learning rate at each point, both (4201,).

    Raises:
        UsageError: If the settings are not valid, or cannot be drawn.
    """
    if (cycles := settings.get("cycles") or 1) > _MAX_CYCLES:
        raise UsageError(f"cycles (={cycles}) must be at most {_MAX_CYCLES} to be visible in a picture.")
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
        "regimes", description="Draw learning-rate regimes, by name or by settings, without training."
    )
    add = parser.add_argument
    add("--out", type=expand_user, default=Path(), metavar="PATH", help="file or folder (default: current folder)")
    add("--name", nargs="+", metavar="NAME", help=f"only these: {', '.join(REGIMES)}")
    add("--lr", type=float, help="peak learning rate: draw absolute values instead of fractions of the peak")
    add("--log", action="store_true", help="logarithmic axis of the learning rate")
    one = parser.add_argument_group("one regime by its settings, which are those of a model")
    one.add_argument("--schedule", help=f"{', '.join(REGIMES)} (default: constant)")
    one.add_argument("--warmup", type=float, help="fraction of each cycle for the warm-up, 0 to 1 (default: 0)")
    one.add_argument("--cycles", type=int, help="number of cycles (default: 1)")
    one.add_argument("--cycle_mult", type=float, help="length of each cycle relative to the previous one (default: 1)")
    one.add_argument("--final_lr", type=float, help="lowest point as a fraction of the peak (default: by schedule)")
    return parser


def _settings(options: argparse.Namespace) -> Regime:
    """Return the settings that were given, the schedule first; empty if none was given."""
    values = {name: getattr(options, name) for name in Regime.__annotations__}
    given = {name: value for name, value in values.items() if value is not None}
    return cast(Regime, {"schedule": "constant", **given} if given else {})


def _preset(name: str) -> Regime:
    if name not in REGIMES:
        raise UsageError(f"there is no regime {name!r}.{did_you_mean(name, REGIMES)} There are {', '.join(REGIMES)}.")
    return REGIMES[name]


def _table(regimes: Mapping[str, Regime]) -> str:
    """Return a table of name, settings and paper."""
    rows = [("regime", "model.init_args", "paper")]
    rows += [(name, _in_yaml(settings), PAPERS.get(name, "-")) for name, settings in regimes.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "".join(f"{name:<{widths[0]}}  {settings:<{widths[1]}}  {paper}\n" for name, settings, paper in rows)


def _in_yaml(settings: Mapping[str, object]) -> str:
    """Return the settings in one line, in braces."""
    text: str = yaml.safe_dump(dict(settings), default_flow_style=True, sort_keys=False, width=math.inf)
    return text.strip()
