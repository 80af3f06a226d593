"""The command ``lightning-cifar microscope``: one offline HTML page to explore a trained network."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterable, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lightning_cifar.checkpoints.find import find_checkpoint
from lightning_cifar.commands.explain.command import find_images
from lightning_cifar.commands.explain.writer import plain_name
from lightning_cifar.commands.options import positive_int
from lightning_cifar.errors import CommandParser, UsageError, one_line
from lightning_cifar.files.atomic import write_atomically
from lightning_cifar.files.images import UnreadableImageError, read_image
from lightning_cifar.files.output import choose_output
from lightning_cifar.files.paths import expand_user
from lightning_cifar.runs.user_modules import add_class_options, allow_modules

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_cifar.analysis.microscope.content import Batches
    from lightning_cifar.checkpoints.trained import Trained


def main(args: Sequence[str]) -> None:
    """Write the page of a run.

    Args:
        args: Command-line arguments after ``lightning-cifar microscope``.

    Raises:
        UsageError: If an option is wrong, the run has no such checkpoint or images, or the page is too large.
        OSError: If the page cannot be written.
    """
    options = _parser().parse_args(args)
    start = time.monotonic()
    found = find_checkpoint(options.run)
    files, notes = find_images(options.images, options.num_images, "--num_images") if options.images else ([], [])
    out = choose_output(options.out or found.folder / "microscope.html", "microscope.html", ".html", ".htm")

    # torch takes seconds to import, so it is imported after the checks of the options.
    from lightning_cifar.analysis.microscope.content import collect
    from lightning_cifar.callbacks.terminal import progress_bar
    from lightning_cifar.checkpoints.trained import load_trained
    from lightning_cifar.plots import microscope_html
    from lightning_cifar.plots.pages.microscope_page import MOST_VALUES

    *earlier, last = _states(found.folder, found.path, options.epochs)
    allowed = allow_modules(options.model, options.data)
    trained = load_trained(last, allowed=allowed)
    notes += [f"checkpoint: {last}", *trained.notes]
    batches, count = _validation(trained, options, notes)
    images = _read(files, trained) if files else None
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    others = ((_title(path), load_trained(path, allowed=allowed).model) for path in earlier)
    title = _title(last) if last.name.startswith("epoch-") else f"after epoch {trained.epochs}"
    try:
        content = collect(
            trained.model,
            title,
            earlier=others,
            images=images,
            batches=batches,
            num_images=options.num_images,
            window=options.window,
            most_values=MOST_VALUES // (1 + len(earlier)),
            progress=lambda unit, total: progress_bar(unit, total or count),
        )
    except ValueError as error:
        raise UsageError(f"{last}: {one_line(error)}.") from error
    try:
        written = microscope_html(
            content,
            network=f"{type(trained.model).__name__}, {found.folder.name}/{last.name}",
            classes=trained.class_names,
            names=[plain_name(path) for path in files[: len(content.labels)]],
            mean=trained.mean,
            std=trained.std,
        )
    except ValueError as error:
        raise UsageError(f"{error}: use fewer images (--num_images 4) or states (--epochs last).") from error
    text = written.text.encode("utf-8", "replace")
    write_atomically(out, text)
    for line in written.left_out:
        sys.stdout.write(f"left out: {line}\n")
    sys.stdout.write(f"microscope: {out} ({len(text) / 1e6:.1f} MB, {time.monotonic() - start:.0f} s)\n")


def _parser() -> CommandParser:
    parser = CommandParser(
        "microscope", description="Write one offline HTML page to explore the layers of a trained network."
    )
    add = parser.add_argument
    add("run", type=expand_user, metavar="RUN", help="folder of a run, or checkpoint of a classifier")
    images = "folder with image files, or the files (default: validation images, half of them misclassified)"
    add("--images", type=expand_user, nargs="+", metavar="DIR", help=images)
    add("--num_images", type=positive_int, default=8, metavar="N", help="number of images (8)")
    epochs = "kept states on the slider: last, all, or completed epochs such as 1,5,10 (last: the best checkpoint only)"
    add("--epochs", type=_epochs, default="last", metavar="WHICH", help=epochs)
    window = "side of the occluding window in pixels (default: a quarter of the image)"
    add("--window", type=positive_int, metavar="PIXELS", help=window)
    add("--data_root", type=expand_user, metavar="DIR", help="folder of the data with the validation images (data)")
    add(
        "--out",
        type=expand_user,
        metavar="PATH",
        help="file or folder for the page (default: in the folder of the run)",
    )
    add_class_options(parser)
    return parser


def _epochs(text: str) -> str:
    if text not in ("last", "all") and not re.fullmatch(r"\d{1,6}(,\d{1,6})*", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be last, all, or numbers such as 1,5,10")
    return text


def _states(run: Path, checkpoint: Path, epochs: str) -> list[Path]:
    """Return the checkpoints of the slider, in order."""
    from lightning_cifar.callbacks.exact_resume import KEPT
    from lightning_cifar.runs.fork import kept_epochs

    if epochs == "last":
        return [checkpoint]
    kept = kept_epochs(run)
    wanted = kept if epochs == "all" else sorted({int(each) for each in epochs.split(",")})
    missing = [str(epoch) for epoch in wanted if epoch not in kept]
    if missing or not wanted:
        known = f"it kept {', '.join(map(str, kept))}" if kept else "it kept none: train with --keep_every_n_epochs 1"
        raise UsageError(f"--epochs: {run} has no state of epoch {', '.join(missing) or 'any'}: {known}.")
    return [run / "checkpoints" / KEPT.format(epoch) for epoch in wanted]


def _title(kept: Path) -> str:
    return f"after epoch {int(kept.stem.removeprefix('epoch-'))}"


def _validation(trained: Trained, options: argparse.Namespace, notes: list[str]) -> tuple[Batches | None, int | None]:
    """Return a function that reads the validation split, and its number of images if it is known.

    The function is None if the split cannot be read and is not necessary.
    """
    data, device = trained.source, trained.model.device
    if options.data_root is not None and hasattr(data, "root"):
        data.root = options.data_root

    def read() -> Iterable[tuple[Tensor, Tensor]]:
        loader = data.val_dataloader()
        return ((images.to(device), labels) for images, labels in loader)

    try:
        next(iter(read()))
        dataset = getattr(data.val_dataloader(), "dataset", None)
    except Exception as error:  # data may be missing or damaged in any way
        reason = "it is empty" if isinstance(error, StopIteration) else one_line(error).split(": pass")[0][:160]
        if options.images is None:
            fix = "pass --data_root DIR (config.yaml of the run names it), or your own images with --images DIR"
            raise UsageError(f"the validation split cannot be read ({reason}): {fix}.") from error
        notes.append(f"no patches and no means of classes: the validation split cannot be read ({reason})")
        return None, None
    return read, len(dataset) if isinstance(dataset, Sized) else None


def _read(files: Sequence[Path], trained: Trained) -> Tensor:
    """Read image files as the network receives them."""
    import torch

    views = []
    for path in files:
        try:
            views.append(read_image(path, trained.model.image_size, trained.model.in_channels, "crop").view)
        except UnreadableImageError as error:
            raise UsageError(f"{path}: {error}: remove it from --images.") from error
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (trained.mean, trained.std))
    pixels = torch.from_numpy(np.stack(views)).movedim(-1, 1) / 255
    return ((pixels - mean) / std).to(trained.model.device)
