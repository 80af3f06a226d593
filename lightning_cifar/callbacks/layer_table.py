"""The network's layers as a table, at the start of training."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_cifar.analysis.layers import LayerRow, list_layers


class LayerTable(Callback):
    """Prints each layer with its output shape and number of parameters.

    Needs a module with an ``example_input_array``; it is silent where there is none.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        example = pl_module.example_input_array
        if trainer.is_global_zero and isinstance(example, Tensor):
            rows = list_layers(pl_module, example.to(pl_module.device))
            total = sum(parameter.numel() for parameter in pl_module.parameters())
            print(format_layers(type(pl_module).__name__, rows, total))


def format_layers(title: str, rows: list[LayerRow], total: int) -> str:
    """The table as plain text."""
    cells = [(row.name, row.kind, " x ".join(map(str, row.shape)), f"{row.num_parameters:,}") for row in rows]
    header = ("layer", "", "output", "parameters")
    widths = [max(len(line[i]) for line in (header, *cells)) for i in range(4)]
    lines = [
        f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}".rstrip()
        for a, b, c, d in (header, *cells)
    ]
    rule = "-" * max(map(len, lines))
    return "\n".join((title, rule, lines[0], rule, *lines[1:], rule, f"{total:,} parameters"))
