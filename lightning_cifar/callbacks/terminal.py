"""Tables and progress bars on the terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def progress_bar(unit: str, total: int | None, *, shown: bool = True) -> Iterator[Callable[[int], object]]:
    """Show a progress bar on standard error if it takes more than 2 s; in a log, every 10 s.

    Args:
        unit: Plural name of what is counted.
        total: Number of units, if it is known.
        shown: Whether to show it.

    Yields:
        A function that adds a number of finished units.
    """
    from tqdm import tqdm  # type: ignore[import-untyped]

    pace = {"delay": 2} if sys.stderr.isatty() else {"delay": 10, "mininterval": 10, "maxinterval": 60}
    with tqdm(total=total, unit=f" {unit}", disable=not shown, **pace) as bar:
        yield bar.update


def print_above_progress_bar(text: str) -> None:
    """Print text above a progress bar of either kind: tqdm moves its bars aside, and Rich redirects stdout."""
    from tqdm import tqdm

    tqdm.write(text)
