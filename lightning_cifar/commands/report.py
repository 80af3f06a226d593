"""The command ``lightning-cifar report``: compare runs on one page, with a table and a text."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_cifar.errors import CommandParser
from lightning_cifar.files.output import choose_output
from lightning_cifar.files.paths import expand_user


def main(args: Sequence[str]) -> int:
    """Write the report as HTML, CSV and Markdown; ``args`` follow ``lightning-cifar report``.

    Raises:
        UsageError: If a folder is not a run, no run has the metric, or the report cannot be written there.
    """
    options = _parser().parse_args(args)
    is_one = len(options.runs) == 1 and options.runs[0].is_dir()
    default = (options.runs[0] if is_one else Path()) / "report.html"
    out = choose_output(options.out or default, "report.html", ".html", ".htm")

    # NumPy and SciPy take a second to load; they are not needed for the errors above.
    from lightning_cifar.files.atomic import write_atomically
    from lightning_cifar.plots import report_html
    from lightning_cifar.studies.jobs import STUDY
    from lightning_cifar.studies.report.build import build, draw_panels
    from lightning_cifar.studies.report.comparison import compare
    from lightning_cifar.studies.report.means import write_means

    compared = compare(
        options.runs,
        metric=options.metric,
        mode=options.mode,
        target=options.target,
        baseline=options.baseline,
        compare=options.compare,
    )
    report = build(compared, shlex.join(["lightning-cifar", "report", *args]))
    content = report_html(report.page).encode()
    if is_one and (options.runs[0] / STUDY).is_file() and out.parent.samefile(options.runs[0]):
        write_means(options.runs[0], compared.runs)
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
        "report", description="Compare runs on one offline page, with intervals and paired differences."
    )
    add = parser.add_argument
    runs_help = "folder of a study, or folders of runs: runs that differ only by the seed are one arm"
    add("runs", type=expand_user, nargs="+", metavar="RUNS", help=runs_help)
    out_help = (
        "file or folder for the page (default: report.html in the folder of the study or run; for several runs, in the "
        "current folder); the table (.csv) and the text (.md) are written beside it"
    )
    add("--out", type=expand_user, metavar="PATH", help=out_help)
    add("--metric", help="metric to compare (default: the study's, or val/accuracy)")
    add("--mode", choices=("max", "min"), help="better direction of the metric (default: the study's, or by its name)")
    add("--target", type=float, help="report the time to reach this value, such as 0.6 (default: the study's)")
    add("--baseline", metavar="ARM", help="arm to compare the others with (default: the study's, or the first)")
    pairs_help = "compare with the baseline, or all arms with each other (default: the study's, or baseline)"
    add("--compare", choices=("baseline", "all"), help=pairs_help)
    add("--png", action="store_true", help="also write each panel as a PNG for a paper")
    return parser
