"""Parts that all HTML pages share. The content security policy of a page blocks every network access."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

_LAZY = 'loading="lazy" '


class PagePicture(NamedTuple):
    """An image file that is embedded into a page."""

    caption: str
    content: bytes
    kind: str = "png"
    """Subtype of the media type, such as ``png`` in ``image/png``."""


def document(title: str, policy: str, style: str, parts: Iterable[str]) -> str:
    """Return a complete HTML document; ``policy`` allows content in addition to inline styles."""
    policy = f"default-src 'none'; {policy}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(filter(None, parts))
        + "\n</body>\n</html>\n"
    )


def plot_page(title: str, traces: Sequence[object], layout: Mapping[str, object], name: str) -> str:
    """Return a page of about 5 MB that shows one plot and contains plotly.js; ``name`` is the id of the plot."""
    from plotly.io import to_html  # type: ignore[import-untyped,import-not-found,unused-ignore]  # takes a while to load

    plot = to_html(
        {"data": traces, "layout": layout},
        # By default plotly.js 4 has a button that uploads the data.
        config={"showSendToCloud": False, "displaylogo": False, "responsive": True},
        include_plotlyjs=True,
        full_html=False,
        div_id=name,
    )
    style = "html, body {height: 100%; margin: 0; overflow: hidden;}\n"
    return document(title, "script-src 'unsafe-inline'; img-src data: blob:", style, [plot])


def escape(text: str) -> str:
    """Escape text so that it cannot become markup, also in attributes."""
    return html.escape(text, quote=True)


def image(picture: PagePicture, alt: str, attributes: str = "") -> str:
    """Return an element with the embedded image."""
    data = base64.b64encode(picture.content).decode("ascii")
    return f'<img alt="{escape(alt)}" {attributes}src="data:image/{picture.kind};base64,{data}">'


def figures(pictures: Iterable[PagePicture], title: str) -> str:
    """Return the pictures with captions, which are loaded when they become visible."""
    return "".join(
        f"<figure>{image(each, f'{title}: {each.caption}', _LAZY)}"
        f"<figcaption>{escape(each.caption)}</figcaption></figure>"
        for each in pictures
    )


def paragraphs(lines: Iterable[str], kind: str = "quiet") -> str:
    """Return a paragraph of a CSS class for each line."""
    return "".join(f'<p class="{kind}">{escape(line)}</p>' for line in lines)


def cells(tag: str, columns: Sequence[str], texts: Sequence[str]) -> str:
    """Return cells of a table row; the name of a column with numbers ends in ``*``."""
    kinds = (' class="number"' if column.endswith("*") else "" for column in columns)
    return "".join(f"<{tag}{kind}>{escape(text)}</{tag}>" for kind, text in zip(kinds, texts, strict=True))


def heads(columns: Sequence[str]) -> str:
    """Return the head cells of a table."""
    return cells("th", columns, [column.rstrip("*") for column in columns])
