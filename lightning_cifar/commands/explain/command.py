"""The command ``lightning-cifar explain``: what a trained network says of one's own images, and what it rests on."""

from __future__ import annotations

import argparse
import math
import re
import sys
import warnings
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from lightning_cifar.checkpoints.find import find_checkpoint
from lightning_cifar.commands.explain.report import Explanation, Report, plain_name
from lightning_cifar.errors import CommandParser, UsageError, did_you_mean, one_line
from lightning_cifar.files.image_folders import list_files
from lightning_cifar.files.images import ImageFile, UnreadableImageError, check_image, read_image
from lightning_cifar.files.output import choose_output
from lightning_cifar.files.paths import expand_user
from lightning_cifar.runs.user_modules import add_class_options, allow_modules

if TYPE_CHECKING:
    from lightning_cifar.checkpoints.trained import Trained

Fill = float | Literal["mean", "blur"]

_BATCH = 8
"""Images whose occlusion maps are computed together, which is faster than one by one; more would cost memory."""


def main(words: Sequence[str]) -> None:
    """Explain images into a new folder: a picture and feature maps of each, a table, and one page with all of it.

    Args:
        words: Of the command line, after ``lightning-cifar explain``.

    Raises:
        UsageError: If an option is wrong, the checkpoint cannot be used, or no image can be read.
        OSError: If a result cannot be written.
    """
    options = _parser().parse_args(words)
    out = _choose_folder(options.out)
    found = find_checkpoint(options.ckpt_path)
    files, notes = _find(options)
    if found.chosen:
        notes.append(f"checkpoint: {found.path}")

    # From here on torch is needed, which takes seconds to load.
    from lightning_cifar.checkpoints.trained import load_trained

    trained = load_trained(found.path, allowed=allow_modules(options.model, options.data))
    notes += trained.notes
    target, layers = _check(options, trained, notes)
    for note in notes:
        _say(f"note: {note}")
    report = Report(out, options, trained)
    try:
        _explain(files, notes, target, layers, options, trained, report)
    except KeyboardInterrupt:
        if report.images:  # the page of what there is
            sys.stdout.write(f"explained {len(report.images)} images: {report.finish([*notes, 'interrupted'])}\n")
        raise
    if not report.images:
        raise UsageError(f"no image could be read: {notes[-1]}.")
    sys.stdout.write(f"explained {len(report.images)} images: {report.finish(notes)}\n")


def _explain(
    files: Sequence[Path],
    notes: list[str],
    target: int | None,
    layers: Sequence[str],
    options: argparse.Namespace,
    trained: Trained,
    report: Report,
) -> None:
    """Read, explain and report a few files at a time, with one line for each, in order."""
    for start in range(0, len(files), _BATCH):
        batch = [(path, _read(path, trained, options)) for path in files[start : start + _BATCH]]
        images = [image for _, image in batch if isinstance(image, ImageFile)]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            explained = iter(_look(trained, images, target, layers, options) if images else [])
        found = [one_line(warning.message) for warning in caught]
        for number, (path, image) in enumerate(batch, start=start + 1):
            if not isinstance(image, ImageFile):
                notes.append(f"{plain_name(path)} is left out: {image}")
                _say(f"[{number}/{len(files)}] {notes[-1]}")
                continue
            looked = next(explained)
            if left := int(np.isnan(looked.drops).sum()):
                found = [note for note in found if "stride" not in note]  # the same, told for Python
                stride = f"--stride {options.stride}"
                found.append(f"{stride} leaves {left} of {looked.drops.size} pixels that no window covers")
            for note in found:
                if note not in notes:
                    notes.append(note)
                    _say(f"note: {note}")
            sentence = report.add(path, image, looked)
            sys.stdout.write(f"[{number}/{len(files)}] {plain_name(path)}: {sentence}\n")
            sys.stdout.flush()


def _read(path: Path, trained: Trained, options: argparse.Namespace) -> ImageFile | UnreadableImageError:
    try:
        return read_image(path, trained.model.image_size, trained.model.in_channels, options.resize)
    except UnreadableImageError as error:
        return error


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="lightning-cifar explain",
        description="What a trained network says of one's own images, and which parts of them it rests on.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--ckpt_path", type=expand_user, required=True, metavar="FILE", help="run, or checkpoint of a classifier")
    add(
        "--images",
        type=expand_user,
        required=True,
        nargs="+",
        metavar="DIR",
        help="folder with image files, or the files",
    )
    add(
        "--window",
        type=_count,
        default=8,
        metavar="PIXELS",
        help="side of the square that covers (8), as the network sees",
    )
    add("--stride", type=_count, default=1, metavar="PIXELS", help="step of the window (1)")
    add(
        "--fill",
        type=_fill,
        default="mean",
        metavar="WHAT",
        help="covers: mean of the image, blur, or a number in units of the normalised image, "
        "(pixel / 255 - mean) / std of the training's data: 0 is the data's mean colour (mean)",
    )
    add("--mode", choices=("exact", "fast"), default="exact", help="fast approximates, and says how well")
    add("--target", metavar="CLASS", help="class whose probability is watched (default: the predicted one)")
    add("--layers", nargs="+", metavar="NAME", help="whose feature maps to draw (default: two convolutions)")
    add("--resize", choices=("crop", "squash"), default="crop", help="to a square: its middle, or all of it distorted")
    add("--top", type=_count, default=5, metavar="N", help="how many of the likeliest classes to tell (5)")
    add("--limit", type=_count, default=100, metavar="N", help="how many images at most (100)")
    add(
        "--out",
        type=expand_user,
        metavar="DIR",
        help="new folder for the results (default: one in runs/)",
    )
    add_class_options(parser)
    return parser


