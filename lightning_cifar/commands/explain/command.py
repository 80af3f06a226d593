"""The command ``lightning-cifar explain``: predictions for your own images, with occlusion maps and feature maps."""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from lightning_cifar.checkpoints.find import find_checkpoint
from lightning_cifar.commands.explain.writer import Explanation, ExplanationWriter, plain_name
from lightning_cifar.commands.options import positive_int
from lightning_cifar.errors import CommandParser, UsageError, did_you_mean, one_line
from lightning_cifar.files.image_folders import list_files
from lightning_cifar.files.images import ImageFile, UnreadableImageError, check_image, read_image
from lightning_cifar.files.output import choose_output, new_run
from lightning_cifar.files.paths import expand_user
from lightning_cifar.runs.user_modules import add_class_options, allow_modules

if TYPE_CHECKING:
    from lightning_cifar.checkpoints.trained import Trained

Fill = float | Literal["mean", "blur"]

_BATCH = 8
"""Number of images whose occlusion maps are computed together, which is faster; more would need more memory."""


def main(args: Sequence[str]) -> None:
    """Explain images in a new folder: a picture and feature maps of each, a table, and an HTML page.

    Raises:
        UsageError: If an option is wrong, the checkpoint cannot be used, or no image can be read.
        OSError: If a result cannot be written.
    """
    options = _parser().parse_args(args)
    out = _choose_folder(options.out)
    found = find_checkpoint(options.ckpt_path)
    files, notes = find_images(options.images, options.limit)
    if found.chosen:
        notes.append(f"checkpoint: {found.path}")

    # torch takes seconds to import, so it is imported after the checks of the options.
    from lightning_cifar.checkpoints.trained import load_trained

    trained = load_trained(found.path, allowed=allow_modules(options.model, options.data))
    notes += trained.notes
    target, layers = _check(options, trained, notes)
    for note in notes:
        _say(f"note: {note}")
    writer = ExplanationWriter(out, options, trained)
    try:
        _explain(files, notes, target, layers, options, trained, writer)
    except KeyboardInterrupt:
        if writer.images:
            sys.stdout.write(f"explained {len(writer.images)} images: {writer.finish([*notes, 'interrupted'])}\n")
        raise
    if not writer.images:
        raise UsageError(f"no image could be read: {notes[-1]}.")
    sys.stdout.write(f"explained {len(writer.images)} images: {writer.finish(notes)}\n")


def _explain(
    files: Sequence[Path],
    notes: list[str],
    target: int | None,
    layers: Sequence[str],
    options: argparse.Namespace,
    trained: Trained,
    writer: ExplanationWriter,
) -> None:
    """Read and explain a few files at a time, and print one line for each, in order."""
    for start in range(0, len(files), _BATCH):
        batch = [(path, _read(path, trained, options)) for path in files[start : start + _BATCH]]
        images = [image for _, image in batch if isinstance(image, ImageFile)]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            explained = iter(_compute(trained, images, target, layers, options) if images else [])
        found = [one_line(warning.message) for warning in caught]
        for number, (path, image) in enumerate(batch, start=start + 1):
            if not isinstance(image, ImageFile):
                notes.append(f"{plain_name(path)} is skipped: {image}")
                _say(f"[{number}/{len(files)}] {notes[-1]}")
                continue
            explanation = next(explained)
            if left := int(np.isnan(explanation.drops).sum()):
                found = [note for note in found if "stride" not in note]  # the same message for Python users
                stride = f"--stride {options.stride}"
                found.append(f"{stride}: no window covers {left} of {explanation.drops.size} pixels")
            for note in found:
                if note not in notes:
                    notes.append(note)
                    _say(f"note: {note}")
            sentence = writer.add(path, image, explanation)
            sys.stdout.write(f"[{number}/{len(files)}] {plain_name(path)}: {sentence}\n")
            sys.stdout.flush()


def _read(path: Path, trained: Trained, options: argparse.Namespace) -> ImageFile | UnreadableImageError:
    try:
        return read_image(path, trained.model.image_size, trained.model.in_channels, options.resize)
    except UnreadableImageError as error:
        return error


