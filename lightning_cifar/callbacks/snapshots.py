"""Snapshots of activations, and the table, plot panels and logged histograms made from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from lightning.pytorch import Trainer

from lightning_cifar.analysis.activations import Histogram, LayerSummary, Summary, density, merged, shared_axis
from lightning_cifar.analysis.layer_selection import SelectedLayers, Tap
from lightning_cifar.artifacts import log_histogram

if TYPE_CHECKING:
    from lightning_cifar.plots import DensityPanel, MomentPanel

Mode: TypeAlias = Literal["eval", "train"]

MODE_WORDS: dict[Mode, str] = {"eval": "evaluation mode", "train": "training mode"}
HEADER = (
    *("step", "mode", "network", "layer", "side", "values", "mean", "std", "min", "max"),
    *("zero_share", "silent_share", "kept_share", "not_finite", "probe_loss"),
)
# Bins of a logged histogram: each takes TensorBoard's writer a microsecond, and its page shows thirty.
_MOST_LOGGED = 60


class Snapshot(NamedTuple):
    """Activations after a training step."""

    step: int
    losses: dict[str, float]
    """Loss of each network on the probe; NaN if it cannot be computed."""
    layers: dict[tuple[Mode, str, str], LayerSummary]
    """Input and output of each layer, by mode, network and layer."""

    def at(self, mode: Mode, tap: Tap) -> Summary:
        layer = self.layers[mode, tap.network, tap.layer]
        return layer.before if tap.side == "input" else layer.after

    def pack(self) -> dict[str, Any]:
        """Convert to plain values and tensors, which a checkpoint can contain."""
        layers = [[*key, _pack(found.before), _pack(found.after)] for key, found in self.layers.items()]
        return {"step": self.step, "losses": dict(self.losses), "layers": layers}

    @classmethod
    def unpack(cls, packed: dict[str, Any]) -> Snapshot:
        layers = {
            (mode, network, layer): LayerSummary(_unpack(before), _unpack(after))
            for mode, network, layer, before, after in packed["layers"]
        }
        return cls(packed["step"], dict(packed["losses"]), layers)


def _pack(summary: Summary) -> list[Any]:
    counts, *others = summary.histogram
    return [list(summary[:-1]), torch.from_numpy(counts.astype(np.int32)), list(others)]


def _unpack(packed: list[Any]) -> Summary:
    numbers, counts, others = packed
    histogram = Histogram(counts.numpy().astype(np.int64), *others)
    return Summary._make([*numbers, histogram])


def table_rows(snapshots: Sequence[Snapshot], dropouts: set[tuple[str, str]]) -> Iterator[list[object]]:
    """Return the rows of a table with the columns :data:`HEADER`; missing values are empty.

    Args:
        snapshots: in order.
        dropouts: (network, layer) of the dropout layers, which have a share of kept values.
    """
    for snapshot in snapshots:
        for (mode, network, layer), found in snapshot.layers.items():
            for side, summary in (("input", found.before), ("output", found.after)):
                kept = found.kept if side == "output" and (network, layer) in dropouts else math.nan
                loss = snapshot.losses.get(network, math.nan)
                numbers = [*summary[1:7], kept, summary.broken, loss]
                texts = ["" if math.isnan(number) else f"{number:.7g}" for number in numbers]
                yield [snapshot.step, mode, network, layer, side, summary.num_values, *texts]


def only_mode(modes: Sequence[Mode]) -> str:
    """Return the mode for a heading if there is only one; otherwise the panels name their modes."""
    return f", {MODE_WORDS[modes[0]]}" if len(modes) == 1 else ""


def density_panels(
    snapshots: Sequence[Snapshot], places: Sequence[SelectedLayers], modes: Sequence[Mode], share: float
) -> list[DensityPanel]:
    """Make a panel for each mode and place, with one axis for all snapshots.

    Args:
        snapshots: in order.
        places: layers and sides to show.
        modes: modes to show.
        share: share of the values of each snapshot that may lie beyond either end of the axis.
    """
    from lightning_cifar.plots import DensityCurve, DensityPanel

    panels = []
    for mode in modes:
        for place in places:
            histories = [[snapshot.at(mode, tap).histogram for snapshot in snapshots] for tap in place.taps]
            axis = shared_axis([histogram for history in histories for histogram in history], share=share)
            curves = []
            for label, history in zip(place.labels, histories, strict=True):
                found = [density(histogram, axis) for histogram in history]
                notes = [_note(each.zeros, each.outside) for each in found]
                most = max(each.outside for each in found)
                about_all = f"up to {100 * most:.2g} % outside" if most >= 0.001 else ""
                curves.append(DensityCurve(label, np.stack([each.heights for each in found]), notes, about_all))
            title = place.title if len(modes) == 1 else f"{place.title}, {MODE_WORDS[mode]}"
            panels.append(DensityPanel(title, axis.edges, curves))
    return panels


def moment_panels(
    snapshots: Sequence[Snapshot],
    places: Sequence[SelectedLayers],
    modes: Sequence[Mode],
    dropouts: set[tuple[str, str]],
) -> list[MomentPanel]:
    """Make a panel for each place, with all modes."""
    from lightning_cifar.plots import MomentCurve, MomentPanel

    panels = []
    for place in places:
        curves = []
        last_of = {(tap.network, tap.layer): index for index, tap in enumerate(place.taps)}
        for mode in modes:
            for index, (tap, label) in enumerate(zip(place.taps, place.labels, strict=True)):
                layer = (tap.network, tap.layer)
                kept = None
                if layer in dropouts and last_of[layer] == index:
                    kept = [snapshot.layers[mode, tap.network, tap.layer].kept for snapshot in snapshots]
                found = [snapshot.at(mode, tap) for snapshot in snapshots]
                curves.append(
                    MomentCurve(
                        label if len(modes) == 1 else f"{label}, {MODE_WORDS[mode]}",
                        [summary.mean for summary in found],
                        [summary.std for summary in found],
                        [summary.silent for summary in found],
                        kept,
                        dashed=mode != modes[0],
                        color=index,
                    )
                )
        panels.append(MomentPanel(place.title, curves))
    return panels


def log_summary(trainer: Trainer, tag: str, summary: Summary, step: int) -> None:
    """Log the histogram of a summary, with its zeros, with TensorBoard."""
    histogram = merged(summary.histogram, _MOST_LOGGED)
    counts = histogram.counts.copy()
    if 0 <= -histogram.first < len(counts):
        counts[-histogram.first] += histogram.zeros
    if counts.any():
        log_histogram(trainer, tag, counts, histogram.edges, ends=(summary.low, summary.high), step=step)


def _note(zeros: float, outside: float) -> str:
    """Describe the values that a density does not contain."""
    parts = [f"without the {100 * zeros:.3g} % exact zeros"] if zeros >= 0.001 else []
    return ", ".join([*parts, f"{100 * outside:.2g} % outside"] if outside >= 0.001 else parts)
