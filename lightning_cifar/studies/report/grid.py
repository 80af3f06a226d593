"""Main effects and interactions of a study with a grid of settings, in a report. No torch."""

from __future__ import annotations

import json
import math
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_cifar.analysis.comparisons import paired_tests
from lightning_cifar.analysis.effects import Effect, factorial_effects
from lightning_cifar.analysis.statistics import mean_curve
from lightning_cifar.plots import PagePicture, ReportSection, ReportTable
from lightning_cifar.studies.report.comparison import Compared
from lightning_cifar.studies.report.curves import title_of
from lightning_cifar.studies.report.pictures import png
from lightning_cifar.studies.report.results import finals, number_text, p_text, range_text
from lightning_cifar.studies.units import is_share, scale_of, unit_of

_COLORS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MOST_PICTURES = 3


class Grid(NamedTuple):
    """Arms that are all combinations of the levels of at least two settings; the first level is the baseline's."""

    keys: list[str]
    levels: list[list[str]]
    values: NDArray[np.float64]
    """(L1, ..., Lk, S): final metric; NaN for missing runs."""


def read_grid(compared: Compared) -> Grid | None:
    """Return the grid of a study; None if its arms are not one."""
    overrides = {arm: compared.overrides.get(arm, {}) for arm in compared.arms}
    keys = list(next(iter(overrides.values()), {}))
    if len(keys) < 2 or any(list(each) != keys for each in overrides.values()):
        return None
    texts = {arm: [json.dumps(value) for value in each.values()] for arm, each in overrides.items()}
    first = {compared.baseline: texts[compared.baseline], **texts}
    levels = [list(dict.fromkeys(each[i] for each in first.values())) for i in range(len(keys))]
    shape = [len(each) for each in levels]
    if min(shape) < 2 or math.prod(shape) != len(overrides) or len(set(map(tuple, texts.values()))) < len(overrides):
        return None
    found = finals(compared.runs, compared.arms, compared.metric)
    seeds = sorted({seed for each in found.values() for seed in each})
    values = np.full((*shape, len(seeds)), np.nan)
    for arm, each in texts.items():
        place = tuple(level.index(text) for level, text in zip(levels, each, strict=True))
        values[place] = [found[arm].get(seed, np.nan) for seed in seeds]
    return Grid(keys, levels, values)


def grid_section(compared: Compared) -> ReportSection | None:
    """Return the part of the page on the effects in a grid; None if the arms are not a grid, or with one seed."""
    grid = read_grid(compared)
    if grid is None or grid.values.shape[-1] < 2:
        return None
    effects = factorial_effects(grid.values)
    tests = paired_tests([each.by_seed for each in effects], looks=compared.rules.looks)
    scale, unit = scale_of(compared.metric)[0], unit_of(compared.metric)
    rows = []
    for effect, mean, low, high, p, n in zip(
        effects, *(each.tolist() for each in (tests.mean, tests.low, tests.high, tests.p, tests.n)), strict=True
    ):
        name, against = _names(grid, effect)
        numbers = [number_text(scale * mean, sign=True), range_text(scale * low, scale * high, sign=True), p_text(p)]
        rows.append([name, against, f"{n}", *numbers, "shown" if p < 0.05 else "not shown"])
    head = ["effect", "against", "seeds*", f"size{f' ({unit.strip()})' if unit else ''}*", "corrected interval*"]
    notes = [
        "Main effect: mean difference from the first value of a setting, over all values of the others. Interaction: "
        "how much that difference changes with the other setting; if one is shown, a main effect alone is misleading. "
        f"All {len(effects)} intervals hold together with 95 % confidence; p-values are adjusted by Holm's method."
    ]
    pictures = [
        _picture(compared, grid, pair) for pair in list(combinations(range(len(grid.keys)), 2))[:_MOST_PICTURES]
    ]
    return ReportSection(
        "effects", "Effects of the settings", ReportTable([*head, "corrected p*", "verdict"], rows), pictures, notes
    )


def _names(grid: Grid, effect: Effect) -> tuple[str, str]:
    parts = [
        f"{grid.keys[factor]} {grid.levels[factor][level]}"
        for factor, level in zip(effect.factors, effect.levels, strict=True)
    ]
    if len(parts) == 2:
        return f"interaction of {' and '.join(parts)}", "no interaction"
    return parts[0], grid.levels[effect.factors[0]][0]


def _picture(compared: Compared, grid: Grid, pair: tuple[int, int]) -> PagePicture:
    """Draw the metric over the levels of one setting, with a line for each level of another."""
    from lightning_cifar.plots import ArmBand, draw_report_curves  # slow, since it imports matplotlib

    first, second = pair
    table = np.moveaxis(grid.values, pair, (0, 1))
    table = table.mean(axis=tuple(range(2, table.ndim - 1)))  # (levels of the first, levels of the second, S)
    bands = []
    for index, level in enumerate(grid.levels[second]):
        values = table[:, index].T
        band = mean_curve(values)
        color, x = _COLORS[index % len(_COLORS)], np.arange(len(values.T))
        bands.append(ArmBand(f"{grid.keys[second]} {level}", color, "", x, *band[:3], values, int(band.n.min())))
    figure = draw_report_curves(
        bands,
        ylabel=title_of(compared.metric),
        xlabel=grid.keys[first],
        share=is_share(compared.metric),
        ticks=grid.levels[first],
    )
    return PagePicture(
        f"{grid.keys[first]} and {grid.keys[second]}: without interaction, lines are parallel", png(figure)
    )
