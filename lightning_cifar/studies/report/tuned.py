"""Tuning of the arms in a report: the metric over each tuned setting, the choices, and the budget. No torch."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_cifar.plots import PagePicture, ReportSection, ReportTable, arm_colors
from lightning_cifar.studies.report.comparison import Compared
from lightning_cifar.studies.report.curves import title_of
from lightning_cifar.studies.report.pictures import png
from lightning_cifar.studies.report.results import spread_text
from lightning_cifar.studies.tuning import ArmRecord, TriedRecord
from lightning_cifar.studies.units import is_share, scale_of


def tuning_section(compared: Compared) -> ReportSection | None:
    """Return the part of the page on the tuning; None for a study without it, or before its end."""
    record = compared.tuning
    if record is None:
        return None
    arms = {arm: held for arm, held in record["arms"].items() if arm in compared.arms and _is_complete(held)}
    if not arms:
        return None
    scale, unit = scale_of(compared.metric)
    rows = []
    for arm, held in arms.items():
        best = next(each for each in held["tried"] if each["settings"] == held["chosen"])
        mean, std = _mean(best), float(np.std(_values(best), ddof=1)) if len(_values(best)) > 1 else math.nan
        chosen = ", ".join(f"{key} {value}" for key, value in held["chosen"].items())
        border = "; ".join(held.get("at_border", []))
        rows.append([arm, chosen, spread_text(scale * mean, scale * std), f"{len(held['tried'])}", border or "no"])
    head = ["arm", "chosen", f"{compared.metric}{unit}*", "settings tried*", "at the end of the range"]
    first = next(iter(arms.values()))
    notes = [
        f"Each arm was tuned with the same budget: {len(first['tried'])} settings and {record['epochs']} epochs in "
        f"all, with the seeds {', '.join(map(str, record['seeds']))}. None of them is part of the comparison, which "
        "uses the chosen setting with other seeds. Mean ± standard deviation over the tuning seeds."
    ]
    if len({each["epochs"] for each in first["tried"]}) > 1:
        notes.append("Settings that stopped early (successive halving) are drawn with their value at that time.")
    if any(held.get("at_border") for held in arms.values()):
        notes.append("A choice at the end of the range may not be the optimum: extend the range, or use widen.")
    keys = list(first["chosen"])
    pictures = [_picture(compared, arms, key) for key in keys] if compared.metric else []
    return ReportSection("tuning", "Tuning", ReportTable(head, rows), pictures, notes)


def _is_complete(held: ArmRecord) -> bool:
    """Whether the tuning of an arm has ended, and its record is consistent."""
    keys = {tuple(each["settings"]) for each in held["tried"]}
    chosen = [each for each in held["tried"] if each["settings"] == held.get("chosen") and _values(each)]
    return bool(chosen) and len(keys) == 1 and len({len(each["values"]) for each in held["tried"]}) == 1


def _picture(compared: Compared, arms: dict[str, ArmRecord], key: str) -> PagePicture:
    """Draw the metric over the values of a key, each with the best of the other keys."""
    from lightning_cifar.plots import ArmBand, draw_report_curves  # slow, since it imports matplotlib

    styles = dict(zip(compared.arms, arm_colors(compared.arms, compared.baseline), strict=True))
    values: list[Any] = []  # also lists, which have no hash
    for each in (each for held in arms.values() for each in held["tried"]):
        values += [each["settings"][key]] if each["settings"][key] not in values else []
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    values = sorted(values) if numeric else values
    bands, points = [], []
    for arm, held in arms.items():
        best = [_best(held["tried"], key, value, compared.mode) for value in values]
        found = [each for each in best if each is not None]
        shown = [each["settings"][key] for each in found]
        x = shown if numeric else [values.index(value) for value in shown]
        mean, nothing = [_mean(each) for each in found], [math.nan] * len(found)
        runs = np.array([[math.nan if value is None else value for value in each["values"]] for each in found]).T
        bands.append(ArmBand(arm, *styles[arm], x, mean, nothing, nothing, runs, len(runs)))
        at = shown.index(held["chosen"][key])
        points.append((float(x[at]), mean[at]))
    figure = draw_report_curves(
        bands,
        ylabel=f"{title_of(compared.metric)} in the tuning",
        xlabel=key,
        share=is_share(compared.metric),
        log_x=numeric and min(values) > 0,
        ticks=() if numeric else [json.dumps(value) for value in values],
        points=points,
        points_name="chosen",
    )
    return PagePicture(f"{compared.metric} over {key}; thin lines: single seeds, diamonds: choices", png(figure))


def _best(tried: Sequence[TriedRecord], key: str, value: object, mode: str) -> TriedRecord | None:
    """Return the best setting with a value of a key, of those that were trained longest; None without any value."""
    found = [each for each in tried if each["settings"][key] == value and _values(each)]
    sign = 1 if mode == "max" else -1
    return max(found, key=lambda each: (each["epochs"], sign * _mean(each)), default=None)


def _values(tried: TriedRecord) -> list[float]:
    return [value for value in tried["values"] if value is not None]


def _mean(tried: TriedRecord) -> float:
    return float(np.mean(_values(tried)))
