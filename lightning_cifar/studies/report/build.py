"""Build a report: HTML page, table of runs, text, and the panels as pictures. Does not import torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import NamedTuple

from lightning_cifar.analysis.comparisons import Difference
from lightning_cifar.files.tables import to_csv
from lightning_cifar.plots import PagePicture, ReportPage, arm_colors
from lightning_cifar.studies.report import results
from lightning_cifar.studies.report.comparison import Compared
from lightning_cifar.studies.report.curves import arm_curves, pack_curves, positions, shown_metrics, title_of
from lightning_cifar.studies.report.family import draw_family, forks
from lightning_cifar.studies.report.grid import grid_section
from lightning_cifar.studies.report.pictures import collect_pictures, png
from lightning_cifar.studies.report.tables import (
    class_map,
    count_states,
    differences_table,
    findings_of,
    has_bootstrap,
    machine_facts,
    results_table,
    runs_table,
    settings_table,
    warnings_of,
)
from lightning_cifar.studies.report.tuned import tuning_section
from lightning_cifar.studies.report.uncertainty import images_section
from lightning_cifar.studies.units import is_share, scale_of, unit_of


class StudyReport(NamedTuple):
    """Contents of the files of a report."""

    page: ReportPage
    csv: bytes
    """One row for each run, as in a study's results.csv."""
    text: str
    """Markdown."""


