"""The command line of ``lightning-cifar doctor``: run the checks and print their results."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lightning_cifar.commands.doctor import checks
from lightning_cifar.commands.doctor.checks import Check, guarded
from lightning_cifar.commands.doctor.libraries import libraries
from lightning_cifar.errors import CommandParser
from lightning_cifar.files.paths import expand_user

_LEVELS = ("ok", "note", "fix")


def main(args: Sequence[str]) -> int:
    """Run all checks and print the results; return 1 if a command of the package would fail, otherwise 0."""
    options = _parser().parse_args(list(args))
    # In the default data folder, links out of the current folder are not followed: it may be from others.
    root, base = (Path("data"), Path()) if options.root is None else (options.root, options.root)
    names = ("processor", "memory", "disk", "packages", "pair", "browser")
    probes = {name: getattr(checks, name) for name in names} | {"libraries": partial(libraries, root, base)}
    found = [check for name, probe in probes.items() for check in guarded(name, probe)]
    found = [Check(each.name, each.level, _clean(each.text), _clean(each.fix)) for each in found]
    found.sort(key=lambda check: _LEVELS.index(check.level))
    fixes, notes = (sum(check.level == level for check in found) for level in ("fix", "note"))
    if options.json:
        print(json.dumps({"checks": [check._asdict() for check in found], "fixes": fixes}, indent=2))
    else:
        for check in found:
            print(_lines(check))
        print(f"\n{fixes} to fix, {notes} to note, {len(found) - fixes - notes} ok")
    return int(fixes > 0)


def _parser() -> CommandParser:
    parser = CommandParser(
        "doctor",
        description="Check this machine, the installed packages and the data, and print the fix of each problem. "
        "Changes nothing and sends nothing. The exit code is 1 if a problem makes a command fail.",
    )
    parser.add_argument("--root", type=expand_user, metavar="DIR", help="folder of the data (default: data)")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs and bug reports")
    return parser


def _lines(check: Check) -> str:
    """Format a check; the fix is one line, so that it can be copied."""
    head, indent = f"{check.level:<5} {check.name}: ", " " * 6
    text = textwrap.fill(head + check.text, 100, subsequent_indent=indent, break_on_hyphens=False)
    return f"{text}\n{indent}> {check.fix}" if check.fix else text


def _clean(text: str) -> str:
    """Replace control characters, and shorten paths in the current folder and the home folder (``~``)."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text.replace(os.getcwd() + os.sep, "").replace(os.path.expanduser("~") + os.sep, "~" + os.sep)
