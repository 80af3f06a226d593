"""A comparison of runs on one page that needs nothing but itself: no network, no file beside it."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

# Whatever a page holds, a browser that keeps to this line asks the network for nothing.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)
# Drawn by our own script on a canvas: plotly.js alone takes half of the 10 MB that a page may have, and draws the
# hundred thousands of points of many runs as slowly as a browser can lay out paths.
_SCRIPTS = ("report_series.js", "report_panel.js", "report_mouse.js")
# Told apart by all common kinds of colour vision (Okabe & Ito 2008, with yellow, which is pale on white, left out), and
# by their dashes where there are more arms than colours. The baseline is black.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255")
_DASHES = ("", "6 3", "2 2", "8 3 2 3")
_PANEL = """\
<template id="panel"><section class="panel"><header><select aria-label="metric"></select>
<button class="reset" hidden>show all</button></header>
<div class="plot"><canvas role="img" aria-label="curves of the metric chosen above"></canvas><canvas></canvas>
<div class="tip" hidden></div></div><p class="note quiet"></p></section></template>"""
_CONTROLS = """\
<div class="controls"><span class="axes" role="group" aria-label="horizontal axis">
<button data-axis="step" aria-pressed="false">step</button><button data-axis="epoch" aria-pressed="true">epoch</button>
<button data-axis="seconds" aria-pressed="false">seconds</button></span>
<label><input type="checkbox" id="log"> logarithmic</label>
<label>smoothing <input type="range" id="smooth" min="0" max="100" value="0">
<output id="smooth-text">off</output></label>
<span class="quiet">drag a box to zoom, double-click to show all, click an arm to hide it</span></div>"""


class Table(NamedTuple):
    """Words in rows. The name of a column that ends in ``*`` is of numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Interval(NamedTuple):
    """A mean with its interval; NaN where there is none."""

    mean: float
    low: float
    high: float


