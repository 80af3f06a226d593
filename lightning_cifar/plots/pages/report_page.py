"""Comparison of runs on a self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lightning_cifar.plots.pages.page import PagePicture, cells, document, escape, figures, heads, paragraphs

# The scripts draw on a canvas: plotly.js takes half of the 10 MB that a page may have, and is slow with the hundred
# thousands of points of many runs.
_SCRIPTS = ("report_series.js", "report_panel.js", "report_mouse.js")
# Colours for all common kinds of colour vision (Okabe & Ito 2008, without the pale yellow). Dashes distinguish further
# arms. The baseline is black.
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
<span class="quiet">drag to zoom, double-click to reset, click an arm to hide it</span></div>"""


class ReportTable(NamedTuple):
    """Texts in rows. The name of a column with numbers ends in ``*``."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Interval(NamedTuple):
    """A mean with its interval; NaN for missing values."""

    mean: float
    low: float
    high: float


class HeatMap(NamedTuple):
    """Values in [0, 1] by arm and class; NaN for missing values."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: ArrayLike


class ReportSection(NamedTuple):
    """A further part of a page: a table with pictures and notes."""

    name: str
    """Name of the table, as its id."""
    title: str
    table: ReportTable
    pictures: Sequence[PagePicture] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class ReportPage:
    """Content of a page.

    Attributes:
        title: Title of the page.
        summary: Question and number of runs.
        warnings: Warnings at the top.
        findings: Conclusions.
        curves: Input of ``report_series.js``: arms, metrics, packed arrays.
        curve_notes: Explanation of the curves.
        results: A row for each arm.
        result_notes: Explanation of the results.
        differences: A row for each arm except the baseline; empty for a single arm.
        intervals: Intervals of these rows.
        difference_notes: Explanation of the differences.
        sections: Further parts, such as the tuning of the arms.
        classes: Values by class, or None.
        class_note: Explanation of these values.
        settings: Settings that differ between the arms.
        pictures: Pictures by title.
        picture_notes: Notes, such as pictures that were left out.
        runs: A row for each run.
        facts: Names and values, such as versions and the machine.
        command: Command that repeats the runs.
        colors: Colours of the arms by name.
    """

    title: str
    summary: Sequence[str]
    warnings: Sequence[str]
    findings: Sequence[str]
    curves: Mapping[str, object]
    curve_notes: Sequence[str]
    results: ReportTable
    result_notes: Sequence[str]
    differences: ReportTable
    intervals: Sequence[Interval]
    difference_notes: Sequence[str]
    sections: Sequence[ReportSection]
    classes: HeatMap | None
    class_note: str
    settings: ReportTable
    pictures: Mapping[str, Sequence[PagePicture]]
    picture_notes: Sequence[str]
    runs: ReportTable
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
    """Return the page as text. Markup in names is escaped."""
    # Without "<" the JSON cannot end its element.
    curves = json.dumps(page.curves, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = [
        f"<h1>{escape(page.title)}</h1>",
        *(f"<p>{escape(line)}</p>" for line in page.summary),
        paragraphs(page.warnings, "warn"),
        "<h2>What can be concluded</h2>",
        '<ul id="findings">' + "".join(f"<li>{escape(line)}</li>" for line in page.findings) + "</ul>",
        _curves(page),
        f"<h2>Results</h2>\n{_table(page.results, 'results', page.colors)}",
        paragraphs(page.result_notes),
        _differences(page),
        *(_section(each, page.colors) for each in page.sections),
        _classes(page),
        f"<h2>What differs between the arms</h2>\n{_table(page.settings, 'settings', {})}"
        if page.settings.rows
        else "",
        _pictures(page),
        '<h2>Runs and how to repeat them</h2>\n<dl id="facts">'
        + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in page.facts)
        + "</dl>",
        f'<pre id="command">{escape(page.command)}</pre>',
        f"<details><summary>All {len(page.runs.rows)} runs</summary>{_table(page.runs, 'runs', page.colors)}</details>",
        f'<script type="application/json" id="curves">{curves}</script>',
        *(f"<script>\n{_file(name)}</script>" for name in _SCRIPTS),
    ]
    return document(page.title, "script-src 'unsafe-inline'; img-src data:", _file("report_page.css") + "\n", parts)


def _curves(page: ReportPage) -> str:
    arms = page.curves["arms"]
    assert isinstance(arms, list)
    legend = ""
    for arm in arms:
        name, color, dash = (escape(str(arm[key])) for key in ("name", "color", "dash"))
        legend += (
            f'<button data-arm="{name}" aria-pressed="true"><svg width="26" height="8" aria-hidden="true">'
            f'<line x1="0" y1="4" x2="26" y2="4" stroke="{color}" stroke-width="3" stroke-dasharray="{dash}"/>'
            f"</svg>{name}</button>"
        )
    parts = [
        "<section>",
        "<h2>Curves</h2>",
        _CONTROLS,
        f'<div class="legend">{legend}</div>',
        '<div id="panels"></div>',
    ]
    return "\n".join([*parts, _PANEL, paragraphs(page.curve_notes), "</section>"])


