"""Explanations of images on a self-contained HTML page without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lightning_cifar.plots.pages.page import PagePicture, cells, document, escape, heads, image, paragraphs

_STYLE = """\
body {font: 15px/1.45 system-ui, sans-serif; color: #222; margin: 0 auto; max-width: 1500px; padding: 1em 1.5em 4em;}
body {overflow-wrap: anywhere;}
h1 {font-size: 1.5em; margin: .4em 0;}
h2 {font-size: 1.1em; margin: 0;}
p {margin: .5em 0; max-width: 75em;}
table {border-collapse: collapse; margin: .8em 0;}
th, td {text-align: left; padding: .15em 1.2em .15em 0; vertical-align: top;}
table.all tr + tr {border-top: 1px solid #ddd;}
th {overflow-wrap: normal; white-space: nowrap;}
td.number, th.number {text-align: right; font-variant-numeric: tabular-nums;}
section {border-top: 2px solid #bbb; margin-top: 1.6em; padding-top: .8em;}
img {max-width: 100%; height: auto; display: block;}
details {margin: .6em 0;} summary {cursor: pointer;}
.quiet {color: #666;}
"""


class Explained(NamedTuple):
    """One image on the page."""

    name: str
    summary: Sequence[str]
    """One text for each column of the page."""
    explanation: PagePicture
    """Picture with the explanation, which its caption describes."""
    more: Sequence[PagePicture] = ()
    """Pictures that open with a click."""


def explain_html(
    images: Sequence[Explained],
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
    columns: Sequence[str],
    notes: Sequence[str] = (),
) -> str:
    """Return the page as text. Markup in names is escaped.

    Args:
        images: Images of the page.
        title: Title of the page.
        facts: Names and values for all images, such as the checkpoint.
        columns: Heads of the table of all images, for their ``summary``; a name with ``*`` at its end has numbers.
        notes: Notes, such as skipped files.

    Raises:
        ValueError: A summary does not have one entry for each column.
    """
    for each in images:
        if len(each.summary) != len(columns):
            raise ValueError(f"the summary of {each.name!r} has {len(each.summary)} entries, not {len(columns)}")
    rows = [
        f'<tr><td><a href="#image-{index}">{escape(each.name)}</a></td>{cells("td", columns, each.summary)}</tr>'
        for index, each in enumerate(images, start=1)
    ]
    parts = [
        f"<h1>{escape(title)}</h1>\n<table>",
        *(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts),
        "</table>",
        paragraphs(notes),
        "<p>A window slides over the network's input and covers a part of it. The map shows how much the probability "
        "of the class drops; each pixel is the mean over all windows that cover it. Red: this part supports the class. "
        "Blue: the probability rises without it. Each map has its own scale: compare the numbers.</p>",
        f'<table class="all"><tr><th>file</th>{heads(columns)}</tr>{"".join(rows)}</table>',
        *(_section(index, each) for index, each in enumerate(images, start=1)),
    ]
    return document(title, "img-src data:", _STYLE, parts)


def _section(index: int, explained: Explained) -> str:
    first = explained.explanation
    lines = [f'<section id="image-{index}">\n<h2>{escape(explained.name)}</h2>', image(first, first.caption)]
    for more in explained.more:
        summary = f"<summary>{escape(more.caption)}</summary>"
        lines.append(f"<details>{summary}{image(more, more.caption)}</details>")
    return "\n".join([*lines, "</section>"])
