"""A table of the network's layers at the start of training."""

from __future__ import annotations

from collections.abc import Mapping

from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.core.module import _jit_is_scripting
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_cifar.analysis.layers import Example, is_compiled, list_layers
from lightning_cifar.analysis.modes import evaluation
from lightning_cifar.artifacts import log_graph, log_table
from lightning_cifar.callbacks.probe import first_forward
from lightning_cifar.callbacks.random_states import random_state_restored


class LayerTable(Callback):
    """Print each layer with its output shape and number of parameters when fit starts.

    TensorBoard receives the table as text, and the graph of the network if torch can trace it.

    The module needs Lightning's ``example_input_array``: a tensor, a tuple of the arguments of ``forward``, or a dict
    of them by name. Otherwise a warning is shown.

    Raises:
        ValueError: When fit starts, if ``forward`` does not accept the ``example_input_array``.

    Example:
        >>> trainer = Trainer(callbacks=[LayerTable()])
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        example = pl_module.example_input_array
        name = type(pl_module).__name__
        if not isinstance(example, Tensor | tuple | Mapping):
            rank_zero_warn(
                f"LayerTable is disabled: {name} has no example_input_array. Set it to one input, such as "
                "torch.zeros(1, 3, 32, 32)."
            )
        elif trainer.is_global_zero:
            with first_forward("LayerTable", pl_module, "its example_input_array"):
                rows = list_layers(pl_module, move_data_to_device(example, pl_module.device))
            parameters = list(pl_module.parameters())
            total = sum(each.numel() for each in parameters)
            trainable = sum(each.numel() for each in parameters if each.requires_grad)
            cells = [(row.name, row.kind, " x ".join(map(str, row.shape)), f"{row.num_parameters:,}") for row in rows]
            print(format_layers(name, cells, total, trainable))
            header, last = ("layer", "kind", "output", "parameters"), ("all", "", "", f"{total:,}")
            log_table(trainer, "network/layers", header, [*cells, last], once=True)
            self._log_graph(trainer, pl_module, example)

    def _log_graph(self, trainer: Trainer, pl_module: LightningModule, example: Example) -> None:
        if isinstance(example, Mapping) or is_compiled(pl_module):
            return
        inputs = move_data_to_device(example, pl_module.device)
        with random_state_restored(), evaluation(pl_module), _jit_is_scripting():
            log_graph(trainer, pl_module, inputs)


def format_layers(title: str, cells: list[tuple[str, str, str, str]], total: int, trainable: int) -> str:
    """Format the table as plain text."""
    header = ("layer", "", "output", "parameters")
    widths = [max(len(line[i]) for line in (header, *cells)) for i in range(4)]
    lines = [
        f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}".rstrip()
        for a, b, c, d in (header, *cells)
    ]
    rule = "-" * max(map(len, lines))
    return "\n".join((title, rule, lines[0], rule, *lines[1:], rule, f"{total:,} parameters, {trainable:,} trainable"))
