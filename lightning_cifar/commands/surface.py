"""The command ``lightning-cifar surface``: loss on a plane through the weights of runs, or on the line between two."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_cifar.commands.options import positive_int
from lightning_cifar.errors import CommandParser, UsageError
from lightning_cifar.files.atomic import write_atomically
from lightning_cifar.files.output import choose_output
from lightning_cifar.files.paths import expand_user
from lightning_cifar.files.tables import to_csv

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_cifar.analysis.loss_surface import Batches, Plane
    from lightning_cifar.callbacks.weight_trajectory import Trajectory
    from lightning_cifar.plots import SurfacePath
    from lightning_cifar.runs.build import TrainedRun
    from lightning_cifar.studies.jobs import Job

_MARGIN = 0.2  # around the paths, as a fraction of their extent


class _Data(NamedTuple):
    """Batches of the loss, and those of the statistics of batch norms; None keeps the statistics."""

    batches: Batches
    statistics: Batches | None


def main(args: Sequence[str]) -> None:
    """Run the command; ``args`` follow ``lightning-cifar surface``. Other options are those of ``fit``.

    Raises:
        UsageError: If an option is wrong, a folder is not a run, or the runs do not fit together.
    """
    options, rest = _parser().parse_known_args(args)
    runs = options.between or options.runs
    if bool(options.between) == bool(options.runs):
        raise UsageError(
            "surface needs the folder of a run, or --between RUN_A RUN_B: lightning-cifar surface runs/..."
        )
    if options.points < 3:
        raise UsageError(f"--points (={options.points}) must be at least 3.")
    if options.directions == "random" and len(runs) > 1 and not options.between:
        raise UsageError("--directions random shows one run: pass one, or use --directions pca for several.")
    stem = "between" if options.between else f"surface_{options.directions}"
    out = choose_output(options.out or runs[0], f"{stem}.html", ".html", ".htm")

    # torch takes seconds to import, so it is imported after the checks of the options.
    from lightning_cifar.runs.build import load_run

    loaded = [load_run(folder, rest) for folder in runs]
    _check_alike(loaded)
    batches = loaded[0].batches(options.num_images, options.split)
    statistics = None
    if options.batch_norm == "recompute":
        statistics = batches if options.split == "train" else loaded[0].batches(options.num_images)
    draw = _draw_line if options.between else _draw_plane
    draw(loaded, _Data(batches, statistics), options, out)


def _parser() -> CommandParser:
    parser = CommandParser(
        "surface",
        description="Draw the loss on a plane through the weights of runs, or between two runs. Options of fit "
        "such as --data.root override the settings of the runs.",
    )
    add = parser.add_argument
    add("runs", type=expand_user, nargs="*", metavar="RUN", help="run folder; several runs share the plane")
    between = "draw the line between the last weights of two runs, with the height of the barrier"
    add("--between", type=expand_user, nargs=2, metavar=("RUN_A", "RUN_B"), help=between)
    directions = "pca: plane of the weights during training, which need the callback WeightTrajectory; random: two "
    directions += "filter-normalised directions around the last weights (%(default)s)"
    add("--directions", choices=("pca", "random"), default="pca", help=directions)
    add("--points", type=positive_int, default=25, metavar="N", help="points along each axis (%(default)s)")
    add("--num_images", type=positive_int, default=2000, metavar="N", help="number of images (%(default)s)")
    add("--split", choices=("train", "val"), default="train", help="split of the images (%(default)s)")
    norm = "statistics of batch norms at each point: recompute them on training images, or keep those of the run "
    add("--batch_norm", choices=("recompute", "keep"), default="recompute", help=f"{norm}(%(default)s)")
    add("--seed", type=int, default=0, help="seed of the random directions (%(default)s)")
    out_help = "file or folder for the page; picture (.png) and tables (.csv) are written beside it (default: the run)"
    add("--out", type=expand_user, metavar="PATH", help=out_help)
    return parser


def _check_alike(runs: Sequence[TrainedRun]) -> None:
    shapes = [{name: tuple(value.shape) for name, value in run.model.state_dict().items()} for run in runs]
    for run, other in zip(runs[1:], shapes[1:], strict=True):
        for name in sorted(shapes[0].keys() | other.keys()):
            if shapes[0].get(name) != other.get(name):
                raise UsageError(
                    f"{run.folder} has another network than {runs[0].folder}: {name} is {other.get(name)} and "
                    f"{shapes[0].get(name)}. Choose runs of one architecture."
                )


def _draw_plane(runs: Sequence[TrainedRun], data: _Data, options: argparse.Namespace, out: Path) -> None:
    from lightning_cifar.plots import Surface, draw_loss_surface, loss_surface_html

    histories: list[Trajectory] = []
    try:
        if options.directions == "random":
            plane, note = _random(runs[0], options.seed)
        else:
            plane, note = _principal(runs, histories)
    except ValueError as error:
        raise UsageError(f"{error}.") from error
    points = [plane.project(each.weights) for each in histories]
    x, y = _axes(np.concatenate([each for each, _ in points]) if points else None, options.points)
    labels = [f"principal direction {i} ({100 * share:.1f} %)" for i, share in enumerate(plane.explained or (), 1)]
    labels = labels or [f"{order} random direction, in filter norms" for order in ("first", "second")]
    grid = (plane.at(float(first), float(second)) for second in y for first in x)
    center, *found = _scan(runs[0], itertools.chain([plane.center], grid), data, 1 + len(x) * len(y), "points")
    loss, accuracy = np.array(found).reshape(len(y), len(x), 2).transpose(2, 0, 1)
    missing = int(np.isnan(loss).sum())
    if missing == loss.size:
        raise UsageError("no point of the plane has a finite loss: the training diverged, use --directions random.")
    paths, rows = _follow(runs, histories, points, data)
    surface = Surface(x, y, loss, accuracy, paths, (labels[0], labels[1]))
    names = ", ".join(run.folder.name for run in runs)
    title = f"{type(runs[0].model).__name__} of {names}: {_describe(runs[0], data, options)}"
    tables = {"": to_csv(("x", "y", "loss", "accuracy"), _cells(x, y, loss, accuracy))}
    if rows:
        header = ("run", "step", "epoch", "x", "y", "distance", "loss", "accuracy")
        tables["_path"] = to_csv(header, rows)
    sys.stdout.write(f"center: loss {center[0]:.4g}, accuracy {100 * center[1]:.2f} %; {note}\n")
    if missing:
        sys.stdout.write(f"{missing} of {loss.size} points have no finite loss: drawn as missing\n")
    page = loss_surface_html(surface, title=title, note=note)
    _write(out, page, draw_loss_surface(surface, title=title, note=note), tables, runs[0])


def _random(run: TrainedRun, seed: int) -> tuple[Plane, str]:
    from lightning_cifar.analysis.loss_surface import random_plane

    plane = random_plane(run.model, seed)
    note = f"two filter-normalised directions (1712.09913), seed {seed}; biases and norms are unchanged"
    return plane, note + (f"; so are {count} filters of norm zero" if (count := plane.num_zero_filters) else "")


def _principal(runs: Sequence[TrainedRun], histories: list[Trajectory]) -> tuple[Plane, str]:
    """Read the snapshots of the runs into ``histories``, and return their plane."""
    import torch

    from lightning_cifar.analysis.loss_surface import trajectory_plane
    from lightning_cifar.callbacks.weight_trajectory import layout_of, read_trajectory

    histories += [read_trajectory(run.folder, layout_of(run.model)) for run in runs]
    snapshots = torch.cat([each.weights for each in histories])
    plane = trajectory_plane(snapshots, histories[0].weights[-1])
    share = 100 * sum(plane.explained or ())
    text = f"plane of {len(snapshots)} snapshots: {share:.1f} % of their squared distances from the last weights of "
    return plane, f"{text}{runs[0].folder.name}; paths are projections"


def _follow(
    runs: Sequence[TrainedRun],
    histories: Sequence[Trajectory],
    points: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    data: _Data,
) -> tuple[list[SurfacePath], list[list[object]]]:
    """Return the paths of the runs with the losses at their own weights, and the rows of their table."""
    from lightning_cifar.plots import SurfacePath

    paths, rows = [], []
    for run, history, (projected, distances) in zip(runs, histories, points, strict=False):  # no history: random
        own = np.array(list(_scan(run, history.weights, data, len(history.steps), "snapshots")))
        label = f"{run.folder.name}: loss {own[-1, 0]:.3g} at the end"
        paths.append(SurfacePath(label, projected, history.steps, own[:, 0]))
        columns = (history.steps, history.epochs, *projected.T, distances, *own.T)
        rows += [[run.folder.name, *row] for row in zip(*columns, strict=True)]
    return paths, rows


def _draw_line(runs: Sequence[TrainedRun], data: _Data, options: argparse.Namespace, out: Path) -> None:
    from lightning_cifar.analysis.loss_surface import barrier
    from lightning_cifar.plots import draw_loss_line

    positions, found = measure_line(runs[0], runs[1], data, options.points)
    loss, accuracy = found.T
    heights = {"loss": barrier(loss), "accuracy": barrier(1 - accuracy)}
    ends = (str(runs[0].folder.name), str(runs[1].folder.name))
    title = f"{type(runs[0].model).__name__} between two runs, {_describe(runs[0], data, options)}"
    figure = draw_loss_line(positions, loss, accuracy, ends=ends, barriers=heights, title=title)
    table = to_csv(("position", "loss", "accuracy"), zip(positions, loss, accuracy, strict=True))
    sys.stdout.write(f"barrier: loss {heights['loss']:.4g}, accuracy {100 * heights['accuracy']:.2f} points\n")
    _write(out, None, figure, {"": table}, runs[0])


def measure_line(
    first: TrainedRun, second: TrainedRun, data: _Data, num_points: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return positions (T,) from 0 to 1 between two networks, and their losses and accuracies (T, 2).

    With kept statistics of batch norms, those of the first network are used.
    """
    from lightning_cifar.analysis.loss_surface import trained_parameters
    from lightning_cifar.analysis.sharpness import flatten

    start, end = (flatten([*trained_parameters(run.model).values()]).detach() for run in (first, second))
    positions = np.linspace(0, 1, num_points)
    weights = (start.lerp(end, float(position)) for position in positions)
    return positions, np.array(list(_scan(first, weights, data, num_points, "points")))


