"""What is told: facts, and findings with what follows from them and how to mend it. Never a name of a user or host."""

from __future__ import annotations

import os
import platform
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from lightning_cifar.errors import one_line

Level = Literal["ok", "note", "fix"]
"""``fix``: one of our commands fails or may come to harm. ``note``: slower, less, or perhaps not meant."""


class Fact(NamedTuple):
    """What there is."""

    group: str
    name: str
    value: str


class Finding(NamedTuple):
    """What was found of one matter.

    Attributes:
        matter: A short constant name, by which programs can tell findings apart.
        fix: A command, or what to do where there is none.
    """

    matter: str
    level: Level
    what: str
    consequence: str = ""
    fix: str = ""


Told = Fact | Finding
Probe = Callable[[], Iterable[Told]]


def guarded(probe: Probe, name: str) -> Iterator[Told]:
    """What a probe tells; if it breaks, that is told, and the others go on."""
    try:
        yield from probe()
    except (Exception, SystemExit) as error:
        what = f"{name} could not be looked at ({type(error).__name__}: {one_line(error)[:300]})"
        consequence = "what this would have told is missing here"
        yield Finding(name, "note", what, consequence, "please report it, with all of this")


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.3g} GB"


def command(*words: str) -> str:
    """Words as one types them in a shell."""
    return shlex.join(words)


def redact(text: str) -> str:
    """The text without names of the user and of the host, and without what a terminal would act on.

    The home folder becomes ``~``, a folder with the name of the user ``<user>``, the host ``<host>``.
    """
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    homes = {os.path.expanduser("~")}
    homes |= {os.path.realpath(home) for home in homes}
    for home in sorted(homes, key=len, reverse=True):
        if len(home) > 1:
            text = re.sub(rf"(?<![\w.~-]){re.escape(home)}(?![\w.-])", "~", text)
    users = {os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME")} | {Path(home).name for home in homes}
    for user in users - {"", "root"}:
        text = re.sub(rf"(?<=[/\\]){re.escape(user)}(?![\w.-])", "<user>", text)
    host = platform.node()
    for name in sorted({host, host.partition(".")[0]}, key=len, reverse=True):
        if len(name) > 3 and name != "localhost":
            text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", "<host>", text)
    return text
