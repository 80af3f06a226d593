"""Line breaks in titles and legends."""

from __future__ import annotations

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
