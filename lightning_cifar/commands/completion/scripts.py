"""Completion scripts for three shells, from one table. Each does the same: it walks through the words so far.

The words say which *groups* of options there are: that of the command, one that commands share, and one of each class
that was named (``model:LeNet``; before one is named, ``model:`` with the settings of all). A group says what may
follow each of its options. Every name and text is quoted for its shell, so that none can be taken for code.

What does not depend on the table stands in completions/: the walk, which bash and zsh share, and a frame of each shell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain
from typing import Literal, NamedTuple

Kind = Literal["flag", "words", "file", "folder", "yaml", "any"]  # what follows an option; nothing follows a flag


class Option(NamedTuple):
    """One option under all its names, or what a command takes without a name.

    Attributes:
        words: What may follow, for the kind ``words``.
        many: Whether several values follow.
    """

    names: tuple[str, ...]
    help: str
    kind: Kind
    words: tuple[str, ...] = ()
    many: bool = False


@dataclass
class Group:
    """Options that come together, and what is taken without a name."""

    options: list[Option]
    positional: Option | None = None


class Table(NamedTuple):
    """Everything that can be completed.

    Attributes:
        commands: Description and names of groups of each.
        groups: The options before any command under the name of "".
        classes: Settings by class, by the option that names it: ``model``, ``data``, ``trainer.callbacks``.
    """

    commands: dict[str, tuple[str, tuple[str, ...]]]
    groups: dict[str, Group]
    classes: dict[str, dict[str, list[Option]]]

    def options(self) -> Iterator[tuple[str, list[Option]]]:
        """The options of each group, those of classes among them."""
        for name, group in self.groups.items():
            yield name, group.options
        for place, classes in self.classes.items():
            if place != "trainer.callbacks":  # of a list: one is named, then come its settings
                yield f"{place}:", _union(chain.from_iterable(classes.values()))
            for name, options in classes.items():
                yield f"{place}:{name}", options

    def values(self) -> Iterator[tuple[list[str], Option]]:
        """What follows: keys ``GROUP OPTION`` that have the same answer; options with no particular answer are none."""
        found: dict[tuple[Kind, tuple[str, ...], bool], tuple[list[str], Option]] = {}

        def add(group: str, option: Option) -> None:
            if option.kind != "any" or option.many:
                keys, _ = found.setdefault(option[2:], ([], option))
                keys += [f"{group} {name}" for name in option.names or ("",)]

        for group, options in self.options():
            for option in options:
                place = option.names[0].removeprefix("--").rstrip("+").removesuffix(".help")
                if place in self.classes:
                    option = Option(option.names, option.help, "words", tuple(self.classes[place]))
                add(group, option)
        for group, content in self.groups.items():
            if content.positional:
                add(group, content.positional)
        add("", Option((), "", "words", tuple(self.commands)))
        yield from found.values()


def _union(options: Iterable[Option]) -> list[Option]:
    """Each name once, with all the values that it can have somewhere."""
    every: dict[str, Option] = {}
    for option in options:
        for name in option.names:
            words = (*every[name].words, *option.words) if name in every else option.words
            every[name] = option._replace(names=(name,), words=tuple(dict.fromkeys(words)))
    return list(every.values())


def quote(text: str) -> str:
    """For bash and zsh, in which nothing is special within single quotes.

    >>> print(quote("it's $(here)"))
    'it'\\''s $(here)'
    """
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _described(text: str, option: Option) -> str:
    """For zsh's ``_describe``: name and description between which the colon stands."""
    return quote(text.replace("\\", "\\\\").replace(":", "\\:") + (f":{option.help}" if option.help else ""))


def _each(options: Iterable[Option], write: Callable[[str, Option], str]) -> str:
    return " ".join(write(name, option) for option in options for name in option.names)


def _cases(table: Table, write: Callable[[str, Option], str]) -> dict[str, str]:
    """The parts of a bash or zsh script that hold the table."""
    parts = {
        "groups": [f"    ({quote(name)}) groups=({' '.join(map(quote, of))}) ;;" for name, (_, of) in _commands(table)],
        "options": [f"    ({quote(name)}) found+=({_each(options, write)}) ;;" for name, options in table.options()],
        "values": [
            f"    ({'|'.join(map(quote, keys))}) kind={option.kind} many={'yes' if option.many else ''}"
            f" found=({' '.join(write(word, Option((), '', 'any')) for word in option.words)}) ;;"
            for keys, option in table.values()
        ],
        "commands": [_each([Option((name,), text, "any") for name, (text, _) in _commands(table)], write)],
    }
    return {name: "\n".join(lines) for name, lines in parts.items()}


def _commands(table: Table) -> Iterable[tuple[str, tuple[str, tuple[str, ...]]]]:
    return table.commands.items()


def _filled(parts: dict[str, str], *names: str) -> str:
    """The templates of these names one after the other, with the parts in the places that are named after them."""
    folder = files("lightning_cifar.commands.completion")
    template = "".join((folder / name).read_text(encoding="utf-8") for name in names)
    return re.sub("@([a-z]+)@", lambda found: parts[found[1]], template)


def bash(table: Table) -> str:
    """For bash from 3.2 on."""
    return _filled(_cases(table, lambda text, _: quote(text)), "walk.sh", "complete.bash")


def zsh(table: Table) -> str:
    """For zsh, with descriptions."""
    return "#compdef lightning-cifar\n" + _filled(_cases(table, _described), "walk.sh", "complete.zsh")


def fish(table: Table) -> str:
    """For fish, with descriptions."""

    def described(name: str, option: Option) -> str:
        return _fish_quote(f"{name}\t{option.help}" if option.help else name)

    def case(keys: Iterable[str], *words: str) -> str:
        return f"        case {' '.join(map(_fish_quote, keys))}\n            printf '%s\\n' {' '.join(words)}"

    parts = {
        "groups": [case([name], *map(_fish_quote, of)) for name, (_, of) in _commands(table)],
        "options": [case([name], _each(options, described)) for name, options in table.options() if options],
        "values": [
            case(keys, option.kind, "yes" if option.many else "no", *map(_fish_quote, option.words))
            for keys, option in table.values()
        ],
        "commands": [_each([Option((name,), text, "any") for name, (text, _) in _commands(table)], described)],
    }
    return _filled({name: "\n".join(lines) for name, lines in parts.items()}, "complete.fish")


RENDERERS: dict[str, Callable[[Table], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
