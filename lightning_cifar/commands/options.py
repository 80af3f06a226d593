"""Option types that several commands share."""

from __future__ import annotations

import argparse
import re


def positive_int(text: str) -> int:
    """Parse an option that must be a positive integer."""
    number = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at least 1")
    return number
