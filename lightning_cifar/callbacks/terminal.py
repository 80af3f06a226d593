"""Tables of the callbacks on the terminal."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def new_table(**options: Any) -> Table:
    """Make a Rich table with lines that the output can show."""
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else box.ASCII, **options)


def render_table(table: Table, width: int) -> str:
    """Return a Rich table as text: as wide as the terminal, or ``width`` characters in a file."""
    from rich.console import Console

    terminal, text = sys.stdout.isatty(), io.StringIO()
    Console(file=text, force_terminal=terminal, width=None if terminal else width, highlight=False).print(table)
    return text.getvalue().rstrip("\n")


def print_above_progress_bar(text: str) -> None:
    """Print text above a progress bar of either kind: tqdm moves its bars aside, and Rich redirects stdout."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    tqdm.write(text)
