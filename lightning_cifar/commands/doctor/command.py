"""The command itself: what is looked at, in which order, and how it is shown."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_cifar.commands.doctor.findings import Fact, Finding, Probe, Told, guarded, redact
from lightning_cifar.errors import CommandParser

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH = 100
_LEVELS = ("ok", "note", "fix")
_STYLES = {"ok": "green", "note": "yellow", "fix": "bold red"}


def main(words: Sequence[str]) -> int:
    """Look at everything and tell it; 0, or 1 if something is to be mended.

    Args:
        words: Of the command line, after ``lightning-cifar doctor``.

    Raises:
        UsageError: An option is wrong.
    """
    options = _parser().parse_args(list(words))
    told = list(look(data_folders(options.root)))
    write = str if options.json else _showable
    facts = [Fact(*(write(redact(part)) for part in each)) for each in told if isinstance(each, Fact)]
    findings = [
        Finding(each.matter, each.level, *(write(redact(part)) for part in each[2:]))
        for each in told
        if isinstance(each, Finding)
    ]
    findings.sort(key=lambda finding: _LEVELS.index(finding.level))
    if options.json:
        sys.stdout.write(as_json(facts, findings))
    else:
        show(facts, findings)
    return int(any(finding.level == "fix" for finding in findings))


def _showable(text: str) -> str:
    """The text with what the terminal cannot show as its number."""
    encoding = sys.stdout.encoding or "ascii"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="lightning-cifar doctor",
        description="Show what this machine has for training, and what to mend. It changes nothing and sends nothing; "
        "names of users and hosts are left out. The exit code is 1 if there is something to fix.",
        allow_abbrev=False,
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of the data (default: data)")
    parser.add_argument("--json", action="store_true", help="for programs, and for the report of a problem")
    return parser


def data_folders(given: Path | None) -> list[Path]:
    """Where data are looked for: in the folder given, or in that of the commands and in that of the tests."""
    if given is not None:
        return [given]
    of_tests = os.environ.get("LIGHTNING_CIFAR_DATA")
    return [Path("data"), *([Path(of_tests)] if of_tests else [])]


def look(roots: Sequence[Path]) -> Iterator[Told]:
    """Everything, one matter after the other; none can take another down, not even by its import."""
    for name, probe in _probes(roots):
        yield from guarded(probe, name)


def _probes(roots: Sequence[Path]) -> Iterator[tuple[str, Probe]]:
    from lightning_cifar.commands.doctor import environment, machine

    yield "the processor", machine.processor
    yield "the memory", machine.memory
    yield "the disk", machine.disk

    def of_packages(name: str) -> Iterator[Told]:
        from lightning_cifar.commands.doctor import packages

        yield from getattr(packages, name)()

    for name in ("versions", "requirements", "pair"):
        yield f"the packages ({name})", partial(of_packages, name)
    yield "Python", environment.python

    def of_libraries() -> Iterator[Told]:
        from lightning_cifar.commands.doctor.library_process import libraries

        yield from libraries(roots)

    yield "the libraries", of_libraries
    yield "the tools", partial(of_packages, "tools")
    yield "the terminal", environment.terminal
    yield "the variables", environment.variables
    yield "the folder of runs", environment.runs_folder


def as_json(facts: Sequence[Fact], findings: Sequence[Finding]) -> str:
    """``{"facts": {group: {name: value}}, "findings": [...], "fixes": number}``."""
    groups: dict[str, dict[str, str]] = {}
    for fact in facts:
        groups.setdefault(fact.group, {})[fact.name] = fact.value
    fixes = sum(finding.level == "fix" for finding in findings)
    content = {"facts": groups, "findings": [finding._asdict() for finding in findings], "fixes": fixes}
    return json.dumps(content, indent=2) + "\n"


def show(facts: Sequence[Fact], findings: Sequence[Finding]) -> None:
    """For people: the facts by group, then the findings, what is to be mended last."""
    from rich.console import Console

    console = Console(highlight=False, emoji=False, markup=False)
    console.width = min(_WIDTH, console.width) if console.is_terminal else _WIDTH
    width = max(len(fact.name) for fact in facts) if facts else 0
    groups = dict.fromkeys(fact.group for fact in facts)
    for group in groups:
        console.print(group, style="bold")
        for fact in facts:
            if fact.group == group:
                _row(console, f"  {fact.name:<{width}}  ", fact.value)
        console.print()
    console.print("findings, and what to fix", style="bold")
    for finding in findings:
        text = f"{finding.what}: {finding.consequence}" if finding.consequence else finding.what
        _row(console, f"  {finding.level:<6}", text, style=_STYLES[finding.level])
        if finding.fix:
            # Whole, however long: it is there to be copied.
            console.print(f"        > {finding.fix}", soft_wrap=True)
    fixes, notes = (sum(finding.level == level for finding in findings) for level in ("fix", "note"))
    console.print(f"\n{fixes} to fix, {notes} to note, {len(findings) - fixes - notes} in order")


def _row(console: Console, head: str, text: str, style: str = "") -> None:
    """A line whose later lines begin where its text begins."""
    from rich.text import Text

    indent = " " * len(head)
    lines = textwrap.wrap(text, console.width - len(head), break_on_hyphens=False) or [""]
    for i, line in enumerate(lines):
        console.print(Text.assemble((indent if i else head, style), line), soft_wrap=True)
