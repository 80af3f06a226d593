"""Standard output and standard error that never end a run: closed, full, or unable to show a character."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence

# These write their results into files; what they print is not needed.
_LONG = ("fit", "validate", "test", "predict", "lr-find", "study")
_LOST = (errno.ENOSPC, errno.EDQUOT, errno.EPIPE, errno.EIO)


class _Survivor(io.FileIO):
    """A stream of the process that continues into nothing once it cannot be written any more."""

    def write(self, content: object) -> int:
        try:
            return super().write(content) or 0  # type: ignore[arg-type]
        except OSError as error:
            if error.errno not in _LOST:
                raise
            discard(self.fileno())
            if self.fileno() == 1:
                reason = "no longer read" if error.errno == errno.EPIPE else f"lost ({os.strerror(error.errno)})"
                sys.stderr.write(f"lightning-cifar: the output is {reason}; the run continues without it\n")
            return memoryview(content).nbytes  # type: ignore[arg-type]


def protect(words: Sequence[str]) -> None:
    """Replace the streams of this process, whose command line is ``words``.

    A character that a stream cannot show is written as an escape sequence. A stream that was closed before the start
    is ``os.devnull``. A command that takes long continues when its output is closed or full; a short one, and each
    ``--help``, fails as other programs do.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # or the next file that is opened would take its place
            discard(number)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
    survives = words[:1] and words[0] in _LONG and not any(map(_is_question, words))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue  # of a program around this one
        if survives:
            raw = _Survivor(stream.fileno(), "wb", closefd=False)
            buffer = io.BufferedWriter(raw)
            stream = io.TextIOWrapper(
                buffer, encoding=stream.encoding, line_buffering=stream.line_buffering or name == "stderr"
            )
            setattr(sys, name, stream)
        stream.reconfigure(errors="backslashreplace")


def discard(number: int) -> None:
    """Let a file descriptor lead to ``os.devnull``."""
    empty = os.open(os.devnull, os.O_RDWR)
    if empty != number:
        os.dup2(empty, number)
        os.close(empty)


def _is_question(word: str) -> bool:
    """Whether a word asks for a text instead of a run."""
    option = word.split("=")[0]
    return option in ("-h", "--help") or option.endswith(".help") or option.startswith("--print_")
