"""The parser of a run's command line: each mistake in one line, and which classes can be named."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import isclass
from types import ModuleType
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from lightning_cifar import callbacks, data, models
from lightning_cifar.errors import UsageError, explain_parser_error
from lightning_cifar.models.arguments import argument_names

_BASES = (models.Trainable, models.Classifier, models.Regressor, data.ImageDataModule)  # made to be inherited from


def choosable_classes(module: ModuleType, but: Iterable[type] = ()) -> dict[str, type]:
    """The public classes of a module by name, without those that are made to be inherited from."""
    found = {name: value for name, value in vars(module).items() if name in module.__all__}
    return {name: value for name, value in found.items() if isclass(value) and value not in (*_BASES, *but)}


class Parser(LightningArgumentParser):
    """Tells each mistake in one line. Abbreviated options are mistakes: a typo must not choose another option."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        options = [option.lstrip("-") for action in self._actions for option in action.option_strings]
        for subparsers in (action.choices for action in self._actions if isinstance(action.choices, dict)):
            for subparser in subparsers.values():
                options += [option.lstrip("-") for action in subparser._actions for option in action.option_strings]
        classes = [known for module in (models, data, callbacks) for known in choosable_classes(module).values()]
        told = explain_parser_error(message, options=options, classes=classes, settings_of=argument_names)
        raise UsageError(told) from ex