def _table(
    table: ReportTable, name: str, colors: Mapping[str, str], extra: Sequence[str] = (), extra_head: str = ""
) -> str:
    """A table whose first column has names; ``extra`` is markup of a last column."""
    rows = []
    for index, row in enumerate(table.rows):
        mark = f'<i class="mark" style="border-color:{escape(colors[row[0]])}"></i>' if row[0] in colors else ""
        last = f"<td>{extra[index]}</td>" if extra else ""
        others = cells("td", table.head[1:], row[1:])
        rows.append(f'<tr><td class="name">{mark}{escape(row[0])}</td>{others}{last}</tr>')
    head = heads(table.head) + (f"<th>{extra_head}</th>" if extra else "")
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
    return f"<h2>Paired differences</h2>\n{table}\n{paragraphs(page.difference_notes)}"


def _section(section: ReportSection, colors: Mapping[str, str]) -> str:
    pictures = f'<div class="pictures">{figures(section.pictures, section.title)}</div>' if section.pictures else ""
    table = _table(section.table, section.name, colors)
    return f"<h2>{escape(section.title)}</h2>\n{table}\n{pictures}{paragraphs(section.notes)}"


class _Scale:
    """Small drawings of intervals around zero, on the same scale."""

    width, margin = 220, 26

    def __init__(self, intervals: Sequence[Interval]) -> None:
        ends = [abs(value) for each in intervals for value in each if np.isfinite(value)]
        self.limit = max(ends, default=0.0) or 1.0

    def x(self, value: float) -> float:
        return self.width / 2 + value / self.limit * (self.width / 2 - self.margin)

    def mark(self, interval: Interval) -> str:
        middle = self.width / 2
        shapes = f'<line x1="{middle}" y1="0" x2="{middle}" y2="26" stroke="#999" stroke-dasharray="2 2"/>'
        mean, low, high = interval
        color = "#0072b2" if low > 0 or high < 0 else "#777"
        if np.isfinite(low):
            shapes += (
                f'<line x1="{self.x(low):.1f}" y1="13" x2="{self.x(high):.1f}" y2="13" stroke="{color}" '
                'stroke-width="3"/>'
            )
        if np.isfinite(mean):
            shapes += f'<circle cx="{self.x(mean):.1f}" cy="13" r="5" fill="{color}"/>'
        return f'<svg width="{self.width}" height="26" role="img" aria-label="interval">{shapes}</svg>'

    def axis(self) -> str:
        words = [
            f'<text x="{self.x(value):.1f}" y="14" text-anchor="middle" font-size="12">{label}</text>'
            for value, label in ((-self.limit, f"-{self.limit:.3g}"), (0, "0"), (self.limit, f"+{self.limit:.3g}"))
        ]
        return f'<svg width="{self.width}" height="18">{"".join(words)}</svg>'


def _classes(page: ReportPage) -> str:
    if page.classes is None:
        return ""
    values = np.asarray(page.classes.values, dtype=float)
    head = "".join(f"<th>{escape(name)}</th>" for name in page.classes.columns)
    rows = "\n".join(
        f'<tr><td class="name">{escape(name)}</td>{"".join(_cell(value) for value in row)}</tr>'
        for name, row in zip(page.classes.rows, values, strict=True)
    )
    return (
        f'<h2>Classes</h2>\n<div class="scroll"><table class="heat" id="classes"><thead><tr><th></th>{head}</tr>'
        f"</thead>\n<tbody>{rows}</tbody></table></div>\n{paragraphs([page.class_note])}"
    )


def _cell(value: float) -> str:
    if not np.isfinite(value):
        return '<td class="cell">-</td>'
    # From white to dark blue: the lightness shows the value, for any kind of colour vision and on paper.
    part = min(max(value, 0.0), 1.0) ** 1.2
    red, green, blue = (round(start + (end - start) * part) for start, end in ((250, 8), (251, 64), (253, 129)))
    ink = "#fff" if part > 0.6 else "#222"
    return f'<td class="cell" style="background:rgb({red},{green},{blue});color:{ink}">{100 * value:.1f}</td>'


def _pictures(page: ReportPage) -> str:
    if not page.pictures:
        return ""
    parts = ["<h2>Pictures of the runs</h2>"]
    for title, pictures in page.pictures.items():
        shown = f'<div class="pictures">{figures(pictures, title)}</div>'
        parts.append(f"<details><summary>{escape(title)}</summary>{shown}</details>")
    return "\n".join([*parts, paragraphs(page.picture_notes)])


def _file(name: str) -> str:
    return files("lightning_cifar.plots.pages").joinpath(name).read_text(encoding="utf-8")
