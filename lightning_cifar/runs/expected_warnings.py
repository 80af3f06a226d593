"""Warnings, most of Lightning, that are no news in a run of ours, each with the reason."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_EXPECTED = (
    # The words are passed on as an argument: our command line is the process's own.
    "LightningCLI's args parameter is intended",
    # Inside Lightning, and nothing a user can mend.
    ".*treespec, LeafSpec.*",
    # The folder is ours and new: it holds config.yaml.
    "Experiment logs directory .* exists and is not empty",
    # Steps are logged where there are enough; the epoch's means always are.
    "The number of training batches .* is smaller than the logging",
    # It holds those from which the run goes on.
    "Checkpoint directory .* exists and is not empty",
    # num_val 0 asks for no validation.
    "Total length of `list` across ranks is zero",
    # The same; and that callback was not asked for: each run has it.
    "ClassAccuracy reports nothing: the fit ended without a validation",
    # A resumed run has a folder of its own.
    "The dirpath has changed",
    # That callback puts a schedule of its own, stepped each epoch, in place of the regime.
    "SWA is currently only supported every epoch",
    # An evaluation has no use for the state of the training's callbacks.
    "Be aware that when using `ckpt_path`",
)


@contextmanager
def expected_warnings_ignored() -> Iterator[None]:
    """Whatever runs inside says nothing of them."""
    with warnings.catch_warnings():
        for message in _EXPECTED:
            warnings.filterwarnings("ignore", message=message)
        yield
