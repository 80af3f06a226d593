"""Distributions of the activations of layers during the training of one or several networks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, Literal

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cifar import artifacts
from lightning_cifar.analysis.activations import LayerSummary, summarise
from lightning_cifar.analysis.layer_selection import SelectedLayers, select_layers
from lightning_cifar.analysis.layers import recorded
from lightning_cifar.analysis.modes import undisturbed
from lightning_cifar.analysis.prediction_table import are_probabilities
from lightning_cifar.callbacks.base import SnapshotCallback, check_minimum
from lightning_cifar.callbacks.probe import first_forward, forward, networks_of, read_samples
from lightning_cifar.callbacks.progress import step_of
from lightning_cifar.callbacks.snapshots import (
    HEADER,
    Mode,
    Snapshot,
    density_panels,
    log_summary,
    moment_panels,
    only_mode,
    table_rows,
)


class ActivationSnapshots(SnapshotCallback):
    """Record the distributions of activations on a fixed probe (the first validation samples) during training.

    For a module that trains several networks (``members``), the networks are compared in the same plots. At the end,
    and when training is interrupted, the callback writes ``<name>.csv`` (mean, standard deviation, extremes, zeros,
    silent units, kept share of dropout), and in ``pictures/`` ``<name>.png`` (the last snapshot), ``<name>_ridge.png``
    (all), ``<name>_moments.png`` and the animations ``<name>.gif`` and ``.webp``. TensorBoard
    receives a histogram for each snapshot. The training does not change, bit for bit.

    A step is an optimizer step, or a batch with manual optimization. The losses in the titles are those of the probe in
    evaluation mode: cross-entropy for class labels, mean squared error for numbers.

    Args:
        layers: names of layers in ``model.named_modules()``, of all members or by member:
            ``{plain: network.linear_2, normed: network.norm_2}``. None chooses up to four places: the batch norms and
            dropouts of a network, or its activation functions if it has neither; for several members the inputs of
            their activation functions, in order.
        side: ``input``, ``output`` or ``both`` of the layers. None is both for one network; for several, the input of
            an activation function and the output of any other layer.
        every_n_steps: period of the snapshots.
        num_samples: size of the probe. None is 256, or all if the validation set is smaller.
        modes: ``eval``, ``train``, or both. In ``train``, the layers are in the modes of the training: batch norm uses
            the statistics of the probe, dropout is active.
        bins: number of bins of each stored histogram.
        max_snapshots: above this number, every second snapshot is removed and the period doubles, which bounds memory.
        histograms: whether to log histograms.
        max_frames: maximum number of frames of the animation, at most 240; evenly selected.
        seconds_per_frame: duration of a frame; the last one is shown five times as long.
        name: name of the files and pictures.

    Raises:
        ValueError: If a value is out of range; when training starts, if a layer does not exist or does not run, no
            layer can be chosen, or the validation set is smaller than the probe.

    Example:
        >>> trainer = Trainer(callbacks=[ActivationSnapshots(every_n_steps=20, modes=["eval", "train"])])
    """

    def __init__(
        self,
        layers: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
        side: Literal["input", "output", "both"] | None = None,
        every_n_steps: int = 50,
        num_samples: int | None = None,
        modes: Sequence[Mode] = ("eval",),
        bins: int = 256,
        max_snapshots: int = 200,
        histograms: bool = True,
        max_frames: int = 100,
        seconds_per_frame: float = 0.2,
        name: str = "activations",
    ) -> None:
        super().__init__(every_n_steps, max_snapshots, max_frames, seconds_per_frame, name)
        check_minimum(num_samples=num_samples)
        check_minimum(8, bins=bins)
        if side not in (None, "input", "output", "both"):
            raise ValueError(f"side (={side}) must be input, output or both")
        if not modes or len(set(modes)) < len(modes) or not set(modes) <= {"eval", "train"}:
            raise ValueError(f"modes (={list(modes)}) must be eval, train or both")
        self.layers, self.side, self.modes = layers, side, tuple(modes)
        self.num_samples, self.bins, self.histograms = num_samples, bins, histograms
        self.snapshots: list[Snapshot] = []
        self._places: list[SelectedLayers] = []
        self._probe: tuple[Tensor, Tensor | None] | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"period": self._period, "snapshots": [snapshot.pack() for snapshot in self.snapshots]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._period = state_dict["period"]
        self.snapshots = [Snapshot.unpack(packed) for packed in state_dict["snapshots"]]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._probe = None
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        step = step_of(trainer, pl_module)
        if step == 0:  # a new training, with a callback that may have been used before
            self.snapshots, self._period = [], self.every_n_steps
        self._places = select_layers(networks_of(pl_module), self.layers, self.side)
        probe = self._read_probe(trainer)
        first = self._take(trainer, pl_module, step, *probe)
        self._probe = probe
        if self.snapshots and self.snapshots[-1].layers.keys() != first.layers.keys():
            rank_zero_warn("ActivationSnapshots: the checkpoint's snapshots are of other layers: they are not used.")
            self.snapshots = []
        self._keep(trainer, first)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if self._probe is not None:
            step = step_of(trainer, pl_module)
            if step % self._period == 0 and step > self.snapshots[-1].step:  # not every batch is a step
                self._keep(trainer, self._take(trainer, pl_module, step, *self._probe))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._probe is None:
            return
        step = step_of(trainer, pl_module)
        if step > self.snapshots[-1].step:
            self._keep(trainer, self._take(trainer, pl_module, step, *self._probe))
        self._write(trainer, pl_module)
        self._probe = None

    def _read_probe(self, trainer: Trainer) -> tuple[Tensor, Tensor | None]:
        inputs, targets = read_samples(trainer, self.num_samples or 256, owner="ActivationSnapshots")
        if self.num_samples is not None and len(inputs) < self.num_samples:
            raise ValueError(f"num_samples (={self.num_samples}) must be at most {len(inputs)}, the validation samples")
        return inputs, targets

    def _take(
        self, trainer: Trainer, pl_module: LightningModule, step: int, inputs: Tensor, targets: Tensor | None
    ) -> Snapshot:
        """Take a snapshot. Must be called on all ranks, since layers may communicate."""
        losses: dict[str, float] = {}
        layers: dict[tuple[Mode, str, str], LayerSummary] = {}
        read = partial(summarise, bins=self.bins)
        for network_name, network in networks_of(pl_module).items():
            names = list({tap.layer: 0 for place in self._places for tap in place.taps if tap.network == network_name})
            if not names:
                continue
            for mode in self.modes:
                with undisturbed(network), recorded(network, names, read) as found:
                    if mode == "eval":  # train keeps the modes of the training, for example of frozen layers
                        for layer in network.modules():
                            layer.training = False
                    with first_forward("ActivationSnapshots", network, inputs):
                        output = forward(trainer, network, inputs)
                if missing := [name for name in names if name not in found]:
                    raise ValueError(
                        f"ActivationSnapshots: layer {missing[0]} of {type(network).__name__} does not run on the "
                        "probe, or its input or output is not one tensor: choose another"
                    )
                layers |= {(mode, network_name, name): LayerSummary(*found[name]) for name in names}
                if mode == "eval" or network_name not in losses:
                    losses[network_name] = _loss(output, targets)
        return Snapshot(step, losses, layers)

    def _keep(self, trainer: Trainer, snapshot: Snapshot) -> None:
        """Keep and log a snapshot. Must be called on all ranks, so that they agree on the next step."""
        if not (self.snapshots and self.snapshots[-1].step >= snapshot.step):  # false if resumed at a snapshot
            self._append(snapshot)
        taps = [tap for place in self._places for tap in place.taps] if self.histograms else []
        for mode, tap in product(self.modes, taps):
            tag = "/".join(filter(None, [self.name, *tap, mode if len(self.modes) > 1 else ""]))
            log_summary(trainer, tag, snapshot.at(mode, tap), snapshot.step)

    def _heading(self, snapshot: Snapshot) -> str:
        """Return the step and, on a second line, the losses."""
        count = 0 if self._probe is None else len(self._probe[0])
        losses = [f"{name} {loss:.3g}".strip() for name, loss in snapshot.losses.items() if not math.isnan(loss)]
        text = f"\nloss on {count} validation samples: {', '.join(losses)}" if losses else ""
        return f"activations after {snapshot.step:,} training steps{only_mode(self.modes)}{text}"

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._probe is None or not trainer.is_global_zero:
            return
        from lightning_cifar import plots

        snapshots, places, modes = self.snapshots, self._places, self.modes
        dropouts = _dropouts(networks_of(pl_module))
        artifacts.save_table(trainer, self.name, HEADER, table_rows(snapshots, dropouts))
        steps = [snapshot.step for snapshot in snapshots]
        over = f"activations over {steps[-1]:,} training steps{only_mode(modes)}"
        columns = min(len(places), 4)
        ridge_columns = min(sum(len(place.taps) for place in places), 4)
        last = density_panels(snapshots[-1:], places, modes, share=0.0005)
        # A larger share than above, since rare values of many steps would make the axis too wide.
        history = density_panels(snapshots, places, modes, share=0.003)
        figures = {
            "": plots.draw_densities(last, title=self._heading(snapshots[-1]), columns=columns),
            "_ridge": plots.draw_ridges(history, steps, title=over, columns=ridge_columns),
            "_moments": plots.draw_moments(moment_panels(snapshots, places, modes, dropouts), steps, title=over),
        }
        for suffix, figure in figures.items():
            artifacts.save_figure(trainer, f"{self.name}{suffix}", figure)

        def draw(shown: Sequence[Snapshot]) -> Iterator[NDArray[np.uint8]]:
            titles = [self._heading(snapshot) for snapshot in shown]
            panels = density_panels(shown, places, modes, share=0.003)
            return plots.to_frames(plots.animate_densities(panels, titles=titles, columns=columns))

        files = plots.encode_animation(snapshots, draw, self.seconds_per_frame, last=5, most=self.max_frames)
        artifacts.save_animation(trainer, self.name, files)


def _loss(output: object, targets: Tensor | None) -> float:
    if not isinstance(output, Tensor) or targets is None:
        return math.nan
    if targets.ndim == 1 and not targets.is_floating_point() and output.ndim == 2:
        if len(output) != len(targets) or not 0 <= int(targets.min()) <= int(targets.max()) < output.shape[1]:
            return math.nan  # not labels of these classes
        logits = output.float()
        if are_probabilities(logits, tolerance=1e-3):
            logits = logits.log()
        return float(F.cross_entropy(logits, targets.long()))
    if targets.is_floating_point() and output.shape == targets.shape:
        return float(F.mse_loss(output.float(), targets.float()))
    return math.nan


def _dropouts(networks: Mapping[str, nn.Module]) -> set[tuple[str, str]]:
    """Return (network, layer) of all dropout layers."""
    return {
        (network_name, layer_name)
        for network_name, network in networks.items()
        for layer_name, layer in network.named_modules()
        if isinstance(layer, nn.modules.dropout._DropoutNd)
    }
