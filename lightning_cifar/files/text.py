"""Printable text from file names and received files. Does not import torch or Lightning."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_JOINERS = "\u200c\u200d"  # in Persian and Indian scripts and in emoji


def plain_text(text: object) -> str:
    r"""Replace control characters and undecodable bytes by escapes such as ``\x1b``.

    The name of a file may contain anything except ``/`` and a zero byte: line breaks, which shift the columns of a
    table, terminal escape sequences, marks that reverse the writing direction, and bytes of another encoding. The
    result is in Unicode's composed form (NFC), so that names from different file systems are equal; a second call does
    not change it.

    Example:
        >>> plain_text("caf\udce9\n")
        'caf\\xe9\\x0a'
        >>> plain_text("cafe\N{COMBINING ACUTE ACCENT}") == "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
        True
    """
    return "".join(map(_shown, unicodedata.normalize("NFC", str(text))))


def join_some(names: Sequence[str], most: int) -> str:
    """Join at most ``most`` names by commas, followed by ``...`` if there are more."""
    return ", ".join([*names[:most], *["..."] * (len(names) > most)])


def _shown(letter: str) -> str:
    if letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs":
        return letter
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # an undecodable byte
        code -= 0xDC00
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