def write_barriers(jobs: Sequence[Job], baseline: str) -> None:
    """Write barrier.csv of each finished run of a study: the barrier to the run of the baseline with the same seed."""
    from lightning_cifar.analysis.loss_surface import barrier
    from lightning_cifar.runs.build import load_run
    from lightning_cifar.studies.jobs import BARRIER, state_of

    done = [job for job in jobs if state_of(job) == "done" and not job.is_trunk]
    origins = {job.seed: job for job in done if job.arm == baseline}
    for job in (job for job in done if job.seed in origins and not (job.path / f"{BARRIER}.csv").is_file()):
        first, second = load_run(origins[job.seed].path), load_run(job.path)
        _check_alike([first, second])
        batches = first.batches(2000)
        height = (
            0.0 if job.arm == baseline else barrier(measure_line(first, second, _Data(batches, batches), 11)[1][:, 0])
        )
        row = (0, second.steps - 1, height)
        write_atomically(job.path / f"{BARRIER}.csv", to_csv(("epoch", "step", BARRIER), [row]))


def _scan(
    run: TrainedRun, weights: Iterable[Tensor], data: _Data, count: int, unit: str = ""
) -> Iterator[tuple[float, float]]:
    """Yield loss and accuracy at each vector of weights, with a progress bar if there is a unit."""
    from lightning_cifar.analysis.loss_surface import scan
    from lightning_cifar.callbacks.terminal import progress_bar

    on_device = (each.to(run.model.device) for each in weights)
    found = scan(run.model, on_device, run.model.evaluation_loss, *data)
    with progress_bar(unit, count, shown=bool(unit)) as advance:
        for each in found:
            yield each
            advance(1)


