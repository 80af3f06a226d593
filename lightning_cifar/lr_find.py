"""The command ``lightning-cifar lr-find``: sweep the learning rate of a configured experiment, train nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl

from lightning_cifar.callbacks import LRRangeFinder
from lightning_cifar.errors import CommandParser, UsageError
from lightning_cifar.runs import RunCLI


class LRFindCLI(RunCLI):
    """Configures like ``fit``, sweeps, and stops before the first epoch."""

    finder: LRRangeFinder
    folder_option = "--out"

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        self.run_dir = self._choose_run_dir("lr-find")
        config = dict(self._get(self.config_init, "trainer"))
        config |= {
            "callbacks": [self.finder],
            "logger": False,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "limit_val_batches": 0,
            "max_epochs": 0,
            "max_steps": -1,
            "default_root_dir": str(self.run_dir),
        }
        return pl.Trainer(**config)

    def after_fit(self) -> None:
        found = self.finder.suggestion
        if found is None or not self.trainer.is_global_zero:
            return
        sweeps = self.finder.num_sweeps
        value = f"{found.value:.2g}"
        print(f"\nlearning rate: {value}   ({found.low:.2g} to {found.high:.2g} over {sweeps} sweeps)")
        for name, lr in found.rules.items():
            print(f"  {name:<16} {lr:.2g}")
        if self.finder.own_lr is not None:
            print(f"  {'configured':<16} {self.finder.own_lr:.2g}")
        print(f"\nin the configuration:   model: {{init_args: {{lr: {value}}}}}")
        print(f"on the command line:    --model.lr {value}")
        print(f"\npictures and table:     {self.run_dir} (lr_range.html to look around)")


def main(words: Sequence[str]) -> None:
    """Run the command: our options are taken out, the rest is a ``fit`` command line.

    Raises:
        UsageError: If an option or a value is wrong.
    """
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
    options, rest = parser.parse_known_args(list(words))
    for word in rest:
        if word.split("=")[0] in ("--ckpt_path", "--trainer.fast_dev_run"):
            raise UsageError(f"lr-find sweeps from fresh weights: leave {word.split('=')[0]} out.")
    finder = LRRangeFinder(
        options.min_lr,
        options.max_lr,
        options.num_steps,
        options.seeds,
        options.spacing,
        zoom=options.zoom,
    )
    out = [] if options.out is None else ["--run_dir", options.out]
    LRFindCLI.finder = finder
    LRFindCLI.start(["fit", *rest, *out])
