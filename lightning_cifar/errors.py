"""Errors of the command line, as one line with the value and the fix."""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

# Names of the settings in other programs. They come before similar names, such as --min_epochs for --epochs.
_SYNONYMS = {
    "trainer.max_epochs": ("epoch", "epochs", "num_epochs", "n_epochs", "max_epoch"),
    "trainer.max_steps": ("steps", "num_steps", "iterations", "max_iter", "max_iters"),
    "trainer.devices": ("gpus", "num_gpus"),
    "trainer.accelerator": ("device", "gpu", "cuda", "cpu"),
    "trainer.precision": ("amp", "fp16", "bf16", "dtype"),
    "trainer.gradient_clip_val": ("clip", "clip_grad", "grad_clip", "gradient_clip"),
    "trainer.accumulate_grad_batches": ("accumulate", "grad_accum", "gradient_accumulation_steps"),
    "model.lr": ("learning_rate", "learningrate", "init_lr", "base_lr", "max_lr"),
    "model.optimizer": ("opt", "optim"),
    "model.weight_decay": ("wd", "decay"),
    "model.schedule": ("scheduler", "lr_scheduler", "lr_schedule", "regime"),
    "data.batch_size": ("batch", "bs", "batchsize", "train_batch_size"),
    "data.num_workers": ("workers", "worker", "n_workers"),
    "data.augment": ("augmentation", "augmentations", "transform", "transforms"),
    "data.root": ("data_dir", "data_path", "datadir", "root_dir"),
    "model": ("net", "network", "architecture"),
    "data": ("dataset", "datamodule"),
    "seed_everything": ("seed", "random_seed", "rng"),
    "ckpt_path": ("ckpt", "checkpoint", "checkpoint_path", "load", "load_from"),
    "run_dir": ("out", "output", "output_dir", "out_dir", "save_dir", "log_dir", "logdir", "name"),
    "test_after_fit": ("test",),
    "jobs": ("workers", "num_workers", "parallel", "n_jobs"),
}
_PLAIN = {"Sequence": "list", "Iterable": "list", "Mapping": "dict"}  # names of the types in YAML


class UsageError(Exception):
    """An error of the user, as one line with the value and the fix."""


class CommandParser(argparse.ArgumentParser):
    """Parser of a command of this package: an error is a UsageError of one line, with similar options."""

    def __init__(self, command: str = "", **settings: Any) -> None:
        settings = {"prog": f"lightning-cifar {command}", "allow_abbrev": False, **settings}
        super().__init__(**settings)

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments"):
            names = [option.lstrip("-") for option in self._option_string_actions]
            raise UsageError(explain_parser_error(message, options=names, classes=(), settings_of=lambda _: ()))
        raise UsageError(one_line(message))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean x?``, or an empty text if no known name is similar.

    >>> did_you_mean("widht", ["width", "height"])
    ' Did you mean width?'
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]}?" if near else ""


def one_line(message: object) -> str:
    """Return a message without line breaks."""
    return " ".join(str(message).split())


def innermost(message: object) -> str:
    """Return the message of the class of a setting, without the list of types that the parser tried."""
    text = one_line(message)
    found = re.search(
        r"Errors: - (?:Problem with given class_path '[^']*': )?(.*?)\s*- (?:Expected a|Not a valid)", text
    )
    if "No supported gpu backend" in text or "can not run on your system" in text:  # Lightning's
        return f"{text.rstrip('.!')}: leave --trainer.accelerator out, or pass cpu."
    parts = found[1].split(" - ") if found else [text]  # one for each class of a list
    return parts[0] if len(set(parts)) == 1 else " - ".join(parts)


def explain_parser_error(
    message: str,
    *,
    options: Iterable[str],
    classes: Iterable[type],
    settings_of: Callable[[type], Iterable[str]],
) -> str:
    """Explain a message of the argument parser in one line.

    Args:
        message: Message of jsonargparse, often with many lines.
        options: Names of all options, such as ``trainer.max_epochs``; read only for an unknown option.
        classes: Classes that can be named in a configuration.
        settings_of: Returns the names of the settings of such a class.
    """
    classes = list(classes)
    by_name = {known.__name__: known for known in classes}

    if found := re.search(r"unrecognized arguments: (\S+)", message):
        return explain_unknown("--" + found[1].lstrip("-").split("=")[0], list(options))
    if found := re.search(r"does not accept option '([^']+)'", message):
        return explain_unknown(found[1], list(options))
    if found := re.search(r"Option '([^']+)' is not accepted", message):
        having = [known.__name__ for known in classes if found[1] in settings_of(known)]
        if having:
            return f"there is no option {found[1]} here: it is an option of {', '.join(having)}. (--help lists them)"
        return explain_unknown(
            found[1], [*options, *_SYNONYMS], [name for known in classes for name in settings_of(known)]
        )
    if found := re.search(r"Expected a dot import path string: (\S+)", message):
        name = found[1].rsplit(".", 1)[-1]
        return f"there is no class {found[1]!r}.{did_you_mean(name, by_name)} {_available(message, by_name)}"
    if found := re.search(r"the following arguments are required: (.*)", message):
        return _missing(found[1])
    if found := re.search(r"File does not exist: '?([^'\n]+)'?", message):
        return f"there is no file {found[1]}."
    if found := re.search(r"Problems parsing config: (.*)", message, flags=re.DOTALL):
        return f"a configuration is not valid YAML: {one_line(found[1])}"
    if found := re.search(r'Parser key "([^"]+)":\s+(.*)', message, flags=re.DOTALL):
        return _wrong_value(found[1], found[2])
    return one_line(message)


