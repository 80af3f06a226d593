"""The arguments of a class, as the command line's parser sees them: those handed on to its bases included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonargparse import ArgumentParser

from lightning_cifar.errors import explain_parser_error


def argument_names(kind: type) -> list[str]:
    """The names of the arguments that a class takes.

    Example:
        >>> from lightning_cifar import MLP
        >>> argument_names(MLP)[0]
        'hidden_sizes'
    """
    return [str(name) for name in ArgumentParser().add_class_arguments(kind, fail_untyped=False)]


def parse_arguments(kind: type, arguments: Mapping[str, object]) -> dict[str, Any]:
    """Arguments of a class in the types that it declares; those that are not given are not asked for.

    Raises:
        ValueError: If a value has another type; one line that begins with the name of the argument.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, fail_untyped=False, skip={*argument_names(kind)} - arguments.keys())
    try:
        parsed: dict[str, Any] = parser.parse_object(dict(arguments), defaults=False).as_dict()
    except Exception as error:  # argparse's, or what a type of the user's own raises
        message = explain_parser_error(str(error), options=(), classes=(), settings_of=lambda _: ())
        raise ValueError(message.rstrip(".")) from error
    return parsed
