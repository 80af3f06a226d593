"""The command ``lightning-cifar export``: write a trained network to one file, and check it by running the file."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_cifar.checkpoints.find import Found, find_checkpoint
from lightning_cifar.commands.options import positive_int
from lightning_cifar.errors import CommandParser, UsageError, did_you_mean, one_line
from lightning_cifar.files.links import inside
from lightning_cifar.files.output import choose_output
from lightning_cifar.files.paths import expand_user
from lightning_cifar.runs.user_modules import add_class_options, allow_modules

if TYPE_CHECKING:
    from lightning_cifar.commands.export.checking import Sample
    from lightning_cifar.commands.export.reading import Format, Portable

PACKAGES = {"safetensors": ("safetensors",), "onnx": ("onnx", "onnxscript"), "pt2": ()}  # for writing
RUNTIMES = {"safetensors": "safetensors", "onnx": "onnxruntime", "pt2": "torch"}  # for reading
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
BIG = 64  # pixels: for networks with larger inputs, a thousand images would take minutes


def main(args: Sequence[str]) -> int:
    """Write a trained network in one or several formats, and compare the outputs of the files with the network.

    Returns:
        0, or 1 if the output of a file differs from the network; this file is removed.

    Raises:
        UsageError: If an option is wrong, the checkpoint cannot be used, or a format does not support the network.
        OSError: If a file cannot be written.
    """
    options = _parser().parse_intermixed_args(list(args))
    formats = _choose_formats(options)
    source = find_checkpoint(options.run[0])
    paths = {format: _choose_file(format, formats, source, options) for format in formats}
    _check_packages(formats)

    # torch takes seconds to import, so it is imported after the checks of the options.
    from lightning_cifar.checkpoints.reading import Checkpoint
    from lightning_cifar.checkpoints.trained import load_trained
    from lightning_cifar.commands.export.checking import draw_sample
    from lightning_cifar.commands.export.reading import Portable
    from lightning_cifar.commands.export.writing import accuracies_of, facts_of, resize_of

    checkpoint = Checkpoint.read(source.path)
    content = checkpoint.content
    _reject_several(source.path, content)
    trained = load_trained(checkpoint, allowed=allow_modules(options.model, options.data))
    model, data = trained.model.cpu(), trained.source  # the file must not need a GPU
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
    _say(f"input: {facts['input']}")
    _say(f"output: {facts['output']}")
    _say(f"class_names: {_list(trained.class_names)}")
    for note in trained.notes:
        _say(f"note: {note}")
    input_size = getattr(model, "input_size", data.image_size)
    try:
        sample = draw_sample(model, data, options.check or (1000 if input_size <= BIG else 100))
    except (RuntimeError, ValueError) as error:  # if the images do not fit the network
        reason = one_line(error)[:120]
        raise UsageError(f"{source.path}: the network does not accept the images of its data: {reason}") from error
    if sample.reason:
        _say(f"note: test images are not available ({sample.reason}): checked on random images")
    return max([_export(format, network, sample, paths[format]) for format in formats])


def _export(format: Format, network: Portable, sample: Sample, path: Path) -> int:
    """Write one file, under a temporary name until it is checked."""
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
    """Return an error, or an empty string and the result of the check."""
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
    except Exception as error:  # runtimes raise many types
        return f"{name} cannot run it: {one_line(error)[:200]}", ""
    if not result.equal:
        differ = result.total - result.agree - result.ties
        return (
            f"in {name} {differ:,} of {result.total:,} predictions differ from those of the network, and logits by up "
            f"to {result.largest:.2g} (tolerance {result.tolerance:.2g})",
            "",
        )
    found = f"checked in {name} {version(name)} on {sample.source}: "
    found += f"{result.agree:,} of {result.total:,} predictions agree, "
    if result.ties:
        found += f"{result.ties} differ between classes with equal logits, "
    found += f"logits of up to {result.reach:.3g} differ by at most {result.largest:.1e}"
    if sample.labels is not None:
        found += f"; accuracy {float((given.argmax(1) == sample.labels).float().mean()):.2%}".replace("%", " %")
    return "", found


def _parser() -> CommandParser:
    parser = CommandParser(
        "export",
        description="Write a trained network, with class names and normalization, to one file for use elsewhere.",
        epilog="The input of the file is images float32 (N, C, H, W) in [0, 1], its output logits. It is run and "
        "compared with the network. safetensors contains the weights, onnx and pt2 also the computation.",
    )
    add = parser.add_argument
    add("run", type=expand_user, nargs="*", metavar="RUN", help="run (its best checkpoint), or a checkpoint")
    formats = "one or several of safetensors, onnx and pt2 (torch.export)"
    add("--format", nargs="+", action="extend", default=[], metavar="FORMAT", help=formats)
    add("--out", type=expand_user, metavar="FILE", help="file, or folder (default: export/ in the run's folder)")
    add("--overwrite", action="store_true", help="replace an existing file")
    check = "number of images for the comparison (1000; 100 for networks with large images)"
    add("--check", type=positive_int, metavar="N", help=check)
    add_class_options(parser)
    add("--data_root", type=expand_user, metavar="DIR", help="folder of the data with the test images")
    return parser


def _choose_formats(options: argparse.Namespace) -> list[Format]:
    formats = list(dict.fromkeys(options.format))
    if not options.run and len(formats) > 1 and formats[-1] not in PACKAGES:
        options.run = [Path(formats.pop())]  # RUN after --format, which takes several values
    for format in formats:
        if format not in PACKAGES:
            hint = did_you_mean(format, PACKAGES)
            raise UsageError(f"--format (={format}) must be one of {', '.join(PACKAGES)}.{hint}")
    if not formats:
        raise UsageError(f"--format is missing: pass one or several of {', '.join(PACKAGES)}.")
    if not options.run:
        raise UsageError("RUN is missing: pass the folder of a run, runs/..., or a checkpoint.")
    if len(options.run) > 1:
        raise UsageError(f"{_list([str(run) for run in options.run])} are several runs: export one at a time.")
    return formats


def _choose_file(format: Format, formats: Sequence[Format], source: Found, options: argparse.Namespace) -> Path:
    """Return a path for a format that is writable and does not exist, unless it may be overwritten."""
    out: Path | None = options.out
    name = f"{source.path.stem}.{format}"
    if out is None:
        out = inside(source.folder, Path("export", name))
    elif len(formats) > 1:
        out = choose_output(out, None) / name
    path = choose_output(out, name)
    if (path.exists() or path.is_symlink()) and not options.overwrite:
        raise UsageError(f"{path} exists: pass another --out, or --overwrite.")
    return path


def _check_packages(formats: Sequence[Format]) -> None:
    for format in formats:
        missing = [name for name in PACKAGES[format] if find_spec(name) is None]
        if missing:
            raise UsageError(f"--format {format} needs {' and '.join(missing)}: pip install 'lightning-cifar[export]'.")


def _reject_several(path: Path, content: Mapping[str, Any]) -> None:
    settings = content.get("hyper_parameters")
    members = settings.get("members") if isinstance(settings, dict) else None
    if str(content.get("class_path")).endswith(".SideBySide") and isinstance(members, dict):
        raise UsageError(
            f"{path} contains {len(members)} networks ({_list(list(members))}), but a file can contain one: train only "
            "this network, which gives the same weights with the same seed."
        )


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" ... ({len(names)} in total)" if len(names) > 12 else "")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
