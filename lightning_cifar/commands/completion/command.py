"""The command ``lightning-cifar completion``: a script with which a shell completes our command line, without Python.

What can be completed is read from the parsers and from the signatures of the public classes, when the script is
written: nothing about a command is told twice.
"""

from __future__ import annotations

import argparse
import re
import sys
import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import Enum
from importlib import import_module
from inspect import isclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Union, get_args, get_origin

from lightning_cifar.commands.completion.scripts import RENDERERS, Group, Kind, Option, Table
from lightning_cifar.errors import CommandParser, UsageError, did_you_mean, one_line

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

_WIDTH = 76  # characters of a description


def main(words: Sequence[str]) -> None:
    """Print the script of a shell.

    Args:
        words: Of the command line, after ``lightning-cifar completion``.

    Raises:
        UsageError: There is no script for that shell.
    """
    shell = _parser().parse_args(list(words)).shell
    if shell not in RENDERERS:
        raise UsageError(
            f"there is no completion for {shell!r}.{did_you_mean(shell, RENDERERS)} There are {', '.join(RENDERERS)}."
        )
    sys.stdout.write(RENDERERS[shell](read_table()))


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="lightning-cifar completion",
        description="Print a script with which a shell completes commands, options and values, without starting Python",
        epilog="""\
bash: lightning-cifar completion bash > ~/.local/share/bash-completion/completions/lightning-cifar
zsh:  lightning-cifar completion zsh > DIR/_lightning-cifar, DIR being in $fpath before compinit
fish: lightning-cifar completion fish > ~/.config/fish/completions/lightning-cifar.fish
Make those folders first (mkdir -p), start a new shell, and write the script anew after an update.
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("shell", metavar="{" + ",".join(RENDERERS) + "}", help="for which shell")
    return parser


def read_table() -> Table:
    """All that can be completed: commands, their options, the classes that some of these name, and their settings."""
    from lightning_cifar import cli
    from lightning_cifar.commands import lr_find

    told = dict(re.findall(r"^  ([\w-]+) {2,}(\S.*)$", cli.USAGE, flags=re.M))
    names = re.findall(r"\[(-[\w-]+)\]", cli.USAGE.partition("\n")[0])
    top = [Option(("-h", "--help") if name == "-h" else (name,), "", "flag") for name in names]
    of_runs = _run_options()
    shared = [option for option in of_runs["fit"] if all(option in options for options in of_runs.values())]
    classes = _class_settings()
    common = ("run", *(f"{place}:" for place in classes))
    commands: dict[str, tuple[str, ...]] = {}
    groups: dict[str, Group] = {"": Group(top), "run": Group(shared)}
    for name in cli.COMMANDS:
        if name in of_runs:
            groups[name] = Group([option for option in of_runs[name] if option not in shared])
            commands[name] = (name, *common)
            continue
        module = import_module(f"lightning_cifar.{cli.MODULES[name]}")
        groups[name] = _own_group(module._parser())  # each of our commands has one
        commands[name] = (name,)
    # lr-find hands on to fit what is not its own.
    ours = groups["lr-find"].options
    taken = {*lr_find.REFUSED, "--resume", *(name for option in ours for name in option.names)}
    ours += [option for option in groups["fit"].options if not taken & {*option.names}]
    repeated = {name for option in shared for name in option.names}
    groups["lr-find"].options = [option for option in ours if not repeated & {*option.names}]
    commands["lr-find"] = ("lr-find", *common)
    return Table({name: (told.get(name, ""), commands[name]) for name in commands}, groups, classes)


# ---------------------------------------------------------------- the commands


def _own_group(parser: CommandParser) -> Group:
    """Of a command of ours, whose parser is argparse's."""
    group = Group([])
    for action in parser._actions:
        text = (action.help or "") % {**vars(action), "prog": parser.prog}
        flag = action.nargs == 0
        kind: Kind = "flag" if flag else "words" if action.choices else _path_kind(action.metavar, text, action.type)
        words = tuple(map(str, action.choices or ()))
        if not words and (found := re.fullmatch(r"\{(.*)\}", str(action.metavar))):
            kind, words = "words", tuple(found[1].split(","))
        option = Option(tuple(action.option_strings), _short(text), kind, words, action.nargs in ("+", "*", 2))
        if option.names:
            group.options.append(option)
        else:
            group.positional = option
    return group


