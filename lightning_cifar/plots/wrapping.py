"""Texts in pictures: line breaks, percentages and long names."""

from __future__ import annotations

import math
import re
import textwrap

_BEFORE_VALUE = re.compile(r" (?=[<>±+-]?\d|%)")


def wrap(text: str, width: float) -> str:
    """Wrap each line of a text to ``width`` characters, but never between a name and its value.

    Example:
        >>> wrap("loss: plain 0.25, batch_norm 0.33", 30)
        'loss: plain 0.25,\\nbatch_norm 0.33'
    """
    lines = _BEFORE_VALUE.sub("\N{NO-BREAK SPACE}", text).split("\n")
    filled = [textwrap.fill(line, round(width), break_on_hyphens=False) for line in lines]
    return "\n".join(filled).replace("\N{NO-BREAK SPACE}", " ")


def percent(share: float) -> str:
    """Format a share as a percentage that is never rounded up to 100.

    Example:
        >>> [percent(share) for share in (0.004, 0.93, 0.9987, 0.99999)]
        ['0.4 %', '93 %', '99.9 %', '>99.9 %']
    """
    if math.isnan(share):
        return "? %"
    value = 100 * share
    if value >= 99.95:
        return ">99.9 %"
    return f"{value:.0f} %" if 9.5 <= value < 98.5 else f"{value:.1f} %"


def shorten(text: str, length: int) -> str:
    """Return a text in one line, cut at the end to ``length`` characters, at least 4."""
    text, length = " ".join(text.split()), max(length, 4)
    return text if len(text) <= length else text[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"
