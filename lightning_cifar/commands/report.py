"""The command ``lightning-cifar report``: one page, a table and a text on runs that are compared."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_cifar.errors import CommandParser
from lightning_cifar.files.output import choose_output
from lightning_cifar.files.paths import expand_user


def main(words: Sequence[str]) -> int:
    """Write the report, with ``.csv`` and ``.md`` beside it.

    Args:
        words: Of the command line, after ``lightning-cifar report``.

    Raises:
        UsageError: A folder holds no run, nobody has the metric, or the report cannot be written there.
        OSError: A file could not be written.
    """
    options = _parser().parse_args(list(words))
    out = choose_output(options.out or _place(options.runs), "report.html", ".html", ".htm")

    # What has been refused so far needed neither NumPy nor SciPy, which take a second to load.
    from lightning_cifar.files.atomic import write_atomically
    from lightning_cifar.plots import report_html
    from lightning_cifar.studies.report.build import build, draw_panels
    from lightning_cifar.studies.report.comparison import compare

    compared = compare(
        options.runs, metric=options.metric, mode=options.mode, target=options.target, baseline=options.baseline
    )
    report = build(compared, shlex.join(["lightning-cifar", "report", *words]))
    content = report_html(report.page).encode()
    written = {out: content, out.with_suffix(".csv"): report.csv, out.with_suffix(".md"): report.text.encode()}
    for path, each in written.items():
        write_atomically(path, each)
    names = [str(path) for path in written][1:]
    for name, picture in draw_panels(compared) if options.png else ():
        path = out.with_name(f"{out.stem}-{name}.png")
        write_atomically(path, picture)
        names.append(str(path))
    for line in [*report.page.warnings, *report.page.findings]:
        sys.stdout.write(f"- {line}\n")
    sys.stdout.write(f"report: {out} ({len(content) / 1e6:.1f} MB), {', '.join(names)}\n")
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="lightning-cifar report",
        description="Compare runs on one page that opens offline: curves, intervals, paired differences.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    runs_help = "folder of a study, or folders of runs: those that differ by the seed alone are one arm"
    add("runs", type=expand_user, nargs="+", metavar="RUNS", help=runs_help)
    out_help = (
        "the page, or a folder for report.html (default: the study's or run's folder, of several runs this one); the "
        "table and the text are written beside it, with .csv and .md"
    )
    add("--out", type=expand_user, metavar="PATH", help=out_help)
    add("--metric", help="that is compared (default: the study's, or val/accuracy)")
    add("--mode", choices=("max", "min"), help="whether more of it is better (default: the study's, or by its name)")
    add("--target", type=float, help="value whose reaching is timed, such as 0.6 (default: the study's)")
    add("--baseline", metavar="ARM", help="arm that the others are compared with (default: the study's, or the first)")
    add("--png", action="store_true", help="also each panel as a picture for a paper, beside the page")
    return parser


def _place(folders: Sequence[Path]) -> Path:
    """Where the page goes if nothing is said: to what it is about. Of a folder that is missing, another will tell."""
    alone = folders[0] if len(folders) == 1 and folders[0].is_dir() else Path()
    return alone / "report.html"
