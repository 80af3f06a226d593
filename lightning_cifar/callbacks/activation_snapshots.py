"""How the activations of chosen layers are distributed, and how that changes while a network, or several, train."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_cifar import artifacts
from lightning_cifar.analysis.activations import LayerSummary, observed
from lightning_cifar.analysis.layer_selection import Place, choose_places
from lightning_cifar.analysis.modes import undisturbed
from lightning_cifar.analysis.prediction_table import are_probabilities
from lightning_cifar.callbacks.probe import first_forward, forward, networks_of, read_samples, step_of
from lightning_cifar.callbacks.snapshots import (
    HEADER,
    Mode,
    Snapshot,
    density_panels,
    log_histograms,
    moment_panels,
    only_mode,
    table_rows,
)


class ActivationSnapshots(Callback):
    """Watch how activations are distributed, on a fixed probe (the first validation samples), while training goes on.

    For one network, or for the members of a module that trains several (those in its ``members``), which are laid over
    each other. At the end, and when training is interrupted, it writes ``<name>.csv`` (mean, standard deviation,
    extremes, zeros, silent units, dropout's kept share), and in ``pictures/`` ``<name>.png`` (the last snapshot),
    ``<name>_ridge.png`` (all), ``<name>_moments.png`` and the animation ``<name>.gif`` and ``.webp``. Loggers that take
    histograms get one for each snapshot. The training goes on as if nobody had looked, bit for bit.

    A step is one of the optimizer; where the module optimizes by itself, it is a batch. The losses in the titles are
    those of the probe in evaluation mode: cross-entropy for class labels, mean squared error for numbers.

    Args:
        layers: names of layers, as in ``model.named_modules()``. For several members they are looked up in each; or
            each member is given its own: ``{plain: network.linear_2, normed: network.norm_2}``. None chooses up to four
            places: a network's batch norms and dropouts, or its activation functions where it has neither; for several
            members the inputs of their activation functions, in order.
        side: ``input``, ``output`` or ``both`` of the layers. None is both for one network, and for several the input
            of an activation function and the output of any other layer.
        every_n_steps: period.
        num_samples: size of the probe. None is 256, or all where there are fewer.
        modes: ``eval``, or ``train``, or both. ``train`` is in the modes in which the network trains: batch norm uses
            the statistics of the probe, dropout drops.
        bins: of each histogram that is kept.
        max_snapshots: beyond so many, every second one is let go and the period doubles, so that memory is bounded.
        histograms: give them to loggers.
        max_frames: of the animation, at most 240; of more snapshots an even selection is shown.
        seconds_per_frame: how long each is shown; the last one stays five times as long.
        name: of the files and pictures.

    Raises:
        ValueError: If a value is out of range. At the start of training: if there is no such layer, none to choose, or
            one that does not run, or the validation set is smaller than the probe.
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
        least = {"every_n_steps": 1, "bins": 8, "max_snapshots": 2, "max_frames": 2}
        given = {"every_n_steps": every_n_steps, "bins": bins, "max_snapshots": max_snapshots, "max_frames": max_frames}
        if num_samples is not None:
            least["num_samples"], given["num_samples"] = 1, num_samples
        for key, value in given.items():
            if value < least[key]:
                raise ValueError(f"{key} (={value}) must be at least {least[key]}")
        if side not in (None, "input", "output", "both"):
            raise ValueError(f"side (={side}) must be input, output or both")
        if not modes or len(set(modes)) < len(modes) or not set(modes) <= {"eval", "train"}:
            raise ValueError(f"modes (={list(modes)}) must be eval, train or both")
        if not 0.02 <= seconds_per_frame <= 60:
            raise ValueError(f"seconds_per_frame (={seconds_per_frame}) must be 0.02 to 60: browsers show no less")
        self.layers, self.side, self.modes = layers, side, tuple(modes)
        self.every_n_steps, self.num_samples, self.bins = every_n_steps, num_samples, bins
        self.max_snapshots, self.histograms = max_snapshots, histograms
        self.max_frames, self.seconds_per_frame, self.name = max_frames, seconds_per_frame, name
        self.snapshots: list[Snapshot] = []
        self._places: list[Place] = []
        self._probe: tuple[Tensor, Tensor | None] | None = None
        self._period = every_n_steps

    @property
    def state_key(self) -> str:
        return self._generate_state_key(name=self.name)

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
        if step == 0:  # a new training, with a callback that may have served before
            self.snapshots, self._period = [], self.every_n_steps
        self._places = choose_places(networks_of(pl_module), self.layers, self.side)
        probe = self._read_probe(trainer)
        first = self._look(trainer, pl_module, step, *probe)
        self._probe = probe
        if self.snapshots and self.snapshots[-1].layers.keys() != first.layers.keys():
            rank_zero_warn("ActivationSnapshots: the checkpoint's snapshots are of other layers, and are left out.")
            self.snapshots = []
        self._keep(trainer, first)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if self._probe is not None:
            step = step_of(trainer, pl_module)
            if step % self._period == 0 and step > self.snapshots[-1].step:  # some batches are no step
                self._keep(trainer, self._look(trainer, pl_module, step, *self._probe))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._probe is None:
            return
        step = step_of(trainer, pl_module)
        if step > self.snapshots[-1].step:
            self._keep(trainer, self._look(trainer, pl_module, step, *self._probe))
        self._write(trainer, pl_module)
        self._probe = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        try:
            if self._probe is not None:
                self._write(trainer, pl_module)
        except OSError as error:  # a full disk may be why we are here; the first exception is the one to show
            rank_zero_warn(f"ActivationSnapshots: {error}")

    def _read_probe(self, trainer: Trainer) -> tuple[Tensor, Tensor | None]:
        inputs, targets = read_samples(trainer, self.num_samples or 256, owner="ActivationSnapshots")
        if self.num_samples is not None and len(inputs) < self.num_samples:
            raise ValueError(f"num_samples (={self.num_samples}) is more than the {len(inputs)} validation samples")
        return inputs, targets

    def _look(
        self, trainer: Trainer, pl_module: LightningModule, step: int, inputs: Tensor, targets: Tensor | None
    ) -> Snapshot:
        """On every rank, since a layer may talk to its like on the others."""
        losses: dict[str, float] = {}
        layers: dict[tuple[Mode, str, str], LayerSummary] = {}
        for network_name, network in networks_of(pl_module).items():
            names = list({tap.layer: 0 for place in self._places for tap in place.taps if tap.network == network_name})
            if not names:
                continue
            for mode in self.modes:
                with undisturbed(network), observed(network, names, self.bins) as found:
                    if mode == "eval":  # otherwise as it trains: what is frozen stays frozen
                        for layer in network.modules():
                            layer.training = False
                    first = self._probe is None
                    with first_forward("ActivationSnapshots", network, inputs) if first else nullcontext():
                        output = forward(trainer, network, inputs)
                if missing := [name for name in names if name not in found]:
                    raise ValueError(
                        f"ActivationSnapshots: layer {missing[0]} of {type(network).__name__} did not run on the "
                        "probe, or passes something other than one tensor: choose another"
                    )
                layers |= {(mode, network_name, name): found[name] for name in names}
                if mode == "eval" or network_name not in losses:
                    losses[network_name] = _loss(output, targets)
        return Snapshot(step, losses, layers)

    def _keep(self, trainer: Trainer, snapshot: Snapshot) -> None:
        """On every rank, so that all agree when the next one is due."""
        if not (self.snapshots and self.snapshots[-1].step >= snapshot.step):  # resumed where one was taken
            self.snapshots.append(snapshot)
        if len(self.snapshots) > self.max_snapshots and snapshot.step % self._period == 0:  # the last one always stays
            self.snapshots = self.snapshots[::2]
            self._period *= 2
        if not (self.histograms and trainer.is_global_zero):
            return
        tags = [
            ("/".join(filter(None, [self.name, *tap, mode if len(self.modes) > 1 else ""])), snapshot.at(mode, tap))
            for mode in self.modes
            for place in self._places
            for tap in place.taps
        ]
        for logger in trainer.loggers:
            for tag, summary in tags:
                log_histograms(getattr(logger, "experiment", None), tag, summary, snapshot.step)

    def _heading(self, snapshot: Snapshot) -> str:
        """Two lines: when, and the losses."""
        count = 0 if self._probe is None else len(self._probe[0])
        losses = [f"{name} {loss:.3g}".strip() for name, loss in snapshot.losses.items() if not math.isnan(loss)]
        text = f"\nloss on {count} validation samples: {', '.join(losses)}" if losses else ""
        return f"activations after {snapshot.step:,} training steps{only_mode(self.modes)}{text}"

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
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
        # Rare values would make a wide axis of many steps wider still.
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
            return math.nan  # labels of something else than these classes
        logits = output.float()
        if are_probabilities(logits, tolerance=1e-3):
            logits = logits.log()
        return float(F.cross_entropy(logits, targets.long()))
    if targets.is_floating_point() and output.shape == targets.shape:
        return float(F.mse_loss(output.float(), targets.float()))
    return math.nan


def _dropouts(networks: Mapping[str, nn.Module]) -> set[tuple[str, str]]:
    """Networks and layers."""
    return {
        (network_name, layer_name)
        for network_name, network in networks.items()
        for layer_name, layer in network.named_modules()
        if isinstance(layer, nn.modules.dropout._DropoutNd)
    }
