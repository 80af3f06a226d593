"""The command ``lightning-cifar export``: a trained network as one file for elsewhere, checked by running that file."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_cifar.checkpoints.find import Found, find_checkpoint
from lightning_cifar.errors import CommandParser, UsageError, did_you_mean, one_line
from lightning_cifar.files.links import inside
from lightning_cifar.files.output import choose_output
from lightning_cifar.files.paths import expand_user
from lightning_cifar.runs.user_modules import add_class_options, allow_modules

if TYPE_CHECKING:
    from lightning_cifar.commands.export.checking import Sample
    from lightning_cifar.commands.export.reading import Format, Portable

PACKAGES = {"safetensors": ("safetensors",), "onnx": ("onnx", "onnxscript"), "pt2": ()}  # that write a format
RUNTIMES = {"safetensors": "safetensors", "onnx": "onnxruntime", "pt2": "torch"}  # that read it
USE = {
    "safetensors": (
        "network = lightning_cifar.load_safetensors({path!r})",
        "logits = network(images)",
    ),
    "onnx": (
        "session = onnxruntime.InferenceSession({path!r})",
        'logits = session.run(["logits"], {{"images": images}})[0]',
    ),
    "pt2": ("network = torch.export.load({path!r}).module()", "logits = network(images)"),
}
BIG = 64  # pixels: side of the images that a network looks at, from which on a thousand would take minutes


def main(words: Sequence[str]) -> int:
    """Write a trained network in one format or several, and compare what the files compute with it.

    Args:
        words: Of the command line, after ``lightning-cifar export``.

    Returns:
        0, or 1 if a file computed something else than the network: it is not kept.

    Raises:
        UsageError: If an option is wrong, the checkpoint cannot be used, or a format cannot hold the network.
        OSError: If a file cannot be written.
    """
    options = _parser().parse_intermixed_args(list(words))
    formats = _choose_formats(options)
    source = find_checkpoint(options.run[0])
    paths = {format: _choose_file(format, formats, source, options) for format in formats}
    _check_packages(formats)

    # From here on torch is needed, which takes seconds to load.
    from lightning_cifar.checkpoints.reading import Checkpoint
    from lightning_cifar.checkpoints.trained import load_trained
    from lightning_cifar.commands.export.checking import draw_sample
    from lightning_cifar.commands.export.reading import Portable
    from lightning_cifar.commands.export.writing import accuracies_of, facts_of, resize_of

    checkpoint = Checkpoint.read(source.path)
    content = checkpoint.content
    _refuse_several(source.path, content)
    trained = load_trained(checkpoint, allowed=allow_modules(options.model, options.data))
    model, data = trained.model.cpu(), trained.source  # a file must not ask for a GPU
    if options.data_root is not None and hasattr(data, "root"):
        data.root = options.data_root
    known = {
        "resize": resize_of(content),
        "hyper_parameters": checkpoint.hyper_parameters,
        "checkpoint": source.path.name,
        "accuracy": accuracies_of(content, source.folder if source.is_best else None),
    }
    facts = facts_of(trained, data.image_size, **known)
    network = Portable(model, class_names=trained.class_names, mean=trained.mean, std=trained.std, facts=facts)
    _say(f"{source.path}: {facts['model']} after {trained.epochs} epochs, {facts['parameters']:,} parameters")
    _say(f"takes {facts['input']}")
    _say(f"gives {facts['output']}")
    _say(f"class_names: {_list(trained.class_names)}")
    for note in trained.notes:
        _say(f"note: {note}")
    looked_at = getattr(model, "input_size", data.image_size)
    try:
        sample = draw_sample(model, data, options.check or (1000 if looked_at <= BIG else 100))
    except RuntimeError as error:  # torch's, where the data's images do not fit the network
        raise UsageError(
            f"{source.path}: the network does not take its data's images: {one_line(error)[:120]}"
        ) from error
    if sample.reason:
        _say(f"note: its test images are not to be had ({sample.reason}): checked on images drawn from a seed")
    return max([_export(format, network, sample, paths[format]) for format in formats])


def _export(format: Format, network: Portable, sample: Sample, path: Path) -> int:
    """Write one file, under a name of its own until it is found to be right."""
    from lightning_cifar.commands.export.writing import write
    from lightning_cifar.files.atomic import write_atomically

    content = write(format, network)
    is_new = not path.parent.exists()
    unchecked = path.with_name(f".{path.stem}.{os.getpid()}.unchecked{path.suffix}")
    try:
        try:
            write_atomically(unchecked, content)
        except OSError as error:
            raise OSError(error.errno, str(error.strerror).replace(str(unchecked), str(path))) from None
        wrong, found = _check(format, network, sample, unchecked)
        if wrong:
            sys.stdout.flush()
            print(f"lightning-cifar: error: {path} is not written: {wrong}", file=sys.stderr)
            return 1
        unchecked.replace(path)
    finally:
        unchecked.unlink(missing_ok=True)
        if is_new and path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()
    _say(f"{format}: {path}, {len(content) / 1e6:.2f} MB")
    _say(f"  {found}")
    for line in USE[format]:
        _say(f"  >>> {line.format(path=str(path))}")
    return 0


def _check(format: Format, network: Portable, sample: Sample, path: Path) -> tuple[str, str]:
    """What is wrong with a file, and, where nothing is, what was found."""
    from lightning_cifar.commands.export.checking import compare, run_on
    from lightning_cifar.commands.export.reading import open_file
    from lightning_cifar.models import Classifier

    name = RUNTIMES[format]
    if find_spec(name) is None:
        return "", f"not checked: pip install {name}"
    model = network.classifier
    assert isinstance(model, Classifier)
    try:
        given = run_on(open_file(format, path, type(model)), sample.images)
        result = compare(sample.logits, given)
    except Exception as error:  # a runtime that refuses the file raises what it likes
        return f"{name} cannot run it: {one_line(error)[:200]}", ""
    if not result.equal:
        differ = result.total - result.agree - result.ties
        return (
            f"in {name} {differ:,} of {result.total:,} predictions differ from the network's, and logits by up to "
            f"{result.largest:.2g} (rounding explains {result.tolerance:.2g})",
            "",
        )
    found = f"checked in {name} {version(name)} on {sample.source}: "
    found += f"{result.agree:,} of {result.total:,} predictions agree, "
    if result.ties:
        found += f"{result.ties} are of classes equal within rounding, "
    found += f"logits of up to {result.reach:.3g} differ by {result.largest:.1e} at most"
    if sample.labels is not None:
        found += f"; accuracy {float((given.argmax(1) == sample.labels).float().mean()):.2%}".replace("%", " %")
    return "", found


# ------------------------------------------------------------ what is refused without torch


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="lightning-cifar export",
        description="A trained network as one file for elsewhere, with class names and normalisation inside.",
        epilog="The file takes images float32 (N, C, H, W) in [0, 1] and gives logits; it is run and compared with the "
        "network before it gets its name. safetensors holds the weights, onnx and pt2 the computation too.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "run",
        type=expand_user,
        nargs="*",
        metavar="RUN",
        help="run (its best checkpoint), or a checkpoint",
    )
    add(
        "--format",
        nargs="+",
        action="extend",
        default=[],
        metavar="FORMAT",
        help="safetensors, onnx or pt2 (of torch.export); or several",
    )
    add("--out", type=expand_user, metavar="FILE", help="file, or folder (default: export/ in the run's folder)")
    add("--overwrite", action="store_true", help="replace a file that is there")
    add("--check", type=_count, metavar="N", help="images to compare on (1000; 100 for networks of large images)")
    add_class_options(parser)
    add(
        "--data_root",
        type=expand_user,
        metavar="DIR",
        help="folder of the data, whose test images are compared",
    )
    return parser


def _count(word: str) -> int:
    number = int(word) if re.fullmatch(r"[0-9]{1,9}", word) else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{word!r} must be a whole number, at least 1")
    return number


def _choose_formats(options: argparse.Namespace) -> list[Format]:
    words = list(dict.fromkeys(options.format))
    if not options.run and len(words) > 1 and words[-1] not in PACKAGES:
        options.run = [Path(words.pop())]  # it stood behind --format, which takes several
    for word in words:
        if word not in PACKAGES:
            hint = did_you_mean(word, PACKAGES)
            raise UsageError(f"--format (={word}) must be one of {', '.join(PACKAGES)}.{hint}")
    if not words:
        raise UsageError(f"--format is missing: {', '.join(PACKAGES)}, or several of them.")
    if not options.run:
        raise UsageError("RUN is missing: pass the folder of a run, runs/..., or a checkpoint.")
    if len(options.run) > 1:
        raise UsageError(f"{_list([str(run) for run in options.run])} are several runs: export one at a time.")
    return words


def _choose_file(format: Format, formats: Sequence[Format], source: Found, options: argparse.Namespace) -> Path:
    """Where a format goes: a place that can be written to, and where there is nothing."""
    out: Path | None = options.out
    name = f"{source.path.stem}.{format}"
    if out is None:
        path = inside(source.folder, Path("export", name))
    elif len(formats) > 1:
        path = choose_output(out, None) / name
    else:
        path = choose_output(out, name)
    if path.is_dir():
        raise UsageError(f"{path} is a folder: pass another --out.")
    if (path.exists() or path.is_symlink()) and not options.overwrite:
        raise UsageError(f"{path} exists: pass another --out, or --overwrite.")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"{path} cannot be written ({parent} is not to be written to): pass another --out.")
    return path


def _check_packages(formats: Sequence[Format]) -> None:
    for format in formats:
        missing = [name for name in PACKAGES[format] if find_spec(name) is None]
        if missing:
            raise UsageError(f"--format {format} needs {' and '.join(missing)}: pip install 'lightning-cifar[export]'.")


def _refuse_several(path: Path, content: Mapping[str, Any]) -> None:
    settings = content.get("hyper_parameters")
    members = settings.get("members") if isinstance(settings, dict) else None
    if str(content.get("class_path")).endswith(".SideBySide") and isinstance(members, dict):
        raise UsageError(
            f"{path} holds {len(members)} networks side by side ({_list(list(members))}), and a file takes one: train "
            "that one alone, which with the same seed ends in the same weights."
        )


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" ... ({len(names)} in all)" if len(names) > 12 else "")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
