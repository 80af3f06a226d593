"""Names from file systems and from received files as text that can be shown. Knows neither torch nor Lightning."""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"  # inside words of Persian and Indian scripts, and inside emoji


def plain_text(text: object) -> str:
    r"""Replace control characters and bytes that are not text by escapes such as ``\x1b``.

    A file's name may hold anything except ``/`` and a zero byte: line breaks, which move the columns of a table, escape
    sequences, which a terminal obeys, marks that reverse the direction of writing, and bytes of another encoding. The
    result is in Unicode's composed form (NFC), so that names from different file systems are equal, and is unchanged by
    a second call.

    Example:
        >>> plain_text("caf\udce9\n")
        'caf\\xe9\\x0a'
        >>> plain_text("cafe\N{COMBINING ACUTE ACCENT}") == "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
        True
    """
    return "".join(map(_shown, unicodedata.normalize("NFC", str(text))))


def _shown(letter: str) -> str:
    if letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs":
        return letter
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that could not be decoded
        code -= 0xDC00
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
