"""Context managers that restore the state of a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Put every submodule into evaluation mode without gradients, and restore each module's flag afterwards.

    The flags are set directly: ``eval()`` then ``train()`` would change a batch norm that the user keeps in
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
    """Restore flags, buffers and torch's random state afterwards, also after an exception.

    This is for a forward pass in training mode, which changes the statistics of batch norms and draws random numbers
    for dropout. Gradients are not computed in the context. The caller chooses the mode.
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
