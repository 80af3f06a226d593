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


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Whatever runs inside: afterwards flags, buffers and torch's random state are as before, on exception too.

    For a forward pass in training mode, which moves the statistics of batch norms and draws for dropout. Gradients are
    not computed inside, so that none are added. The modes are the caller's to choose.
    """
    flags = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers()) if tensor.is_cuda}
    with torch.random.fork_rng(devices=list(devices)), torch.no_grad():
        try:
            yield
        finally:
            for module, training in flags:
                module.training = training
            for buffer, value in buffers:
                buffer.copy_(value)
