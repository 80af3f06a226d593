"""Context managers restore the state of a model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_cifar.analysis.modes import evaluation


class Frozen(nn.Module):
    """Keeps its batch norm in evaluation mode also after ``train``."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
        self.norm = nn.BatchNorm1d(2)
        self.calls = 0

    def train(self, mode: bool = True) -> Frozen:
        self.calls += 1
        super().train(mode)
        self.norm.eval()
        return self


def mixed_model() -> Frozen:
    model = Frozen().train()
    model.first[1].eval()
    model.calls = 0
    return model


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def test_modes_are_restored() -> None:
    model = mixed_model()
    before = modes(model)
    assert True in before
    assert False in before
    with evaluation(model):
        assert not any(modes(model))
        assert not model.first(torch.ones(1, 2)).requires_grad
    assert modes(model) == before
    assert torch.is_grad_enabled()
    assert model.calls == 0


def test_modes_are_restored_after_an_exception() -> None:
    model = mixed_model()
    before = modes(model)
    with pytest.raises(KeyError, match="inside"), evaluation(model):
        raise KeyError("inside")
    assert modes(model) == before
    assert torch.is_grad_enabled()


def test_an_outer_no_grad_stays() -> None:
    with torch.no_grad(), evaluation(mixed_model()):
        pass
    with torch.no_grad():
        with evaluation(mixed_model()):
            pass
        assert not torch.is_grad_enabled()
