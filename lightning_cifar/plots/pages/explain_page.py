"""Explanations of images on one page that needs nothing but itself: no network, no script, no file beside it."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import NamedTuple

# Nothing may be loaded, from anywhere, and nothing may run.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
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


class Picture(NamedTuple):
    """An image file to be put into the page."""

    caption: str
    content: bytes
    kind: str = "png"
    """As in ``image/png``."""


class Explained(NamedTuple):
    """One image on the page."""

    name: str
    summary: Sequence[str]
    """As many as the page has columns."""
    explanation: Picture
    """Its caption says in words what can be seen."""
    more: Sequence[Picture] = ()
    """Shown when asked for."""


def explain_html(
    images: Sequence[Explained],
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
    columns: Sequence[str],
    notes: Sequence[str] = (),
) -> str:
    """The page as text. All words are shown as they are: none can become markup.

    Args:
        images: what there is to show.
        title: of the page.
        facts: names and values that hold for all images, such as the checkpoint.
        columns: heads of the table of all images, for their ``summary``; a name that ends in ``*`` holds numbers.
        notes: such as which files were left out.

    Raises:
        ValueError: a summary has not one entry for each column.
    """
    for image in images:
        if len(image.summary) != len(columns):
            raise ValueError(f"the summary of {image.name!r} has {len(image.summary)} entries, not {len(columns)}")
    classes = [' class="number"' if column.endswith("*") else "" for column in columns]
    head = "".join(f"<th{kind}>{_text(column.rstrip('*'))}</th>" for kind, column in zip(classes, columns, strict=True))
    rows = [
        f'<tr><td><a href="#image-{index}">{_text(image.name)}</a></td>'
        + "".join(f"<td{kind}>{_text(word)}</td>" for kind, word in zip(classes, image.summary, strict=True))
        + "</tr>"
        for index, image in enumerate(images, start=1)
    ]
    parts = [
        "<table>" + "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in facts),
        "</table>",
        *(f'<p class="quiet">{_text(note)}</p>' for note in notes),
        "<p>A window slides over what the network sees. At each place it covers what is there, and the map tells by "
        "how much the probability of the class falls; a pixel shows the mean over all windows that cover it. Red: the "
        "network needs this part. Blue: without it the probability rises. Each map has a scale of its own: look at its "
        "numbers before two are compared.</p>",
        f'<table class="all"><tr><th>file</th>{head}</tr>{"".join(rows)}</table>',
        *(_section(index, image) for index, image in enumerate(images, start=1)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{_text(title)}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n<h1>{_text(title)}</h1>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _section(index: int, image: Explained) -> str:
    lines = [f'<section id="image-{index}">\n<h2>{_text(image.name)}</h2>', _figure(image.explanation)]
    lines += [f"<details><summary>{_text(more.caption)}</summary>{_figure(more)}</details>" for more in image.more]
    return "\n".join([*lines, "</section>"])


def _figure(picture: Picture) -> str:
    content = base64.b64encode(picture.content).decode("ascii")
    return f'<img alt="{_text(picture.caption)}" src="data:image/{picture.kind};base64,{content}">'


def _text(words: str) -> str:
    return html.escape(words, quote=True)
