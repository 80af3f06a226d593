"""Look at a model and leave it as it was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for every submodule, without gradients; each module's own flag returns afterwards.

    The flags are set directly: ``eval()`` then ``train()`` would thaw a batch norm that the user keeps in
    evaluation mode, and a model may override ``train``.
    """
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, training in flags:
            module.training = training
