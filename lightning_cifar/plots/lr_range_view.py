"""Curves, marks and limits of the axes for sweeps of the learning-rate range finder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

LRCurve: TypeAlias = tuple[ArrayLike, ArrayLike, ArrayLike]
"""One sweep: learning rates, losses and smoothed losses, each (N,), in the order of the steps."""

CUT = 1.5
"""The vertical axis ends at most this many falls (start minus best) above the best smoothed loss."""

SWEEP_COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#bcbd22", "#17becf")
SUGGESTION_COLOR = "#d62728"
OWN_COLOR = "#000000"
RULE_COLOR = "#555555"


class View(NamedTuple):
    """Limits of both axes, and notes about points outside."""

    lrs: tuple[float, float]
    losses: tuple[float, float]
    is_cut: bool
    notes: list[str]


class Mark(NamedTuple):
    """A vertical line. ``lr`` is NaN if it is not positive or not finite."""

    label: str
    lr: float
    is_inside: bool
    color: str


def to_sweeps(curves: Sequence[LRCurve], seeds: Sequence[int]) -> list[tuple[int, NDArray[np.float64]]]:
    """Seed and points (3, N) of each sweep; points that cannot be drawn are NaN."""
    if not curves:
        raise ValueError("curves (=()) must contain at least one sweep.")
    if seeds and len(seeds) != len(curves):
        raise ValueError(f"{len(seeds)} seeds do not match {len(curves)} curves.")
    sweeps = []
    for seed, curve in zip(seeds or range(len(curves)), curves, strict=True):
        lengths = [np.shape(part) for part in curve]
        if len(lengths) != 3 or len(set(lengths)) != 1 or len(lengths[0]) != 1 or not lengths[0][0]:
            raise ValueError(f"a curve must be three arrays (N,) with N > 0, but that of seed {seed} is {lengths}.")
        points = np.array([np.asarray(part, dtype=float) for part in curve])
        points[~np.isfinite(points)] = np.nan
        points[0, ~(points[0] > 0)] = np.nan  # not on a logarithmic axis
        sweeps.append((int(seed), points))
    return sweeps


def to_marks(suggestion: float | None, marks: Mapping[str, float], own_lr: float | None, view: View) -> list[Mark]:
    wanted = [] if suggestion is None else [("suggestion", suggestion, SUGGESTION_COLOR)]
    wanted += [(name, lr, RULE_COLOR) for name, lr in marks.items()]
    wanted += [] if own_lr is None else [("own --model.lr", own_lr, OWN_COLOR)]
    found = []
    for name, lr, color in wanted:
        if not math.isfinite(lr):
            found.append(Mark(f"{name}: none", math.nan, False, color))
        elif not view.lrs[0] <= lr <= view.lrs[1]:
            found.append(Mark(f"{name} {lr:.3g} (outside)", lr if lr > 0 else math.nan, False, color))
        else:
            found.append(Mark(f"{name} {lr:.3g}", lr, True, color))
    return found


def smoothed_at(lr: float, sweeps: Sequence[tuple[int, NDArray[np.float64]]]) -> float:
    """Smoothed loss at a learning rate, the median over the sweeps that reach it; NaN if none does."""
    found = []
    for _, (lrs, _, smoothed) in sweeps:
        is_point = np.isfinite(lrs) & np.isfinite(smoothed)
        if is_point.any() and lr > 0:
            logs = np.log10(lrs[is_point])
            found.append(np.interp(math.log10(lr), logs, smoothed[is_point], left=np.nan, right=np.nan))
    finite = [loss for loss in found if math.isfinite(loss)]
    return float(np.median(finite)) if finite else math.nan


def whole_view(sweeps: Sequence[tuple[int, NDArray[np.float64]]], doubt: str = "") -> View:
    """Return all learning rates, and the losses, cut off so that the fall of the smoothed losses stays readable.

    ``doubt``, the reason why the suggestion is uncertain, is the first note.
    """
    lrs = np.concatenate([points[0] for _, points in sweeps])
    lrs = lrs[np.isfinite(lrs)]
    if not lrs.size:
        raise ValueError("curves must contain a learning rate above 0.")
    margin = max((lrs.max() / lrs.min()) ** 0.02, 1.01)
    ends = float(lrs.min() / margin), float(lrs.max() * margin)
    notes = [*filter(None, [doubt]), *_not_finite(sweeps)]
    smoothed = [points[2][np.isfinite(points[2])] for _, points in sweeps]
    smoothed = [values for values in smoothed if values.size]
    if not smoothed:
        return View(ends, (0.0, 1.0), False, notes)
    losses = np.concatenate([points[1:].ravel() for _, points in sweeps])
    lowest, highest = float(np.nanmin(losses)), float(np.nanmax(losses))
    best = min(float(values.min()) for values in smoothed)
    start = max(float(np.median(values[: max(1, len(values) // 10)])) for values in smoothed)
    cut = best + CUT * max(start - best, 0.1 * abs(best), 1e-12)
    first = np.concatenate([points[1, : max(1, len(points[1]) // 10)] for _, points in sweeps])
    cut = max(cut, float(np.nanmax(first, initial=cut)))  # includes all noise at the start
    if highest > cut:
        notes.append(f"cut off at {cut:.3g}: the loss reaches {highest:.3g}")
        return View(ends, (lowest - 0.04 * (cut - lowest), cut), True, notes)
    margin = 0.04 * (highest - lowest) or 0.5
    return View(ends, (lowest - margin, highest + margin), False, notes)


def zoomed_view(sweeps: Sequence[tuple[int, NDArray[np.float64]]], zoom: tuple[float, float]) -> View:
    """Return the learning rates of the zoom, and the range of the smoothed losses in it."""
    low, high = zoom
    if not 0 < low < high < math.inf:
        raise ValueError(f"zoom (={zoom}) must be two learning rates, 0 < low < high.")
    # The ends are inside, also up to rounding errors.
    inside = [points[2][(points[0] >= low * (1 - 1e-9)) & (points[0] <= high * (1 + 1e-9))] for _, points in sweeps]
    losses = np.concatenate(inside)
    losses = losses[np.isfinite(losses)]
    if not losses.size:
        raise ValueError(f"zoom (={zoom}) contains no point with a finite loss: choose a wider one.")
    bottom, top = float(losses.min()), float(losses.max())
    if bottom == top:  # an axis needs a positive length
        bottom, top = bottom - 0.5 * (abs(bottom) or 1), top + 0.5 * (abs(top) or 1)
    return View((low, high), (bottom, top), False, _not_finite(sweeps))


def _not_finite(sweeps: Sequence[tuple[int, NDArray[np.float64]]]) -> list[str]:
    broken = [points[0, ~np.isfinite(points[1:]).all(axis=0)] for _, points in sweeps]
    lrs = np.concatenate(broken)
    lrs = lrs[np.isfinite(lrs)]
    return [f"not finite from learning rate {lrs.min():.3g}"] if lrs.size else []