def _path_kind(metavar: object, text: str, of: object) -> Kind:
    """Whether a file, a folder or anything is meant: by the placeholder, by the help text, or by the type."""
    if metavar == "DIR" or re.match(r"folders?\b", text, flags=re.I):
        return "folder" if "files" not in text else "file"
    if re.search(r"\bYAML\b", text, flags=re.I):
        return "yaml"
    return "file" if of is Path or str(metavar).startswith("FILE") else "any"


def _run_options() -> dict[str, list[Option]]:
    """Of the commands that Lightning has: fit, validate, test and predict."""
    from lightning_cifar.runs.arguments import Arguments
    from lightning_cifar.runs.cli import RunCLI
    from lightning_cifar.runs.folder import RunFolder

    class Enough(Exception):  # noqa: N818  # nothing went wrong: the parsers are built
        pass

    class Parsers(RunCLI):
        found: Mapping[str, ArgumentParser]

        def parse_arguments(self, parser: object, args: object) -> None:
            type(self).found = self._subcommand_parsers
            raise Enough

    with suppress(Enough):
        Parsers(Arguments("fit", ()), RunFolder())
    return {name: [_option(action) for action in parser._actions] for name, parser in Parsers.found.items()}


# ---------------------------------------------------------------- the classes


def _class_settings() -> dict[str, dict[str, list[Option]]]:
    """Settings of each public class, by the option that names a class."""
    from lightning.pytorch import callbacks as of_lightning

    from lightning_cifar import callbacks, data, models
    from lightning_cifar.runs.parser import choosable_classes

    places = {
        "model": choosable_classes(models),
        "data": choosable_classes(data),
        "trainer.callbacks": choosable_classes(callbacks)
        | choosable_classes(of_lightning, but=[of_lightning.Callback]),
    }
    table: dict[str, dict[str, list[Option]]] = {}
    for place, classes in places.items():
        found = {name: _settings(known, place) for name, known in sorted(classes.items())}
        # Those of Lightning that nothing can be said to are made to be inherited from.
        table[place] = {
            name: options
            for name, options in found.items()
            if not classes[name].__module__.startswith("lightning.") or (options and not name.startswith("Base"))
        }
    return table


def _settings(known: type, place: str) -> list[Option]:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_class_arguments(known, place, fail_untyped=False)
    options = [_option(action) for action in parser._actions]
    return [option for option in options if option.names[0].startswith(f"--{place}.")]


# ---------------------------------------------------------------- options of jsonargparse


def _option(action: argparse.Action) -> Option:
    hint = getattr(action, "_typehint", None)
    text = action.help if isinstance(action.help, str) else ""
    kind, words = _values(hint, action.option_strings[-1:], text)
    name = type(action).__name__
    if name in ("_HelpAction", "_ActionPrintConfig"):
        kind, words = "flag", ()
    elif name in ("ActionConfigFile", "_ActionConfigLoad"):
        kind, words = "yaml", ()
    elif name == "_ActionHelpClassPath":
        kind, words = "any", ()
    return Option(tuple(action.option_strings), _short(text), kind, words)


def _values(hint: object, names: Sequence[str], text: str) -> tuple[Kind, tuple[str, ...]]:
    """What a value of that type can be."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    words: list[str] = []
    for part in parts:
        if get_origin(part) is Literal:
            words += map(str, get_args(part))
        elif part is bool:
            words += ["true", "false"]
        elif isclass(part) and issubclass(part, Enum):
            words += part.__members__
    if words:
        return "words", tuple(dict.fromkeys([*words, *(["null"] if type(None) in parts else [])]))
    if Path in parts or str in parts:
        is_folder = any(re.search(r"(_dir|\.root)$", name) for name in names)
        return "folder" if is_folder else _path_kind(None, text, Path if Path in parts else str), ()
    return "any", ()


def _short(text: str) -> str:
    """The beginning of a help text on one line: its first sentence, without markup."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?([^`]*)`", r"\1", one_line(text)).replace("`", "")
    text = re.split(r"(?<=[\w)\]])\.(?:\s+(?=[A-Z])|$)|\s*Defaults?:", text)[0]
    text = "".join(letter for letter in text if letter.isprintable())
    return text if len(text) <= _WIDTH else text[: _WIDTH - 4].rsplit(" ", 1)[0] + " ..."
