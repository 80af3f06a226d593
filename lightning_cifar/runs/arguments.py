"""The command line of a run, parsed once into options with their values. No torch."""

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
    """A command and what follows it.

    Example:
        >>> Arguments("test", ("--ckpt_path=best.ckpt", "--data", "MNISTDataModule")).get("--ckpt_path")
        'best.ckpt'
    """

    command: str
    args: tuple[str, ...]

    @classmethod
    def parse(cls, args: Sequence[str]) -> Arguments:
        """From the words of a command line, the command first."""
        return cls(args[0], tuple(args[1:]))

    @cached_property
    def pairs(self) -> tuple[tuple[str, str | None], ...]:
        """Options with their values, whether written ``--a b`` or ``--a=b``; None for an option without one."""
        return tuple((option, value) for option, value, _ in self._parts())

    def get(self, *options: str) -> str | None:
        """The last value of an option; None if it is not given."""
        return next((value for option, value in reversed(self.pairs) if option in options), None)

    def has(self, *options: str) -> bool:
        """Whether one of the options is given, with or without a value."""
        return any(option in options for option, _ in self.pairs)

    def replace(self, option: str, *new: str) -> Arguments:
        """The same arguments, with ``new`` at the end in place of an option and its value."""
        kept = [arg for name, _, args in self._parts() if name != option for arg in args]
        return Arguments(self.command, (*kept, *new))

    def map(self, options: Sequence[str], change: Callable[[str], str]) -> Arguments:
        """The same arguments, with the values of some options changed."""
        changed: list[str] = []
        for name, value, args in self._parts():
            changed += args if name not in options or value is None else (name, change(value))
        return Arguments(self.command, tuple(changed))

    @cached_property
    def configurations(self) -> dict[str, Any]:
        """The contents of the files after ``--config`` by their paths. A value of several lines is the content itself.

        Raises:
            UsageError: If a file cannot be read, or holds no settings.
        """
        given = [value for option, value in self.pairs if option in _CONFIG and value]
        return {
            value: parse_configuration("the configuration", value) if "\n" in value else read_configuration(value)
            for value in given
        }

    @cached_property
    def class_paths(self) -> frozenset[str]:
        """The dotted names that the user wrote, here or in a configuration: such a class may be imported."""
        written = [value for _, value in self.pairs if value is not None]
        return dotted_names([*written, *self.configurations.values()])

    @cached_property
    def named_classes(self) -> frozenset[str]:
        """The dotted names that the user wrote for a class, not for a file: a checkpoint may name those too."""
        written = [value for option, value in self.pairs if option in _SECTIONS or option.endswith(".class_path")]
        sections = [content.get(option[2:]) for content in self.configurations.values() for option in _SECTIONS]
        texts = [section for section in sections if isinstance(section, str)]
        found = [name for content in self.configurations.values() for name in _class_paths(content)]
        return dotted_names([*written, *texts, *found])

    def configures(self, section: str) -> bool:
        """Whether the user gives a section, ``model`` or ``data``, a class."""
        return self.has(f"--{section}") or any(section in content for content in self.configurations.values())

    def _parts(self) -> Iterator[tuple[str, str | None, tuple[str, ...]]]:
        """Each option, its value, and the words that make them up. Words without an option have an empty name."""
        pending = list(self.args)
        while pending:
            word = pending.pop(0)
            option, equals, value = word.partition("=")
            if not word.startswith("-"):
                yield "", word, (word,)
            elif equals:
                yield option, value, (word,)
            elif pending and not pending[0].startswith("--"):
                value = pending.pop(0)
                yield word, value, (word, value)
            else:
                yield word, None, (word,)


def _class_paths(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield value.get("class_path")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _class_paths(item)


def dotted_names(value: object) -> frozenset[str]:
    """The texts in nested lists and dictionaries that can be the path of a class.

    Example:
        >>> dotted_names({"class_path": "small.Small", "init_args": {"lr": 0.1, "activation": "relu"}})
        frozenset({'small.Small'})
    """
    if isinstance(value, str):
        return frozenset([value] if _DOTTED.fullmatch(value) else [])
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return frozenset().union(*map(dotted_names, items))
