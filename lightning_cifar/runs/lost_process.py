"""Report the loss of another process of a distributed training in one line, with the command that continues the run."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from lightning_cifar.errors import UsageError, one_line
from lightning_cifar.runs.resume import can_resume


def is_of_lost_process(error: BaseException) -> bool:
    """Return whether an error means that another process ended, does not answer, or cannot be reached.

    >>> is_of_lost_process(RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.2]:4711"))
    True
    """
    if not torch.distributed.is_available():
        return False
    return isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and "gloo/" in str(error))


def lost_process(error: BaseException, folder: Path | None) -> UsageError:
    """Return the error for the loss of another process; the run is in ``folder``."""
    detail = re.sub(r"^\[\S*\] ", "", one_line(error)).split(". ")[0]
    again = ""
    if folder is not None and can_resume(folder):
        again = f" To continue, start all processes again with lightning-cifar fit --resume {folder}"
    return UsageError(f"no connection to another process of this training ({detail}): its output shows why.{again}")
