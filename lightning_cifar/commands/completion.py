"""The command ``lightning-cifar completion``: print a script that completes the command line in a shell.

shtab writes the script from one argparse parser with the options of all commands. Completion does not start Python.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
import types
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from typing import ClassVar, Literal, Union, get_args, get_origin

from lightning_cifar.commands.table import COMMANDS
from lightning_cifar.errors import CommandParser, one_line
from lightning_cifar.files.paths import expand_user

# bash passes "--model=Le" as three words, but shtab expects two. An option can follow a list of files.
_BASH = """
_lightning_cifar_files() {
    local word=${COMP_WORDS[COMP_CWORD]}
    [[ $word == -* ]] && compgen -W "${current_option_strings[*]}" -- "$word" || compgen -f -- "$word"
}
_lightning_cifar() {
    local word words=()
    for word in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        [[ $word == = ]] || words+=("$word")
    done
    [[ ${COMP_WORDS[COMP_CWORD]} == = ]] && words+=("")
    local COMP_WORDS=("${words[@]}") COMP_CWORD=$((${#words[@]} - 1))
    _shtab_lightning_cifar
}
complete -o bashdefault -F _lightning_cifar lightning-cifar
"""


def main(args: Sequence[str]) -> None:
    """Print the script for a shell; ``args`` are the arguments after ``lightning-cifar completion``."""
    sys.stdout.write(write_script(_parser().parse_args(args).shell))


def _parser() -> CommandParser:
    parser = CommandParser(
        "completion",
        description="Print a script that completes commands, options and values in a shell.",
        epilog="Write it to ~/.local/share/bash-completion/completions/lightning-cifar, to the file _lightning-cifar "
        "in a folder of zsh's $fpath, or to ~/.config/fish/completions/lightning-cifar.fish, and start a new shell.",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="name of the shell")
    return parser


def write_script(shell: str) -> str:
    """Return the script for a shell, with all commands, options and values."""
    import shtab

    root = argparse.ArgumentParser(prog="lightning-cifar")
    root.add_argument("--version", action="store_true", help="print the versions of the packages")
    subparsers = root.add_subparsers()
    for name, actions in _read_actions().items():
        text = COMMANDS[name].summary
        parser = subparsers.add_parser(name, description=text, help=text, add_help=False)
        for action in actions:
            _add(parser, action, shell)
    return str(shtab.complete(root, shell)) + (_BASH if shell == "bash" else "")


def _read_actions() -> dict[str, list[argparse.Action]]:
    """Read the options and positional arguments of each command from its parser."""
    from lightning_cifar.commands.lr_find import REFUSED
    from lightning_cifar.runs.arguments import Arguments
    from lightning_cifar.runs.cli import RunCLI
    from lightning_cifar.runs.folder import RunFolder

    class ParsersBuilt(BaseException):
        pass

    class Parsers(RunCLI):
        built: ClassVar[dict[str, argparse.ArgumentParser]] = {}

        def parse_arguments(self, parser: object, args: object) -> None:
            self.built.update(self._subcommand_parsers)
            raise ParsersBuilt

    for name, command in COMMANDS.items():
        if not command.module:
            with suppress(ParsersBuilt):
                Parsers(Arguments(name, ()), RunFolder())
    settings = list(_class_settings())
    found = {name: [*parser._actions, *settings] for name, parser in Parsers.built.items()}
    found["fit"].append(argparse.Action(["--resume"], "resume", metavar="DIR", help="continue an interrupted run"))
    for name, command in COMMANDS.items():
        if command.module:
            found[name] = import_module(f"lightning_cifar.commands.{command.module}")._parser()._actions
    for name, refused in (
        ("lr-find", {*REFUSED, "--resume"}),
        ("fork", {"--ckpt_path", "--resume", "--seed_everything"}),
    ):
        found[name] += [action for action in found["fit"] if not {*action.option_strings} & refused]
    return found


def _class_settings() -> Iterator[argparse.Action]:
    """Yield the options that take a public class, and the settings of all these classes."""
    from jsonargparse import ArgumentParser
    from lightning.pytorch import callbacks as lightning_callbacks

    from lightning_cifar import callbacks, data, models
    from lightning_cifar.runs.parser import choosable_classes

    for names, modules in {
        ("--model", "--model.help"): [models],
        ("--data", "--data.help"): [data],
        ("--trainer.callbacks", "--trainer.callbacks+", "--trainer.callbacks.help"): [lightning_callbacks, callbacks],
    }.items():
        classes = {name: value for module in modules for name, value in choosable_classes(module).items()}
        yield argparse.Action(names, names[0], choices=sorted(classes))
        for value in classes.values():
            parser = ArgumentParser()
            parser.add_class_arguments(value, names[0][2:], fail_untyped=False)
            yield from (action for action in parser._actions if action.option_strings[0].startswith(f"{names[0]}."))


def _add(parser: argparse.ArgumentParser, action: argparse.Action, shell: str) -> None:
    """Add an option or a positional argument, or the values of an option to those of the same name."""
    # In zsh, an option that ends with "=" takes its value after "=" or as the next word.
    names = [f"{name}=" if shell == "zsh" and action.nargs != 0 else name for name in action.option_strings]
    text = one_line((action.help or "") % {**vars(action), "prog": parser.prog}).replace("`", "").replace("%", "%%")
    text = textwrap.shorten(text.split(". ")[0], 76, placeholder=" ...")
    found = [each for each in parser._actions if {*each.option_strings} & {*names}]
    if action.nargs == 0:
        if not found:
            parser.add_argument(*names, action="store_true", help=text)
        return
    for each in found or [parser.add_argument(*(names or [action.dest]), nargs=action.nargs, help=text)]:
        _set_values(each, action)


def _set_values(added: argparse.Action, action: argparse.Action) -> None:
    """Copy the values of an option: choices, Literals and bools, or YAML files, folders or files."""
    import shtab

    hint = getattr(action, "_typehint", action.type)
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    values = [*(added.choices or ()), *(action.choices or ())]
    for kind in kinds:
        values += get_args(kind) if get_origin(kind) is Literal else ("true", "false") if kind is bool else ()
    vars(added).pop("complete", None)  # the attribute that shtab reads
    if values:
        added.choices = [*dict.fromkeys(map(str, values))]
    elif action.dest in ("config", "trainer", "study"):
        vars(added)["complete"] = shtab.glob("*.yaml", "*.yml")
    elif (action.metavar == "DIR" and action.nargs is None) or action.dest.endswith(("_dir", ".root")):
        vars(added)["complete"] = shtab.DIRECTORY
    elif {str, expand_user, None} & {*kinds}:
        vars(added)["complete"] = {**shtab.FILE, "bash": "_lightning_cifar_files"}
