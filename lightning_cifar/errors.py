"""Mistakes on the command line, told in one line that names the thing and the fix."""

from __future__ import annotations

import argparse
import difflib
import importlib
import re
from collections.abc import Callable, Iterable
from typing import NoReturn


class UsageError(Exception):
    """One line for the user: what is wrong, and the fix."""


class CommandParser(argparse.ArgumentParser):
    """For the commands of our own: a mistake is a UsageError of one line, an unknown option names a near one."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments"):
            names = [option.lstrip("-") for option in self._option_string_actions]
            raise UsageError(explain_parser_error(message, options=names, classes=(), settings_of=lambda _: ()))
        raise UsageError(one_line(message))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean x?``, or nothing where nothing is near.

    >>> did_you_mean("widht", ["width", "height"])
    ' Did you mean width?'
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]}?" if near else ""


def one_line(message: object) -> str:
    """The message without its line breaks."""
    return " ".join(str(message).split())


def innermost(message: object) -> str:
    """What a setting's own class said, without the parser's list of all that it tried around it."""
    text = one_line(message)
    found = re.search(
        r"Errors: - (?:Problem with given class_path '[^']*': )?(.*?)\s*- (?:Expected a|Not a valid)", text
    )
    if "No supported gpu backend" in text or "can not run on your system" in text:  # Lightning's
        return f"{text.rstrip('.!')}: leave --trainer.accelerator out, or pass cpu."
    return found[1] if found else text


def explain_parser_error(
    message: str,
    *,
    options: Iterable[str],
    classes: Iterable[type],
    settings_of: Callable[[type], Iterable[str]],
) -> str:
    """What a message of the argument parser means, in one line.

    Args:
        message: Of jsonargparse, often many lines.
        options: Names of the options that there are, such as ``trainer.max_epochs``.
        classes: Classes that can be named in a configuration.
        settings_of: Names of what such a class can be given.
    """
    options, classes = list(options), list(classes)
    by_name = {known.__name__: known for known in classes}

    if found := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
        known = re.findall(r"[\w-]+", found[2])
        return f"there is no command {found[1]!r}.{did_you_mean(found[1], known)} There are {', '.join(known)}."
    if found := re.search(r"expected \"subcommand\" to be one of \{(.*)\}", message):
        return f"a command is missing: one of {found[1].replace(',', ', ')}."
    if found := re.search(r"unrecognized arguments: (\S+)", message):
        return _unknown(found[1].lstrip("-").split("=")[0], options, prefix="--")
    if found := re.search(r"does not accept option '([^']+)'", message):
        return _unknown(found[1], options)
    if found := re.search(r"Option '([^']+)' is not accepted", message):
        having = [known.__name__ for known in classes if found[1] in settings_of(known)]
        if having:
            return f"there is no option {found[1]} here: it is one of {', '.join(having)}. (--help lists them)"
        return _unknown(found[1], [name for known in classes for name in settings_of(known)])
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
    """Names such as ``test.data, test.model``."""
    required = [name.strip() for name in message.split(",")]
    names = [name.split(".", 1)[-1] for name in required]
    if names == ["root"]:  # a checkpoint names no folder, for one
        return "data.root is missing: pass --data.root with the folder of the images."
    given = " ".join(f"--{name} {'CIFAR10DataModule' if name == 'data' else 'LeNet'}" for name in names)
    if required[0].split(".")[0] in ("validate", "test", "predict"):  # what was trained says all of it
        given = f"--ckpt_path runs/.../checkpoints/best.ckpt, or {given}"
    return f"{' and '.join(names)} missing: pass {given}, or a file with --config."


def _unknown(name: str, known: list[str], prefix: str = "") -> str:
    last = {option.rsplit(".", 1)[-1]: option for option in known}
    hint = did_you_mean(name, known) or did_you_mean(name.rsplit(".", 1)[-1], last)
    hint = hint.replace("mean ", f"mean {prefix}", 1)
    return f"there is no option {prefix}{name}.{hint} (--help lists them)"


def _wrong_value(key: str, detail: str) -> str:
    got = re.search(r"(?:Got value|Given value): (.*)", detail)
    given = got[1].strip().strip("'") if got else ""
    if base := re.search(r"Import path does not correspond to a subclass of (\w+)", detail):
        return f"{key} (={given}) does not name a {base[1]}."
    literals = [
        value.strip().strip("'")
        for found in re.findall(r"Literal\[(.*?)\]$", detail, re.M)
        for value in found.split(",")
    ]
    if not literals and (found := re.search(r"Expected a typing\.Literal\[(.*?)\]\. Got value", detail)):
        literals = [value.strip().strip("'") for value in found[1].split(",")]
    if literals and got:
        known = list(dict.fromkeys(literals))
        return f"{key} (={given}) must be one of {', '.join(known)}.{did_you_mean(given, known)}"
    expected = [name for name in re.findall(r"Expected an? <class '([^']+)'>", detail) if name != "NoneType"]
    if expected and got:
        return f"{key} (={got[1].strip()}) must be of type {' or '.join(dict.fromkeys(expected))}."
    return f"{key}: {one_line(detail)}"


def _available(message: str, by_name: dict[str, type]) -> str:
    """The classes that the place in question takes."""
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
