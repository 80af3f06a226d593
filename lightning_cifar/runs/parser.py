"""Parser of the command line of a run, with errors in one line, and the classes that can be named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from inspect import isclass
from types import ModuleType, NoneType
from typing import Any, Literal, NoReturn, get_args

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.cli import LightningArgumentParser

from lightning_cifar import callbacks, data, models
from lightning_cifar.errors import UsageError, explain_parser_error
from lightning_cifar.models.arguments import argument_names

_PROGRAM = "lightning-cifar"
_BASES = (models.Trainable, models.Classifier, models.Regressor, data.ImageDataModule)  # base classes


def choosable_classes(module: ModuleType) -> dict[str, type]:
    """Return the public classes of a module by name, without base classes."""
    found = {name: value for name, value in vars(module).items() if name in module.__all__}
    return {name: value for name, value in found.items() if isclass(value) and value not in _BASES}


def check_nulls(section: str, settings: Namespace) -> None:
    """Refuse null, which jsonargparse accepts, for an argument of a class whose type does not allow it."""
    nulls = [name for name, value in (settings.get("init_args") or {}).items() if value is None]
    if not nulls:
        return
    module, _, name = settings["class_path"].rpartition(".")
    parser = ArgumentParser()
    parser.add_class_arguments(getattr(import_module(module), name), fail_untyped=False)
    for action in parser._actions:
        hint = getattr(action, "_typehint", action.type)
        takes_null = action.default is None or any(each in (Any, None, NoneType) for each in (hint, *get_args(hint)))
        if action.dest in nulls and not takes_null:
            raise UsageError(f"{section}.{action.dest} (=null) needs a value: leave it out for {action.default}.")


def allow_value(parser: ArgumentParser, name: str, value: str) -> None:
    """Allow a further value of an option, which is written first in the help and in messages."""
    action: Any = next(action for action in parser._actions if action.dest == name)
    action._typehint = Literal[value] | action._typehint


class Parser(LightningArgumentParser):
    """Reports each error in one line. Options cannot be abbreviated, so that a typo does not select another option."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"prog": _PROGRAM, **kwargs, "allow_abbrev": False})

    def format_help(self, *args: Any) -> str:
        """Return the help as plain text, without the Sphinx markup of the docstrings."""
        self.prog = self.prog.replace(" [options]", "")  # a command comes first
        if found := re.fullmatch(r"Help for --([\w.]+)\.help=(?:\w+\.)*(\w+)", self.description or ""):
            self.prog = f"{_PROGRAM} fit --{found[1]} {found[2]}"
        for group in self._action_groups:
            group.title, group.description = _plain(group.title), _plain(group.description)
        for action in self._actions:
            action.help = _plain(action.help)
        return super().format_help(*args)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        classes = [known for module in (models, data, callbacks) for known in choosable_classes(module).values()]
        explained = explain_parser_error(message, options=self._options(), classes=classes, settings_of=argument_names)
        raise UsageError(explained) from ex

    def _options(self) -> Iterator[str]:
        """Yield the options of all commands, and the settings of all models and data modules."""
        parsers: list[Any] = [self]
        for action in self._actions:
            parsers += action.choices.values() if isinstance(action.choices, dict) else ()
        names = (name for parser in parsers for action in parser._actions for name in action.option_strings)
        yield from dict.fromkeys(name.lstrip("-") for name in names)
        for section, module in (("model", models), ("data", data)):
            known = choosable_classes(module).values()
            yield from dict.fromkeys(f"{section}.{name}" for each in known for name in argument_names(each))


def _plain(text: str | None) -> str | None:
    """Remove reStructuredText markup.

    >>> _plain("``None``, see :func:`~lightning_cifar.schedules.lr_factor` and :mod:`math`")
    'None, see lightning_cifar.schedules.lr_factor and math'
    """
    return text and re.sub(r":[\w:]+:`~?([^`]*)`|``([^`]*)``|`([^`]*)`_*", r"\1\2\3", text)