def _axes(points: NDArray[np.float64] | None, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return positions along both axes that contain the paths, with a margin; without paths, from -1 to 1."""
    if points is None:
        return np.linspace(-1, 1, count), np.linspace(-1, 1, count)
    low, high = points.min(0), points.max(0)
    middle, half = (low + high) / 2, (0.5 + _MARGIN) * np.maximum(high - low, 0.05 * (high - low).max())
    x, y = (np.linspace(middle[i] - half[i], middle[i] + half[i], count) for i in (0, 1))
    return x, y


def _cells(x: NDArray[np.float64], y: NDArray[np.float64], *values: NDArray[np.float64]) -> Iterator[list[float]]:
    for i, second in enumerate(y):
        for j, first in enumerate(x):
            yield [float(first), float(second), *(float(each[i, j]) for each in values)]


def _describe(run: TrainedRun, data: _Data, options: argparse.Namespace) -> str:
    from lightning_cifar.analysis.loss_surface import batch_norms

    count = sum(len(labels) for _, labels in data.batches)
    split = "training" if options.split == "train" else "validation"
    norm = f", batch norm: {options.batch_norm}" if batch_norms(run.model) else ""
    return f"{count} {split} images{norm}"


def _write(out: Path, page: str | None, figure: object, tables: dict[str, bytes], run: TrainedRun) -> None:
    from lightning_cifar.artifacts import log_picture, write_picture

    picture = write_picture(out.with_suffix(".png"), figure)  # type: ignore[arg-type]
    log_picture(run.folder, f"surface/{out.stem}", picture, run.steps)
    names = [out.with_suffix(".png")]
    if page is not None:
        write_atomically(out, page.encode())
        names.insert(0, out)
    for suffix, table in tables.items():
        names.append(out.with_name(f"{out.stem}{suffix}.csv"))
        write_atomically(names[-1], table)
    sys.stdout.write(f"surface: {', '.join(map(str, names))}\n")
