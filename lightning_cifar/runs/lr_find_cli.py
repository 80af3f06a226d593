"""The run of ``lightning-cifar lr-find``: a ``fit`` that sweeps the learning rate without training."""

from __future__ import annotations

import sys
from typing import Any

import lightning.pytorch as pl

from lightning_cifar.callbacks import LRRangeFinder
from lightning_cifar.callbacks.lr_range_finder import verdict
from lightning_cifar.runs.cli import RunCLI


class LRFindCLI(RunCLI):
    """Configures a run like ``fit``, sweeps with the callback ``finder``, and stops before the first epoch."""

    def __init__(self, *run: Any, finder: LRRangeFinder) -> None:
        self.finder = finder
        super().__init__(*run)

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
        value = f"{found.value:.2g}"
        over = f"{self.finder.num_sweeps} sweeps" if not found.tested else "sweeps and short trainings"
        spread = f"({found.low:.2g} to {found.high:.2g} over {over})"
        lines = ["", f"learning rate: {value}   {spread}"]
        lines += [f"  {self.finder.doubt}"] if self.finder.doubt else []
        lines += [f"  {verdict(found)}"] if found.tested else []
        lines += [f"  {name:<16} {lr:.2g}" for name, lr in found.rules.items()]
        if self.finder.own_lr is not None:
            lines.append(f"  {'configured':<16} {self.finder.own_lr:.2g}")
        lines += ["", f"in the configuration:   model: {{init_args: {{lr: {value}}}}}"]
        lines += [f"on the command line:    --model.lr {value}", ""]
        lines += [f"pictures and table:     {self.run_dir} (lr_range.html is interactive)", ""]
        sys.stdout.write("\n".join(lines))
