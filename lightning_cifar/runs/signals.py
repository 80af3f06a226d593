"""SIGTERM, which job schedulers and containers send, ends a run as Ctrl-C does: in order, and with exit code 143."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(KeyboardInterrupt):
    """SIGTERM was received."""


@contextmanager
def terminations_raised() -> Iterator[None]:
    """Inside, the first SIGTERM raises :class:`Terminated`; later ones do not disturb the clean-up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = False

    def receive(*_: object) -> None:
        nonlocal received
        if not received:
            received = True
            raise Terminated

    before = signal.signal(signal.SIGTERM, receive)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def interruption_behind(stop: SystemExit) -> type[KeyboardInterrupt] | None:
    """The interruption that Lightning turned into an exit once it had closed the run; None where there was none."""
    if type(stop).__name__ == "SIGTERMException":  # Lightning's own way to stop between two batches
        return Terminated
    cause = stop.__context__
    return type(cause) if isinstance(cause, KeyboardInterrupt) else None