class HeatMap(NamedTuple):
    """Values in [0, 1] by arm and class, NaN where there is none."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: ArrayLike


class PagePicture(NamedTuple):
    """An image file to be put into the page."""

    caption: str
    content: bytes
    kind: str


@dataclass(frozen=True)
class ReportPage:
    """All that a page says.

    Attributes:
        title: of the page.
        summary: under it: the question, how many runs there are.
        warnings: what a reader must know before anything else.
        findings: what can be concluded, and what cannot.
        curves: what ``report_series.js`` reads: arms, metrics, packed arrays.
        curve_notes: how to read the curves.
        results: a row for each arm.
        result_notes: how to read it.
        differences: a row for each arm but the baseline; empty for a single arm.
        intervals: of these rows.
        difference_notes: how to read them.
        classes: per-class values, or None.
        class_note: what they are.
        settings: what differs between the arms.
        pictures: by title.
        picture_notes: such as what was left out.
        runs: a row for each run.
        facts: names and values: versions, machine.
        command: to repeat.
        colors: of the arms, by name.
    """

    title: str
    summary: Sequence[str]
    warnings: Sequence[str]
    findings: Sequence[str]
    curves: Mapping[str, object]
    curve_notes: Sequence[str]
    results: Table
    result_notes: Sequence[str]
    differences: Table
    intervals: Sequence[Interval]
    difference_notes: Sequence[str]
    classes: HeatMap | None
    class_note: str
    settings: Table
    pictures: Mapping[str, Sequence[PagePicture]]
    picture_notes: Sequence[str]
    runs: Table
    facts: Sequence[tuple[str, str]]
    command: str
    colors: Mapping[str, str] = field(default_factory=dict)


def arm_colors(arms: Sequence[str], baseline: str) -> list[tuple[str, str]]:
    """Colour and dashes of each arm."""
    others = [arm for arm in arms if arm != baseline]
    styles = {
        arm: (_COLORS[i % len(_COLORS)], _DASHES[i // len(_COLORS) % len(_DASHES)]) for i, arm in enumerate(others)
    }
    return [styles.get(arm, ("#000000", "")) for arm in arms]


def report_html(page: ReportPage) -> str:
    """The page as text. All words are shown as they are: none can become markup."""
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{_text(page.title)}</title>\n<style>\n{_file('report_page.css')}</style>\n</head>\n<body>\n"
    )
    parts = [
        f"<h1>{_text(page.title)}</h1>",
        *(f"<p>{_text(line)}</p>" for line in page.summary),
        *(f'<p class="warn">{_text(line)}</p>' for line in page.warnings),
        "<h2>What can be concluded</h2>",
        '<ul id="findings">' + "".join(f"<li>{_text(line)}</li>" for line in page.findings) + "</ul>",
        _curves(page),
        f"<h2>Results</h2>\n{_table(page.results, 'results', page.colors)}",
        _notes(page.result_notes),
        _differences(page),
        _classes(page),
        _settings(page),
        _pictures(page),
        '<h2>Runs and how to repeat them</h2>\n<dl id="facts">'
        + "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in page.facts)
        + "</dl>",
        f'<pre id="command">{_text(page.command)}</pre>',
        f"<details><summary>All {len(page.runs.rows)} runs</summary>{_table(page.runs, 'runs', page.colors)}</details>",
        '<script type="application/json" id="curves">' + _json(page.curves) + "</script>",
        *(f"<script>\n{_file(name)}</script>" for name in _SCRIPTS),
    ]
    return head + "\n".join(part for part in parts if part) + "\n</body>\n</html>\n"


def _curves(page: ReportPage) -> str:
    legend = "".join(
        f'<button data-arm="{_text(arm)}" aria-pressed="true">{_line(color, dash)}{_text(arm)}</button>'
        for arm, color, dash in _arms(page.curves)
    )
    parts = [
        "<section>",
        "<h2>Curves</h2>",
        _CONTROLS,
        f'<div class="legend">{legend}</div>',
        '<div id="panels"></div>',
    ]
    return "\n".join([*parts, _PANEL, _notes(page.curve_notes), "</section>"])


def _arms(curves: Mapping[str, object]) -> list[tuple[str, str, str]]:
    arms = curves["arms"]
    assert isinstance(arms, list)
    return [(str(arm["name"]), str(arm["color"]), str(arm["dash"])) for arm in arms]


def _line(color: str, dash: str) -> str:
    return (
        f'<svg width="26" height="8" aria-hidden="true"><line x1="0" y1="4" x2="26" y2="4" stroke="{_text(color)}" '
        f'stroke-width="3" stroke-dasharray="{_text(dash)}"/></svg>'
    )


def _notes(lines: Sequence[str]) -> str:
    return "".join(f'<p class="quiet">{_text(line)}</p>' for line in lines)


def _table(table: Table, name: str, colors: Mapping[str, str], extra: Sequence[str] = (), extra_head: str = "") -> str:
    """The first column holds names; ``extra`` is markup for a last column."""
    kinds = [' class="number"' if column.endswith("*") else "" for column in table.head]
    head = "".join(f"<th{kind}>{_text(word.rstrip('*'))}</th>" for kind, word in zip(kinds, table.head, strict=True))
    rows = []
    for index, row in enumerate(table.rows):
        mark = f'<i class="mark" style="border-color:{_text(colors[row[0]])}"></i>' if row[0] in colors else ""
        cells = [f'<td class="name">{mark}{_text(row[0])}</td>']
        cells += [f"<td{kind}>{_text(word)}</td>" for kind, word in zip(kinds[1:], row[1:], strict=True)]
        rows.append(f"<tr>{''.join(cells)}{f'<td>{extra[index]}</td>' if extra else ''}</tr>")
    head += f"<th>{extra_head}</th>" if extra else ""
    return (
        f'<div class="scroll"><table id="{name}"><thead><tr>{head}</tr></thead>\n<tbody>'
        + "\n".join(rows)
        + "</tbody></table></div>"
    )


def _differences(page: ReportPage) -> str:
    if not page.differences.rows:
        return ""
    scale = _Scale(page.intervals)
    marks = [scale.mark(each) for each in page.intervals]
    table = _table(page.differences, "differences", page.colors, marks, scale.axis())
    return f"<h2>Paired differences</h2>\n{table}\n{_notes(page.difference_notes)}"


class _Scale:
    """Intervals around zero as small drawings under one another."""

    width, margin = 340, 26

    def __init__(self, intervals: Sequence[Interval]) -> None:
        ends = [abs(value) for each in intervals for value in each if np.isfinite(value)]
        self.limit = max(ends, default=0.0) or 1.0

    def place(self, value: float) -> float:
        return self.width / 2 + value / self.limit * (self.width / 2 - self.margin)

    def mark(self, interval: Interval) -> str:
        middle = self.width / 2
        shapes = f'<line x1="{middle}" y1="0" x2="{middle}" y2="26" stroke="#999" stroke-dasharray="2 2"/>'
        mean, low, high = interval
        color = "#0072b2" if low > 0 or high < 0 else "#777"
        if np.isfinite(low):
            shapes += (
                f'<line x1="{self.place(low):.1f}" y1="13" x2="{self.place(high):.1f}" y2="13" stroke="{color}" '
                'stroke-width="3"/>'
            )
        if np.isfinite(mean):
            shapes += f'<circle cx="{self.place(mean):.1f}" cy="13" r="5" fill="{color}"/>'
        return f'<svg width="{self.width}" height="26" role="img" aria-label="interval">{shapes}</svg>'

    def axis(self) -> str:
        words = [
            f'<text x="{self.place(value):.1f}" y="14" text-anchor="middle" font-size="12">{label}</text>'
            for value, label in ((-self.limit, f"-{self.limit:.3g}"), (0, "0"), (self.limit, f"+{self.limit:.3g}"))
        ]
        return f'<svg width="{self.width}" height="18">{"".join(words)}</svg>'


def _classes(page: ReportPage) -> str:
    if page.classes is None:
        return ""
    values = np.asarray(page.classes.values, dtype=float)
    head = "".join(f"<th>{_text(name)}</th>" for name in page.classes.columns)
    rows = "\n".join(
        f'<tr><td class="name">{_text(name)}</td>{"".join(_cell(value) for value in row)}</tr>'
        for name, row in zip(page.classes.rows, values, strict=True)
    )
    return (
        f'<h2>Classes</h2>\n<div class="scroll"><table class="heat" id="classes"><thead><tr><th></th>{head}</tr>'
        f"</thead>\n<tbody>{rows}</tbody></table></div>\n{_notes([page.class_note])}"
    )


def _cell(value: float) -> str:
    if not np.isfinite(value):
        return '<td class="cell">-</td>'
    # From white to dark blue: lightness alone tells the value, to any kind of colour vision and on paper.
    part = min(max(value, 0.0), 1.0) ** 1.2
    red, green, blue = (round(start + (end - start) * part) for start, end in ((250, 8), (251, 64), (253, 129)))
    ink = "#fff" if part > 0.6 else "#222"
    return f'<td class="cell" style="background:rgb({red},{green},{blue});color:{ink}">{100 * value:.1f}</td>'


def _settings(page: ReportPage) -> str:
    if not page.settings.rows:
        return ""
    return f"<h2>What differs between the arms</h2>\n{_table(page.settings, 'settings', {})}"


def _pictures(page: ReportPage) -> str:
    if not page.pictures:
        return ""
    parts = ["<h2>Pictures of the runs</h2>"]
    for title, pictures in page.pictures.items():
        figures = "".join(
            f'<figure><img alt="{_text(title)}, {_text(each.caption)}" loading="lazy" '
            f'src="data:image/{each.kind};base64,{base64.b64encode(each.content).decode("ascii")}">'
            f"<figcaption>{_text(each.caption)}</figcaption></figure>"
            for each in pictures
        )
        parts.append(f'<details><summary>{_text(title)}</summary><div class="pictures">{figures}</div></details>')
    return "\n".join([*parts, _notes(page.picture_notes)])


def _json(content: Mapping[str, object]) -> str:
    """As JSON that cannot end its element."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _file(name: str) -> str:
    return files("lightning_cifar.plots.pages").joinpath(name).read_text(encoding="utf-8")


def _text(words: str) -> str:
    return html.escape(words, quote=True)
