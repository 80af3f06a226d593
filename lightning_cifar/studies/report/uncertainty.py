"""Uncertainty of the differences by source, and resampled intervals, in a report. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_cifar.analysis.comparisons import Difference
from lightning_cifar.analysis.variance import Sources, mcnemar, variance_sources
from lightning_cifar.files.reading import BrokenFileError, MissingFileError, read_npz
from lightning_cifar.plots import ReportSection, ReportTable
from lightning_cifar.studies.jobs import CORRECT
from lightning_cifar.studies.report.comparison import Compared
from lightning_cifar.studies.report.results import RunResult, number_text, p_text

_MOST = 50  # comparisons


def images_section(compared: Compared, found: Sequence[Difference]) -> ReportSection | None:
    """Return the part of the page on both sources of variance; None if no run has recorded its correct images."""
    if compared.metric != "val/accuracy":
        return None
    correct = {(run.arm, run.seed): bits for run in compared.runs if (bits := read_correct(run)) is not None}
    rows, count = [], 0
    for each in found[:_MOST]:
        seeds = [seed for arm, seed in correct if arm == each.arm and (each.baseline, seed) in correct]
        pairs = [(correct[each.arm, seed], correct[each.baseline, seed]) for seed in seeds]
        if not pairs or len({len(bits) for pair in pairs for bits in pair}) > 1:
            continue  # none, or other images
        differences = np.array([first.astype(int) - second for first, second in pairs])
        sources, count = variance_sources(differences), differences.shape[1]
        single = [mcnemar(int((row > 0).sum()), int((row < 0).sum())) for row in differences]
        rows.append(
            [
                *(each.arm, each.baseline, f"{len(pairs)}"),
                *(number_text(100 * error) for error in (sources.seeds, sources.images, sources.total)),
                _advice(sources),
                p_text(float(np.median(single))),
            ]
        )
    if not rows:
        return None
    head = ["arm", "compared with", "pairs*", "error of the seeds (points)*", "error of the images (points)*"]
    head += ["both (points)*", "more seeds", "median p of McNemar*"]
    notes = [
        f"Standard errors of the difference in accuracy on {count:,} validation images, from the images that each run "
        "classified correctly at its end. Only the error of the seeds becomes smaller with more seeds; that of the "
        "images needs more images. Intervals and p-values above contain the error of the seeds: they hold for these "
        "images. For other images of the same kind, both errors count.",
        "McNemar's test compares two single networks, of the same seed, on these images: it says nothing about other "
        "seeds.",
    ]
    return ReportSection("images", "Seeds or images: sources of uncertainty", ReportTable(head, rows), notes=notes)


def read_correct(run: RunResult) -> NDArray[np.bool_] | None:
    """Return which validation images a finished run classified correctly at its end, (I,); None if it is unknown."""
    if run.state != "done":
        return None
    try:
        held = read_npz(run.folder / CORRECT)
    except (MissingFileError, BrokenFileError):
        return None
    bits, count = held.get("bits"), held.get("count")
    if bits is None or count is None or bits.dtype != np.uint8 or count.ndim or not 2 <= int(count) <= 8 * bits.size:
        return None
    return np.unpackbits(bits, count=int(count)).astype(bool)


def _advice(sources: Sources) -> str:
    if math.isnan(sources.seeds):
        return "needed to know their error"
    share = sources.seeds**2 / sources.total**2 if sources.total else 0.0
    return f"can reduce {share:.0%} of the variance"