def build(compared: Compared, command: str) -> StudyReport:
    """Build a report."""
    rows = results.table(compared.runs, compared.arms, compared.metric, compared.mode, compared.target)
    found = results.differences(compared.runs, compared.arms, compared.metric, compared.baseline, compared.rules)
    colors = arm_colors(compared.arms, compared.baseline)
    curves = pack_curves(compared, colors)
    differences, intervals = differences_table(compared, found)
    classes, class_note = class_map(compared)
    pictures, picture_notes = collect_pictures(compared)
    family = _family_picture(compared)
    pictures = {**family, **pictures}
    sections = tuning_section(compared), grid_section(compared), images_section(compared, found)
    commands = [line for line in (compared.command, command) if line]
    facts = [("report", f"lightning-cifar {version('lightning-cifar')}, {datetime.now():%Y-%m-%d %H:%M}")]
    page = ReportPage(
        title=compared.title,
        summary=[line for line in (compared.question, _size(compared)) if line],
        warnings=warnings_of(compared, rows),
        findings=[*findings_of(compared, found), *filter(None, [compared.saved])],
        curves=curves,
        curve_notes=_curve_notes(curves["decimated"]),
        results=results_table(compared, rows),
        result_notes=_result_notes(compared, rows),
        differences=differences,
        intervals=intervals,
        difference_notes=_difference_notes(compared, found),
        sections=[each for each in sections if each is not None],
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
    criterion = compared.metric, compared.mode, compared.target
    table = to_csv(results.CSV_HEADER, results.csv_rows(compared.runs, *criterion))
    return StudyReport(page, table, _text(page, results.markdown(rows, found, *criterion), commands))


def _family_picture(compared: Compared) -> dict[str, list[PagePicture]]:
    """Return the tree of forked runs by its title; empty if no arm is a fork."""
    figure = draw_family(compared) if forks(compared) else None
    caption = "The epochs before the fork are drawn once; diamonds mark the forks."
    return {} if figure is None else {"forked runs": [PagePicture(caption, png(figure))]}


def _size(compared: Compared) -> str:
    arms, runs = len(compared.arms), len(compared.runs)
    better = "higher" if compared.mode == "max" else "lower"
    return (
        f"{arms} {'arm' if arms == 1 else 'arms'}, {runs} {'run' if runs == 1 else 'runs'}: "
        f"{count_states(compared.runs)}. Compared by {compared.metric} at the end of training; {better} is better."
    )


def _curve_notes(decimated: object) -> list[str]:
    notes = [
        "Thick lines: mean over the runs of an arm; bands: 95 % confidence interval of the mean (Student's t), for two "
        "or more runs. Thin lines: single runs; dotted: diverged or failed runs, which are not part of the mean. "
        "Smoothing (a centered moving average of each run) applies to mean and band, not to the thin lines.",
        "With seconds on the x axis, a mean is drawn at the mean time of its runs. Seconds include training and "
        "validation, but not the start of the program.",
    ]
    if isinstance(decimated, dict):
        notes.append(
            f"Curves of up to {decimated['points']} points are drawn in {decimated['pieces']} pieces, each with its "
            "minimum, maximum and mean, so peaks remain visible. metrics.csv of each run contains all points."
        )
    return notes


def _result_notes(compared: Compared, rows: Sequence[results.ArmRow]) -> list[str]:
    notes = [
        "Mean ± standard deviation over the finished runs, and the 95 % confidence interval of the mean. The best "
        "value of a run is selected on the same data and therefore slightly optimistic; compare final values.",
        "Seconds per run: training and validation without the start of the program if the run recorded the time of "
        "each epoch, as in a study; otherwise the whole command, from result.json.",
    ]
    if compared.target is not None:
        notes.append("Epochs and seconds to the target are means over the runs that reached it.")
    if results.is_clipped([interval for row in rows for interval in (row.final, row.best)], compared.metric):
        notes.append(results.CLIPPED_NOTE.lstrip("\\"))
    return notes


def _difference_notes(compared: Compared, found: Sequence[Difference]) -> list[str]:
    count = len(found)
    lines = [
        f"Final {compared.metric} of an arm minus that of the other with the same seed. All {count} intervals hold "
        "together with 95 % confidence (Bonferroni). The p-values are adjusted by Holm's method, which finds more: p "
        "can be below 0.05 although the interval contains zero, but not the reverse. A p below 0.05 is a difference."
    ]
    if compared.rules.margin is not None:
        scale, unit = scale_of(compared.metric)[0], unit_of(compared.metric)
        lines.append(
            f"Equivalent: the difference is smaller than the margin of {scale * compared.rules.margin:g}{unit}, which "
            "the study file declares, by two one-sided tests (TOST) with p below 0.05. This corresponds to a 90 % "
            "interval within the margin; the 95 % interval shown here is wider."
        )
    lines.append(
        "Better runs: share of all pairs of a run of each arm in which the first is better, with half of the ties; 50 "
        "% for equal arms. It is not the probability that the arm is better."
    )
    if has_bootstrap(found):
        lines.append(
            "Bootstrap interval: resamples the seeds (bias-corrected and accelerated) with the same confidence, but "
            "without a normal distribution. A large difference from the other interval is a reason for caution."
        )
    return lines


def _text(page: ReportPage, table: str, commands: Sequence[str]) -> str:
    """Return the report as Markdown, with the findings of the page instead of the table's shorter sentences."""
    plain = results.markdown_text
    rows = table.partition("\n\n- ")[0].rstrip("\n")
    parts = [
        f"# {plain(page.title)}",
        *map(plain, page.summary),
        "\n".join(f"- {plain(line)}" for line in [*page.warnings, *page.findings]),
        rows,
        "\n".join(f"- {plain(name)}: {plain(value)}" for name, value in page.facts),
        "\n".join(f"    {line}" for command in commands for line in command.splitlines()),  # a code block
    ]
    return "\n\n".join(parts) + "\n"


def draw_panels(compared: Compared) -> Iterator[tuple[str, bytes]]:
    """Draw the panels that are initially open, over epochs. Yields names and PNG contents."""
    from lightning_cifar.plots import ArmBand, draw_report_curves  # slow, since it imports matplotlib

    colors = dict(zip(compared.arms, arm_colors(compared.arms, compared.baseline), strict=True))
    for metric in shown_metrics(compared)[1]:
        bands = []
        for arm, curves in arm_curves(compared, metric).items():
            band = curves.band()
            n = sum(curves.counts)
            bands.append(ArmBand(arm, *colors[arm], positions(curves), *band[:3], curves.values, n))
        share = is_share(metric)
        yield metric.replace("/", "-"), png(draw_report_curves(bands, ylabel=title_of(metric), share=share))
    for pictures in _family_picture(compared).values():
        yield "family", pictures[0].content
