"""CSV files that a spreadsheet shows unchanged."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-](inf|nan)")


def to_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    r"""Return a CSV file with a header line.

    A spreadsheet evaluates text that starts with one of ``= + - @``, a tab or a carriage return as a formula. Such text
    gets an apostrophe in front; numbers are unchanged.

    Example:
        >>> to_csv(["class", "change"], [["=1+1", -0.5], ["-0.25", "-1+2"]])
        b"class,change\n'=1+1,-0.5\n-0.25,'-1+2\n"
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_plain(name) for name in header])
    writer.writerows([_plain(cell) for cell in row] for row in rows)
    return text.getvalue().encode("utf-8", "replace")


def _plain(cell: object) -> object:
    if isinstance(cell, str) and cell[:1] in tuple("=+-@\t\r") and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell
