"""The parser of a run's command line: each mistake in one line, and which classes can be named."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from inspect import isclass
from types import ModuleType
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from lightning_cifar import callbacks, data, models
from lightning_cifar.errors import UsageError, explain_parser_error
from lightning_cifar.models.arguments import argument_names

_PROGRAM = "lightning-cifar"
_BASES = (models.Trainable, models.Classifier, models.Regressor, data.ImageDataModule)  # made to be inherited from


def choosable_classes(module: ModuleType, but: Iterable[type] = ()) -> dict[str, type]:
    """The public classes of a module by name, without those that are made to be inherited from."""
    found = {name: value for name, value in vars(module).items() if name in module.__all__}
    return {name: value for name, value in found.items() if isclass(value) and value not in (*_BASES, *but)}


class Parser(LightningArgumentParser):
    """Tells each mistake in one line. Abbreviated options are mistakes: a typo must not choose another option."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"prog": _PROGRAM, **kwargs, "allow_abbrev": False})

    def format_help(self, *args: Any) -> str:
        """The help as plain text: docstrings, from which it is made, hold markup of Sphinx."""
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
        told = explain_parser_error(message, options=self._options(), classes=classes, settings_of=argument_names)
        raise UsageError(told) from ex

    def _options(self) -> Iterator[str]:
        """Every option of every command, with what can be set of a model and of data."""
        parsers: list[Any] = [self]
        for action in self._actions:
            parsers += action.choices.values() if isinstance(action.choices, dict) else ()
        names = (name for parser in parsers for action in parser._actions for name in action.option_strings)
        yield from dict.fromkeys(name.lstrip("-") for name in names)
        for section, module in (("model", models), ("data", data)):
            known = choosable_classes(module).values()
            yield from dict.fromkeys(f"{section}.{name}" for each in known for name in argument_names(each))


def _plain(text: str | None) -> str | None:
    """Text without reStructuredText markup.

    >>> _plain("``None``, see :func:`~lightning_cifar.schedules.lr_factor` and :mod:`math`")
    'None, see lightning_cifar.schedules.lr_factor and math'
    """
    return text and re.sub(r":[\w:]+:`~?([^`]*)`|``([^`]*)``|`([^`]*)`_*", r"\1\2\3", text)
