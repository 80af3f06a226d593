"""The arguments of a class and of its base classes, as the parser of the command line resolves them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonargparse import ArgumentParser

from lightning_cifar.errors import explain_parser_error

_NAMES: dict[type, tuple[str, ...]] = {}  # of the classes that were asked for: a parser takes 50 ms


def argument_names(kind: type) -> tuple[str, ...]:
    """Return the names of the arguments of a class.

    Example:
        >>> from lightning_cifar import MLP
        >>> argument_names(MLP)[0]
        'hidden_sizes'
    """
    if kind not in _NAMES:
        _NAMES[kind] = tuple(str(name) for name in ArgumentParser().add_class_arguments(kind, fail_untyped=False))
    return _NAMES[kind]


def parse_arguments(kind: type, arguments: Mapping[str, object]) -> dict[str, Any]:
    """Convert arguments of a class to their declared types; required arguments may be missing.

    Raises:
        ValueError: If a value has the wrong type; the message is one line that begins with the argument.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, fail_untyped=False, skip={*argument_names(kind)} - arguments.keys())
    try:
        parsed: dict[str, Any] = parser.parse_object(dict(arguments), defaults=False).as_dict()
    except Exception as error:  # of argparse, or of a user-defined type
        message = explain_parser_error(str(error), options=(), classes=(), settings_of=lambda _: ())
        raise ValueError(message.rstrip(".")) from error
    return parsed