def _missing(message: str) -> str:
    """Explain missing arguments, such as ``test.data, test.model``."""
    required = [name.strip() for name in message.split(",")]
    names = [name.split(".", 1)[-1] for name in required]
    if names == ["root"]:  # a checkpoint does not contain the folder
        return "data.root is missing: pass --data.root with the folder of the images."
    if not {"data", "model"}.intersection(names):
        return f"{' and '.join(names)} missing: there is no default."
    given = " ".join(f"--{name} {'CIFAR10DataModule' if name == 'data' else 'LeNet'}" for name in names)
    if required[0].split(".")[0] in ("validate", "test", "predict"):  # a checkpoint contains both
        given = f"--ckpt_path runs/.../checkpoints/best.ckpt, or {given}"
    return f"{' and '.join(names)} missing: pass {given}, or a file with --config."


def explain_unknown(given: str, options: Sequence[str], settings: Iterable[str] = ()) -> str:
    """Explain an unknown option, with a similar option or one of the ``settings`` of a class."""
    name = given.lstrip("-").replace("-", "_")
    hint = _meant(name, options) or did_you_mean(name, settings) or _near(name, options)
    if "." in given and not given.startswith("-"):  # of a configuration
        hint = hint.replace("--", "")
    return f"there is no option {given}.{hint} (--help lists them)"


def _meant(name: str, options: Sequence[str]) -> str:
    """Return a hint to the option for which this name is a synonym, or that has the same last part."""
    last = name.rsplit(".", 1)[-1].lower()
    found = [option for option, names in _SYNONYMS.items() if option in options and last in names]
    found += [option for option in options if option != name and option.rsplit(".", 1)[-1] == last]
    return f" Did you mean --{found[0]}?" if found else ""


def _near(name: str, options: Sequence[str]) -> str:
    """Return a hint to the option with the most similar name, as a whole or in its last part."""
    whole = {option: option for option in options}
    for option in _SYNONYMS.keys() & whole.keys():
        whole |= dict.fromkeys((f"{option.split('.')[0]}.{synonym}" for synonym in _SYNONYMS[option]), option)
    by_last = {known.rsplit(".", 1)[-1]: option for known, option in reversed(whole.items())}
    for part, known in ((name, whole), (name.rsplit(".", 1)[-1], by_last)):
        if near := difflib.get_close_matches(part, list(known), n=1, cutoff=0.6):
            return f" Did you mean --{known[near[0]]}?"
    return ""


def _wrong_value(key: str, detail: str) -> str:
    got = re.search(r"(?:Got value|Given value): (.*)", detail)
    given = got[1].strip().strip("'") if got else ""
    if base := re.search(r"Import path does not correspond to a subclass of (\w+)", detail):
        return f"{key} (={given}) does not name a {base[1]}."
    own = innermost(detail)
    if own != one_line(detail) and not own.startswith("Expected a"):  # the message of a class about one of its settings
        return own
    expected = re.search(r"Subtypes: \[(.*)\]", detail) or re.search(r"Expected an? (.*)\. Got value", detail)
    values, types = _allowed(expected[1] if expected else "")
    if got and values:
        or_type = f", or of type {' or '.join(types)}" if types else ""
        return f"{key} (={given}) must be one of {', '.join(values)}{or_type}.{did_you_mean(given, values)}"
    if got and types:
        return f"{key} (={given}) must be of type {' or '.join(types)}."
    return f"{key}: {one_line(detail)}"


def _allowed(annotation: str) -> tuple[list[str], list[str]]:
    """Return the values of all Literals in a type, and the names of its other types, without None.

    >>> _allowed("typing.Literal['16', 32], typing.Literal[32, 'warn'], <class 'bool'>, <class 'NoneType'>")
    (['16', '32', 'warn', 'true', 'false'], [])
    """
    literals = re.findall(r"Literal\[(.*?)\]", annotation)
    values = [str(value) for found in literals for value in ast.literal_eval(f"[{found}]")]
    found = re.findall(r"<class '([^']+)'>|(?=\b)(collections\.abc\.\w+)\[", annotation)
    names = ["".join(pair).rsplit(".", 1)[-1] for pair in found]
    types = [_PLAIN.get(name, name) for name in names if name != "NoneType"]
    if values and "bool" in types:
        values += ["true", "false"]
        types = [name for name in types if name != "bool"]
    return list(dict.fromkeys(values)), list(dict.fromkeys(types))


def _available(message: str, by_name: dict[str, type]) -> str:
    """List the classes that are valid for a setting."""
    found = re.search(r"Subtypes: \[<class '([\w.]+)'>", message)
    if not found:
        return ""
    module, name = found[1].rsplit(".", 1)
    base = getattr(importlib.import_module(module), name)
    names = sorted(
        name
        for name, known in by_name.items()
        if issubclass(known, base) and not known.__module__.startswith("lightning.")
    )
    return f"There are {', '.join(names)}." if names else ""
