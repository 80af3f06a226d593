"""Command line of a run, parsed once into options and values, without torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lightning_cifar.configuration import parse_configuration, read_configuration

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_CONFIG = ("-c", "--config")
_SECTIONS = ("--model", "--data")


@dataclass(frozen=True)
class Arguments:
    """A command and its arguments.

    Example:
        >>> Arguments("test", ("--ckpt_path=best.ckpt", "--data", "MNISTDataModule")).get("--ckpt_path")
        'best.ckpt'
    """

    command: str
    args: tuple[str, ...]

    @cached_property
    def pairs(self) -> tuple[tuple[str, str | None], ...]:
        """Options with their values, for ``--a b`` and ``--a=b``; None for an option without a value."""
        return tuple((option, value) for option, value, _ in self._parts())

    def get(self, *options: str) -> str | None:
        """Return the last value of an option, or None if it is not given."""
        return next((value for option, value in reversed(self.pairs) if option in options), None)

    def has(self, *options: str) -> bool:
        """Return whether one of the options is given, with or without a value."""
        return any(option in options for option, _ in self.pairs)

    def replace(self, option: str, *new: str) -> Arguments:
        """Return the arguments without an option and its value, followed by ``new``."""
        kept = [arg for name, _, args in self._parts() if name != option for arg in args]
        return Arguments(self.command, (*kept, *new))

    def map(self, options: Sequence[str], change: Callable[[str], str]) -> Arguments:
        """Return the arguments with changed values of some options."""
        changed: list[str] = []
        for name, value, args in self._parts():
            changed += args if name not in options or value is None else (name, change(value))
        return Arguments(self.command, tuple(changed))

    @cached_property
    def configurations(self) -> dict[str, Any]:
        """Contents of the ``--config`` files by path. A value of several lines is the content itself.

        Raises:
            UsageError: If a file cannot be read, or does not contain settings.
        """
        given = [value for option, value in self.pairs if option in _CONFIG and value]
        return {
            value: parse_configuration("the configuration", value) if "\n" in value else read_configuration(value)
            for value in given
        }

    @cached_property
    def class_paths(self) -> frozenset[str]:
        """Dotted names in the command line and its configurations: these classes may be imported."""
        written = [value for _, value in self.pairs if value is not None]
        return dotted_names([*written, *self.configurations.values()])

    @cached_property
    def named_classes(self) -> frozenset[str]:
        """Dotted names of classes, not of files, that the user wrote: a checkpoint may name them too."""
        written = [value for option, value in self.pairs if option in _SECTIONS or option.endswith(".class_path")]
        sections = [content.get(option[2:]) for content in self.configurations.values() for option in _SECTIONS]
        texts = [section for section in sections if isinstance(section, str)]
        found = [name for content in self.configurations.values() for name in _class_paths(content)]
        return dotted_names([*written, *texts, *found])

    def configures(self, section: str) -> bool:
        """Return whether the user gives a section, ``model`` or ``data``."""
        return self.has(f"--{section}") or any(section in content for content in self.configurations.values())

    def class_of(self, section: str) -> str | None:
        """Return the name of the class of a section, ``model`` or ``data``; None if it is not certain."""
        given = [content[section] for content in self.configurations.values() if section in content]
        given += [value for option, value in self.pairs if option in (f"--{section}", f"--{section}.class_path")]
        last = given[-1] if given else None
        name = last.get("class_path") if isinstance(last, dict) else last
        return name if isinstance(name, str) else None

    def _parts(self) -> Iterator[tuple[str, str | None, tuple[str, ...]]]:
        """Yield each option, its value, and its arguments. Arguments without an option have an empty name."""
        pending = list(self.args)
        while pending:
            arg = pending.pop(0)
            option, equals, value = arg.partition("=")
            if not arg.startswith("-"):
                yield "", arg, (arg,)
            elif equals:
                yield option, value, (arg,)
            elif pending and not pending[0].startswith("--"):
                value = pending.pop(0)
                yield arg, value, (arg, value)
            else:
                yield arg, None, (arg,)


def _class_paths(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield value.get("class_path")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _class_paths(item)


def dotted_names(value: object) -> frozenset[str]:
    """Find the texts in nested lists and dictionaries that can be the path of a class.

    Example:
        >>> dotted_names({"class_path": "small.Small", "init_args": {"lr": 0.1, "activation": "relu"}})
        frozenset({'small.Small'})
    """
    if isinstance(value, str):
        return frozenset([value] if _DOTTED.fullmatch(value) else [])
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return frozenset().union(*map(dotted_names, items))
