"""Run a command like the console script, in a forked process. See ``start_command`` in conftest.py.

``COMMAND`` holds ``args``, ``log`` (the file of both outputs) and ``environment`` (additional variables).
"""

from __future__ import annotations

import os
import signal
import sys


def run(args: list[str], log: str, environment: dict[str, str]) -> None:
    import torch

    from lightning_cifar import cli

    os.setsid()  # as the group of processes of a terminal
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # the server of the studies blocks it
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    os.environ |= environment
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))  # it was imported with those of the server
    sys.argv = ["lightning-cifar", *args]
    cli.console()


if __name__ == "command":
    run(**globals()["COMMAND"])