def _parser() -> CommandParser:
    parser = CommandParser(
        "explain",
        description="Predict the classes of your own images, and show which regions each prediction depends on.",
    )
    add = parser.add_argument
    add("--ckpt_path", type=expand_user, required=True, metavar="FILE", help="run, or checkpoint of a classifier")
    images = "folder with image files, or the files"
    add("--images", type=expand_user, required=True, nargs="+", metavar="DIR", help=images)
    window = "side of the covering window, in pixels of the network's input (8)"
    add("--window", type=positive_int, default=8, metavar="PIXELS", help=window)
    add("--stride", type=positive_int, default=1, metavar="PIXELS", help="stride of the window (1)")
    fill = "value of covered pixels: mean or blur of the image, or a number in units of the normalized image, "
    fill += "(pixel / 255 - mean) / std of the training data: 0 is the mean color of the data (mean)"
    add("--fill", type=_fill, default="mean", metavar="WHAT", help=fill)
    add("--mode", choices=("exact", "fast"), default="exact", help="fast approximates, and estimates its error")
    add("--target", metavar="CLASS", help="class whose probability is mapped (default: the predicted one)")
    add("--layers", nargs="+", metavar="NAME", help="layers whose feature maps are drawn (default: two convolutions)")
    resize = "make images square: crop to the middle, or squash the whole image"
    add("--resize", choices=("crop", "squash"), default="crop", help=resize)
    add("--top", type=positive_int, default=5, metavar="N", help="number of most likely classes to report (5)")
    add("--limit", type=positive_int, default=100, metavar="N", help="maximum number of images (100)")
    add("--out", type=expand_user, metavar="DIR", help="new folder for the results (default: one in runs/)")
    add_class_options(parser)
    return parser


def _fill(text: str) -> Fill:
    if text in ("mean", "blur"):
        return cast(Literal["mean", "blur"], text)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} must be mean, blur or a number")
    return number


def _choose_folder(out: Path | None) -> Path:
    """Return a path that does not exist."""
    if out is None:
        return new_run("explain")
    out = choose_output(out, None) if not out.exists() else out
    if out.exists() or out.is_symlink():
        raise UsageError(f"--out (={out}) exists and is not overwritten: pass another folder.")
    return out


def find_images(paths: Sequence[Path], limit: int, option: str = "--limit") -> tuple[list[Path], list[str]]:
    """Return at most ``limit`` image files in folders, and notes on other files.

    Raises:
        UsageError: A path cannot be read, or no file is an image.
    """
    try:
        files, folders = list_files(paths)
    except OSError as error:
        raise UsageError(f"--images {error.filename}: {error.strerror}: pass a folder with image files.") from error
    notes, found = [], []
    for path in files:
        try:
            check_image(path)
            found.append(path)
        except UnreadableImageError as error:
            notes.append(f"{plain_name(path)} is skipped: {error}")
    if folders:
        notes.append(f"{folders} {'subfolder is' if folders == 1 else 'subfolders are'} not searched: pass them too")
    if not found:
        where = ", ".join(map(str, paths))
        reason = notes[0] if notes else "it is empty"
        more = f" (and {len(notes) - 1} more)" if len(notes) > 1 else ""
        raise UsageError(f"--images {where} contains no image: {reason}{more}.")
    if len(found) > limit:
        notes.append(f"only the first {limit} of {len(found)} images: {option} {len(found)} uses all")
    return found[:limit], notes


def _check(options: argparse.Namespace, trained: Trained, notes: list[str]) -> tuple[int | None, list[str]]:
    """Return the index of the target class, and the layers to draw."""
    import torch

    from lightning_cifar.analysis.feature_maps import default_layers, feature_maps

    model, names = trained.model, trained.class_names
    size, target = model.image_size, None
    if options.window > size:
        raise UsageError(f"--window (={options.window}) is larger than {size} x {size} pixels: use a smaller one.")
    if options.target is not None:
        if options.target not in names:
            some = ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
            hint = did_you_mean(options.target, names)
            raise UsageError(f"--target (={options.target}) must be one of the classes {some}.{hint}")
        target = names.index(options.target)
    try:
        layers = list(dict.fromkeys(options.layers or default_layers(model)))
    except ValueError as error:
        notes.append(f"no feature maps: {error}")
        return target, []
    example = torch.zeros(1, model.in_channels, size, size, device=model.device)
    try:
        feature_maps(model, example, layers)  # rejects layers without maps
    except ValueError as error:
        raise UsageError(f"--layers: {error}") from error
    return target, layers


def _compute(
    trained: Trained,
    images: Sequence[ImageFile],
    target: int | None,
    layers: Sequence[str],
    options: argparse.Namespace,
) -> list[Explanation]:
    """Compute predictions and feature maps image by image, and the occlusion maps of all images together."""
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
