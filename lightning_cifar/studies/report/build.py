"""A report put together: the page, the table of runs, the text, and the panels as pictures. No torch."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import NamedTuple

from lightning_cifar.files.tables import to_csv
from lightning_cifar.plots import ReportPage, arm_colors
from lightning_cifar.studies.report import results
from lightning_cifar.studies.report.comparison import Compared
from lightning_cifar.studies.report.curves import arm_curves, pack_curves, positions, shown_metrics, title_of
from lightning_cifar.studies.report.pictures import collect_pictures
from lightning_cifar.studies.report.tables import (
    class_map,
    count_states,
    differences_table,
    findings_of,
    machine_facts,
    results_table,
    runs_table,
    settings_table,
    warnings_of,
)

_DPI = 200


class Report(NamedTuple):
    """What is written."""

    page: ReportPage
    csv: bytes
    """A row for each run, as in a study's results.csv."""
    text: str
    """Markdown."""


def build(compared: Compared, command: str) -> Report:
    """Put a report together.

    Args:
        compared: the runs.
        command: that makes the report.
    """
    rows = results.table(compared.runs, compared.arms, compared.metric, compared.mode, compared.target)
    found = results.differences(compared.runs, compared.arms, compared.metric, compared.baseline)
    colors = arm_colors(compared.arms, compared.baseline)
    curves = pack_curves(compared, colors)
    differences, intervals = differences_table(compared, found)
    classes, class_note = class_map(compared)
    pictures, picture_notes = collect_pictures(compared)
    commands = [line for line in (compared.command, command) if line]
    facts = [("report", f"lightning-cifar {version('lightning-cifar')}, {datetime.now():%Y-%m-%d %H:%M}")]
    page = ReportPage(
        title=compared.title,
        summary=[line for line in (compared.question, _size(compared)) if line],
        warnings=warnings_of(compared, rows),
        findings=findings_of(compared, found),
        curves=curves,
        curve_notes=_curve_notes(curves["decimated"]),
        results=results_table(compared, rows),
        result_notes=_result_notes(compared, rows),
        differences=differences,
        intervals=intervals,
        difference_notes=_difference_notes(compared, len(found)),
        classes=classes,
        class_note=class_note,
        settings=settings_table(compared.configs),
        pictures=pictures,
        picture_notes=picture_notes,
        runs=runs_table(compared),
        facts=[*machine_facts(compared), *facts],
        command="\n".join(commands),
        colors={arm: color for arm, (color, _) in zip(compared.arms, colors, strict=True)},
    )
    table = to_csv(results.CSV_HEADER, results.csv_rows(compared.runs, *_judged(compared)))
    return Report(page, table, _text(page, results.markdown(rows, found, *_judged(compared)), commands))


def _judged(compared: Compared) -> tuple[str, str, float | None]:
    return compared.metric, compared.mode, compared.target


def _size(compared: Compared) -> str:
    arms, runs = len(compared.arms), len(compared.runs)
    better = "higher" if compared.mode == "max" else "lower"
    return (
        f"{arms} {'arm' if arms == 1 else 'arms'}, {runs} {'run' if runs == 1 else 'runs'}: "
        f"{count_states(compared.runs)}. Compared by {compared.metric} at the end of training; {better} is better."
    )


def _curve_notes(decimated: object) -> list[str]:
    notes = [
        "Strong lines: mean over the runs of an arm, with the 95 % interval of the mean (Student's t) as a band; "
        "with one run there is none. Faint lines: the single runs as they are; dotted: those that diverged or failed, "
        "which are not in the mean. Smoothing (a centred moving mean of each run) changes mean and band, never the "
        "faint lines.",
        "Over seconds, a mean stands at the mean time of its runs. Seconds are of training and validation, "
        "without start-up.",
    ]
    if isinstance(decimated, dict):
        notes.append(
            f"Curves of up to {decimated['points']} points are drawn in {decimated['pieces']} pieces: of each piece "
            "its smallest, largest and mean value are kept, so no spike is lost. All points are in each run's "
            "metrics.csv."
        )
    return notes


def _result_notes(compared: Compared, rows: Sequence[results.ArmRow]) -> list[str]:
    notes = [
        "Mean ± standard deviation over the finished runs, and the 95 % interval of the mean. The best value of a run "
        "is picked on the very data it is measured on, and so is a little too good; compare final values."
    ]
    notes.append(
        "Seconds a run: of training and validation, without start-up, where a run noted the time of each epoch, as in "
        "a study; else of the whole command, from its result.json."
    )
    if compared.target is not None:
        notes.append("Epochs and seconds to the target are means over the runs that reached it.")
    if results.is_cut([interval for row in rows for interval in (row.final, row.best)], compared.metric):
        notes.append(results.CUT_NOTE.lstrip("\\"))
    return notes


def _difference_notes(compared: Compared, count: int) -> list[str]:
    return [
        f"Final {compared.metric} of each arm minus that of {compared.baseline} with the same seed. The intervals hold "
        f"together at 95 %, and the p-values are multiplied by the number of comparisons, {count} (Bonferroni): an "
        "interval leaves out zero exactly where p is below 0.05."
    ]


def _text(page: ReportPage, table: str, commands: Sequence[str]) -> str:
    """The findings of the page stand where the table has its own sentences: they hold these and more."""
    plain = results.markdown_text
    rows = table.partition("\n\n- ")[0].rstrip("\n")
    parts = [
        f"# {plain(page.title)}",
        *map(plain, page.summary),
        "\n".join(f"- {plain(line)}" for line in [*page.warnings, *page.findings]),
        rows,
        "\n".join(f"- {plain(name)}: {plain(value)}" for name, value in page.facts),
        "\n".join(f"    {line}" for command in commands for line in command.splitlines()),  # nothing ends such a block
    ]
    return "\n\n".join(parts) + "\n"


def draw_panels(compared: Compared) -> Iterator[tuple[str, bytes]]:
    """The panels that are open at first, over epochs, as PNG with a name each."""
    from lightning_cifar.plots import ArmBand, draw_report_curves  # matplotlib, which takes a while to load

    colors = dict(zip(compared.arms, arm_colors(compared.arms, compared.baseline), strict=True))
    for metric in shown_metrics(compared)[1]:
        bands = []
        for arm, curves in arm_curves(compared, metric).items():
            band = curves.band()
            n = sum(curves.counts)
            bands.append(ArmBand(arm, *colors[arm], positions(curves, 1), *band[:3], curves.values, n))
        share = results.is_share(metric)
        figure = draw_report_curves(bands, ylabel=title_of(metric), share=share)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI)
        yield metric.replace("/", "-"), buffer.getvalue()