def _count(word: str) -> int:
    number = int(word) if re.fullmatch(r"[0-9]{1,6}", word) else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{word!r} must be a whole number, at least 1")
    return number


def _fill(word: str) -> Fill:
    if word in ("mean", "blur"):
        return cast(Literal["mean", "blur"], word)
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{word!r} must be mean, blur or a number")
    return number


def _choose_folder(out: Path | None) -> Path:
    """A path at which there is nothing."""
    if out is None:
        stem = f"explain-{datetime.now():%Y%m%d-%H%M%S}"
        paths = (Path("runs") / (stem + (f"-{i}" if i else "")) for i in range(1000))
        return next(path for path in paths if not path.exists())
    out = choose_output(out, None) if not out.exists() else out
    if out.exists() or out.is_symlink():
        raise UsageError(f"--out (={out}) exists, and nothing is ever overwritten: pass another folder.")
    return out


def _find(options: argparse.Namespace) -> tuple[list[Path], list[str]]:
    """Files that look like images, and what is to be told of others."""
    try:
        files, folders = list_files(options.images)
    except OSError as error:
        raise UsageError(f"--images {error.filename}: {error.strerror}: pass a folder with image files.") from error
    notes, found = [], []
    for path in files:
        try:
            check_image(path)
            found.append(path)
        except UnreadableImageError as error:
            notes.append(f"{plain_name(path)} is left out: {error}")
    if folders:
        one = folders == 1
        notes.append(f"{folders} {'folder inside is' if one else 'folders inside are'} not looked into: pass them too")
    if not found:
        where = ", ".join(map(str, options.images))
        reason = notes[0] if notes else "it is empty"
        more = f" (and {len(notes) - 1} more)" if len(notes) > 1 else ""
        raise UsageError(f"there is no image in --images {where}: {reason}{more}.")
    if len(found) > options.limit:
        notes.append(f"the first {options.limit} of {len(found)} images: --limit {len(found)} takes all")
    return found[: options.limit], notes


def _check(options: argparse.Namespace, trained: Trained, notes: list[str]) -> tuple[int | None, list[str]]:
    """The number of the target, and the layers to draw."""
    import torch

    from lightning_cifar.analysis.feature_maps import default_layers, feature_maps

    model, names = trained.model, trained.class_names
    size, target = model.image_size, None
    if options.window > size:
        raise UsageError(f"--window (={options.window}) does not fit into {size} x {size} pixels: take a smaller one.")
    if options.target is not None:
        if options.target not in names:
            some = ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
            raise UsageError(f"there is no class {options.target!r}.{did_you_mean(options.target, names)} ({some})")
        target = names.index(options.target)
    try:
        layers = list(dict.fromkeys(options.layers or default_layers(model)))
    except ValueError as error:
        notes.append(f"no feature maps: {error}")
        return target, []
    example = torch.zeros(1, model.in_channels, size, size, device=model.device)
    try:
        feature_maps(model, example, layers)  # refuses what gives no maps
    except ValueError as error:
        raise UsageError(f"--layers: {error}") from error
    return target, layers


def _look(
    trained: Trained,
    images: Sequence[ImageFile],
    target: int | None,
    layers: Sequence[str],
    options: argparse.Namespace,
) -> list[Explanation]:
    """Ask the network about images: one by one for its answers, all together for the occlusion maps."""
    import torch

    from lightning_cifar.analysis.feature_maps import feature_maps
    from lightning_cifar.analysis.occlusion.maps import occlusion_map

    model = trained.model
    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (trained.mean, trained.std))
    pixels = torch.from_numpy(np.stack([image.view for image in images])).movedim(-1, 1) / 255
    x = ((pixels - mean) / std).to(model.device)
    covered = occlusion_map(
        model,
        x,
        None if target is None else torch.full((len(x),), target, device=x.device),
        window=options.window,
        stride=options.stride,
        fill=options.fill,
        mode=options.mode,
    )
    explained = []
    for index in range(len(x)):
        image = x[index : index + 1]
        with torch.no_grad():  # the model is in evaluation mode
            probabilities = model(image).softmax(1)[0]
        maps = feature_maps(model, image, layers) if layers else {}
        explained.append(
            Explanation(
                probabilities.cpu().numpy(),
                int(covered.targets[index]),
                covered.pixels[index].cpu().numpy(),
                float(covered.values[index].max()),
                max(0.0, -float(covered.values[index].min())),
                float(covered.error[index]),
                {name: each[0].cpu().numpy() for name, each in maps.items()},
            )
        )
    return explained


def _say(line: str) -> None:
    sys.stdout.flush()
    print(line, file=sys.stderr, flush=True)
