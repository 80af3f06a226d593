"""SIGTERM, which job schedulers and containers send, ends a run cleanly, as Ctrl-C does, with exit code 143."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(KeyboardInterrupt):
    """SIGTERM was received."""


@contextmanager
def terminations_raised() -> Iterator[None]:
    """Raise :class:`Terminated` for the first SIGTERM inside the context, and ignore later ones."""
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
    except KeyboardInterrupt as error:
        if received and not isinstance(error, Terminated):  # Ray raises this for every signal
            raise Terminated from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def interruption_behind(stop: SystemExit) -> type[KeyboardInterrupt] | None:
    """Return the type of the interruption that Lightning turned into an exit, or None."""
    if type(stop).__name__ == "SIGTERMException":  # raised by Lightning between two batches
        return Terminated
    cause = stop.__context__
    return type(cause) if isinstance(cause, KeyboardInterrupt) else None
