"""Warnings, most of them from Lightning, that do not apply to the runs of this package."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_EXPECTED = (
    # RunCLI gets the command line as an argument.
    "LightningCLI's args parameter is intended",
    # It concerns code inside Lightning.
    ".*treespec, LeafSpec.*",
    # The folder is new: it contains only config.yaml.
    "Experiment logs directory .* exists and is not empty",
    # The means of an epoch are always logged.
    "The number of training batches .* is smaller than the logging",
    # A resumed run continues from these checkpoints.
    "Checkpoint directory .* exists and is not empty",
    # num_val 0 turns the validation off.
    "Total length of `list` across ranks is zero",
    # The same; the callback is one of the defaults.
    "ClassAccuracy is disabled: fit ended without a validation",
    # A run that starts from a checkpoint has a new folder.
    "The dirpath has changed",
    # The callback replaces the schedule by one that is stepped each epoch.
    "SWA is currently only supported every epoch",
    # The processes agree on the accuracy; the throughput must not be synchronized, see the callback.
    r"It is recommended to use `self\.log\('(throughput|train/accuracy)'",
    # An evaluation does not need the states of the callbacks of the training.
    "Be aware that when using `ckpt_path`",
)


@contextmanager
def expected_warnings_ignored() -> Iterator[None]:
    """Ignore these warnings inside the context."""
    with warnings.catch_warnings():
        for message in _EXPECTED:
            warnings.filterwarnings("ignore", message=message)
        yield
