"""Protect a run from output streams that are closed, full, or cannot encode a character."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence

# These commands write their results into files, and do not need their output.
_LONG = ("fit", "validate", "test", "predict", "lr-find", "study")
_LOST = (errno.ENOSPC, errno.EDQUOT, errno.EPIPE, errno.EIO)


class _Survivor(io.FileIO):
    """Output stream that discards its content after a write has failed."""

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


def protect(args: Sequence[str]) -> None:
    """Replace the streams of this process, whose command line is ``args``.

    A character that a stream cannot encode is written as an escape sequence. A stream that was closed before the start
    is replaced by ``os.devnull``. A long command continues if its output is closed or full; a short command and
    ``--help`` fail, as those of other programs do.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # otherwise the next file that is opened gets this number
            discard(number)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
    survives = args[:1] and args[0] in _LONG and not any(map(_is_help, args))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue  # replaced by another program
        if survives:
            buffer = io.BufferedWriter(_Survivor(stream.fileno(), "wb", closefd=False))
            by_line = stream.line_buffering or name == "stderr"
            stream = io.TextIOWrapper(buffer, encoding=stream.encoding, line_buffering=by_line)
            setattr(sys, name, stream)
        stream.reconfigure(errors="backslashreplace")


def discard(number: int) -> None:
    """Redirect a file descriptor to ``os.devnull``."""
    empty = os.open(os.devnull, os.O_RDWR)
    if empty != number:
        os.dup2(empty, number)
        os.close(empty)


def _is_help(arg: str) -> bool:
    """Return whether an argument makes a command print a text instead of running."""
    option = arg.split("=")[0]
    return option in ("-h", "--help") or option.endswith(".help") or option.startswith("--print_")
