"""Fitted curves of regression networks during training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_cifar import artifacts
from lightning_cifar.analysis.modes import evaluation, undisturbed
from lightning_cifar.callbacks.base import SnapshotCallback, check_minimum
from lightning_cifar.callbacks.probe import first_forward, first_two, forward, networks_of, read_samples
from lightning_cifar.callbacks.progress import step_of

if TYPE_CHECKING:
    from lightning_cifar.plots import FitPicture

Array = NDArray[np.float32]

MOST_POINTS = 2000
"""Maximum number of training points and of validation points; the error is computed over the latter."""
_SHEET = 6


class Fit(NamedTuple):
    """Outputs of one network after a training step."""

    values: Array
    """(G,): outputs on the grid, in evaluation mode."""
    error: float
    """Mean squared error over the validation points, in evaluation mode."""
    band: Array | None
    """(2, G): mean and standard deviation of the curves with dropout; None without dropout."""


class FitSnapshot(NamedTuple):
    """The fit of each network after a training step."""

    step: int
    fits: dict[str, Fit]


class FitCurves(SnapshotCallback):
    """Draw the fitted curve with the training and validation points and the validation error during training.

    The network maps x (N, 1) to y (N, 1); several networks (a module's ``members``) are drawn in one picture. At the
    end, and when training is interrupted, the callback writes ``<name>.csv`` (step, network, mean squared error on
    the validation points), and in ``pictures/`` ``<name>.png`` (the last curves), ``<name>_moments.png`` (up to six
    steps from the first to the last) and the animations ``<name>.gif`` and ``.webp`` with fixed axes. The training does
    not change, bit for bit.

    Args:
        every_n_steps: period in optimizer steps, or in batches with manual optimization.
        mc_samples: draw a band for each network with dropout: mean and two standard deviations of this number of
            outputs with active dropout and all other layers in evaluation mode (Gal & Ghahramani, arXiv:1506.02142,
            without their term for the noise of the data). All pictures use the same masks. 0 disables it.
        num_places: number of points on the x axis.
        max_snapshots: above this number, every second snapshot is removed and the period doubles, which bounds memory.
        max_frames: maximum number of frames of the animation, at most 240; evenly selected.
        seconds_per_frame: duration of a frame; the last one is shown five times as long.
        name: name of the files and pictures.

    Raises:
        ValueError: If a value is out of range; when training starts, if the batches are not x (N, 1) and y (N, 1), the
            network's output is not (N, 1), or ``mc_samples`` is given and no network has dropout.

    Example:
        >>> trainer = Trainer(callbacks=[FitCurves(every_n_steps=10, mc_samples=50)])
    """

    def __init__(
        self,
        every_n_steps: int = 50,
        mc_samples: int = 0,
        num_places: int = 200,
        max_snapshots: int = 200,
        max_frames: int = 100,
        seconds_per_frame: float = 0.2,
        name: str = "fit_curves",
    ) -> None:
        super().__init__(every_n_steps, max_snapshots, max_frames, seconds_per_frame, name)
        check_minimum(2, num_places=num_places)
        if mc_samples < 0 or mc_samples == 1:
            raise ValueError(f"mc_samples (={mc_samples}) must be 0 for none, or at least 2")
        self.mc_samples, self.num_places = mc_samples, num_places
        self.snapshots: list[FitSnapshot] = []
        self._grid: Tensor | None = None
        self._validation: tuple[Tensor, Tensor] | None = None
        self._train: list[Tensor] = []
        """Batches (N, 2) of x and y."""

    def state_dict(self) -> dict[str, Any]:
        fits = [[snapshot.step, _pack(snapshot.fits)] for snapshot in self.snapshots]
        return {"period": self._period, "grid": self._grid, "snapshots": fits}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._period, self._grid = state_dict["period"], state_dict["grid"]
        self.snapshots = [FitSnapshot(step, _unpack(packed)) for step, packed in state_dict["snapshots"]]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation, self._train = None, []
        if not artifacts.writes(trainer):
            return
        if step_of(trainer, pl_module) == 0:  # a new training, with a callback that may have been used before
            self.snapshots, self._period, self._grid = [], self.every_n_steps, None
        if self.mc_samples and not any(_dropouts(network) for network in networks_of(pl_module).values()):
            raise ValueError(f"mc_samples (={self.mc_samples}) needs dropout, but no network has dropout: set it to 0")
        self._validation = _check_points(*read_samples(trainer, MOST_POINTS, owner="FitCurves"))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        # Use the batches of the training: an additional iteration over the loader might draw random numbers.
        if self._validation is None or sum(map(len, self._train)) >= MOST_POINTS:
            return
        first = not self._train
        self._train.append(torch.cat(_check_points(*first_two(batch)), 1).detach().clone())
        if first:
            if self._grid is None:
                self._grid = self._choose_grid()
            self._snap(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if self._validation is not None and step_of(trainer, pl_module) % self._period == 0:
            self._snap(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._validation is not None and self._train:
            self._snap(trainer, pl_module)
            self._write(trainer, pl_module)
        self._validation = None

    def _choose_grid(self) -> Tensor:
        """Return x (G, 1) from the lowest point to the highest, with a margin of a twentieth of the range."""
        assert self._validation is not None
        x = torch.cat([self._validation[0].flatten(), self._train[0][:, 0]]).double()
        low, high = float(x.min()), float(x.max())
        room = (high - low) / 20 or 1.0
        return torch.linspace(low - room, high + room, self.num_places)[:, None]

    def _snap(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = step_of(trainer, pl_module)
        if self.snapshots and self.snapshots[-1].step >= step:
            return  # a batch without a step, or resumed at a snapshot
        fits = {name: self._evaluate(trainer, network) for name, network in networks_of(pl_module).items()}
        if self.snapshots and self.snapshots[-1].fits.keys() != fits.keys():
            rank_zero_warn("FitCurves: the checkpoint's curves are of other networks: they are not used.")
            self.snapshots = []
        self._append(FitSnapshot(step, fits))

    def _evaluate(self, trainer: Trainer, network: nn.Module) -> Fit:
        assert self._validation is not None
        assert self._grid is not None
        x, y = self._validation
        grid = self._grid.to(x)
        band = None
        with undisturbed(network), evaluation(network):
            with first_forward("FitCurves", network, x):
                output = forward(trainer, network, torch.cat([grid, x]))
            if not isinstance(output, Tensor) or output.shape != (len(grid) + len(x), 1):
                shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise ValueError(
                    f"FitCurves needs a network that maps (N, 1) to (N, 1): {type(network).__name__} maps "
                    f"{(len(grid) + len(x), 1)} to {shape}"
                )
            error = float((output[len(grid) :].float() - y.float()).square().mean())
            dropouts = _dropouts(network) if self.mc_samples else []
            if dropouts:
                for layer in dropouts:
                    layer.training = True
                _seed(grid.device)
                curves = forward(trainer, network, grid.repeat(self.mc_samples, 1))
                assert isinstance(curves, Tensor)
                curves = curves.float().reshape(self.mc_samples, len(grid))
                band = torch.stack([curves.mean(0), curves.std(0)]).cpu().numpy()
        return Fit(output[: len(grid), 0].float().cpu().numpy(), error, band)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._validation is None or not self.snapshots:
            return
        from lightning_cifar import plots

        rows = (
            [snapshot.step, name, f"{fit.error:.10g}"]
            for snapshot in self.snapshots
            for name, fit in snapshot.fits.items()
        )
        artifacts.save_table(trainer, self.name, ["step", "network", "val_mse"], rows)
        last = self.snapshots[-1]
        artifacts.save_figure(trainer, self.name, plots.draw_fit(self._picture([last]), title=_heading(last)))
        moments = _by_ratio(self.snapshots, _SHEET)
        figure = plots.draw_fit_sheet(self._picture(moments), titles=[_heading(moment, "\n") for moment in moments])
        artifacts.save_figure(trainer, f"{self.name}_moments", figure)

        def draw(shown: Sequence[FitSnapshot]) -> Iterator[NDArray[np.uint8]]:
            titles = [_heading(snapshot) for snapshot in shown]
            return plots.to_frames(plots.animate_fits(self._picture(shown), titles=titles))

        files = plots.encode_animation(self.snapshots, draw, self.seconds_per_frame, last=5, most=self.max_frames)
        artifacts.save_animation(trainer, self.name, files)

    def _picture(self, snapshots: Sequence[FitSnapshot]) -> FitPicture:
        from lightning_cifar.plots import FitCurve, FitPicture, FitPoints

        assert self._grid is not None
        assert self._validation is not None
        curves = []
        for name in snapshots[0].fits:
            fits = [snapshot.fits[name] for snapshot in snapshots]
            nothing = np.full((2, self._grid.numel()), np.nan)  # a run resumed with other settings
            bands = [nothing if fit.band is None else fit.band for fit in fits]
            has_band = any(fit.band is not None for fit in fits)
            edges = [np.stack([band[0] + sign * band[1] for band in bands]) for sign in (-2, 2) if has_band]
            curves.append(FitCurve(name or "fit", np.stack([fit.values for fit in fits]), *edges))
        train = torch.unique(torch.cat(self._train).float(), dim=0).cpu().numpy().T if self._train else np.zeros((2, 0))
        held_out = [values.float().flatten().cpu().numpy() for values in self._validation]
        points = [FitPoints("training points", *train), FitPoints("validation points", *held_out)]
        band = f"mean ± 2 sd over {self.mc_samples} dropout masks"
        return FitPicture(self._grid.flatten().cpu().numpy(), curves, points, band)


def _check_points(x: object, y: object) -> tuple[Tensor, Tensor]:
    """Return x and y (N, 1)."""
    shapes = [tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__ for value in (x, y)]
    if isinstance(x, Tensor) and isinstance(y, Tensor) and x.ndim == 2 and x.shape[1] == 1 and x.shape == y.shape:
        return x, y
    raise ValueError(f"FitCurves needs batches of x (N, 1) and y (N, 1), not {shapes[0]} and {shapes[1]}")


def _dropouts(network: nn.Module) -> list[nn.Module]:
    return [layer for layer in network.modules() if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p]


def _seed(device: torch.device) -> None:
    """Seed only the device's generator; ``torch.manual_seed`` also seeds those of other devices."""
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(0)
    else:
        torch.default_generator.manual_seed(0)


def _heading(snapshot: FitSnapshot, separator: str = ", ") -> str:
    errors = ", ".join(f"{name} {fit.error:.4f}".strip() for name, fit in snapshot.fits.items())
    return f"after {snapshot.step:,} steps{separator}validation error (MSE): {errors}"


def _by_ratio(snapshots: Sequence[FitSnapshot], most: int) -> list[FitSnapshot]:
    """Select snapshots with the first and the last one, and more of the early ones."""
    count = len(snapshots)
    places = np.r_[0, np.geomspace(1, count - 1, most - 1)] if count > most else np.arange(count)
    return [snapshots[index] for index in np.unique(places.round().astype(int))]


def _pack(fits: dict[str, Fit]) -> dict[str, Any]:
    """Convert to plain values and tensors, which a checkpoint can contain."""
    return {
        name: [torch.from_numpy(values), error, None if band is None else torch.from_numpy(band)]
        for name, (values, error, band) in fits.items()
    }


def _unpack(packed: dict[str, Any]) -> dict[str, Fit]:
    return {
        name: Fit(values.numpy(), error, None if band is None else band.numpy())
        for name, (values, error, band) in packed.items()
    }
