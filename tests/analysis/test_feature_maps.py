"""Feature maps equal the values of a plain forward pass, and the model is unchanged."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from lightning_cifar.analysis.feature_maps import default_layers, feature_maps, thin_out


class Noisy(nn.Module):
    """Draws random numbers in evaluation mode too, and counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + torch.randn(()) * 0


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        Noisy(),
        nn.Dropout(0.5),
        nn.Conv2d(4, 5, 2),
    ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(5 * 9, 2))


def test_values_are_those_of_a_plain_forward_pass(network: nn.Sequential) -> None:
    images = torch.randn(2, 3, 6, 6)
    network(images)  # updates the batch norm
    maps = feature_maps(network, images, ["5", "0", "1", "2"])
    assert list(maps) == ["5", "0", "1", "2"]
    network.eval()
    with torch.no_grad():
        convolved = network[0](images)
        normalised = network[1](convolved)
        expected = {"0": convolved, "1": normalised.clone(), "2": normalised.relu()}
        expected["5"] = network[5](expected["2"])  # no dropout in between
    for name, value in expected.items():
        torch.testing.assert_close(maps[name], value, msg=name)
    assert maps["1"].min() < 0  # before the in-place ReLU
    assert not any(value.requires_grad for value in maps.values())


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(network: nn.Sequential, fails: bool) -> None:
    network[1].eval()  # frozen by hand
    network[7].weight.grad = torch.ones_like(network[7].weight)
    modes = [layer.training for layer in network.modules()]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    if fails:  # after the layers that draw random numbers and count
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            feature_maps(network, torch.randn(2, 3, 7, 7, generator=torch.Generator().manual_seed(0)), ["0"])
    else:
        feature_maps(network, torch.ones(2, 3, 6, 6), ["0"])
    assert [layer.training for layer in network.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert [name for name, value in network.named_parameters() if value.grad is not None] == ["7.weight"]
    assert torch.equal(network[7].weight.grad, torch.ones_like(network[7].weight))
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in network.modules())


def test_half_precision_becomes_single(network: nn.Sequential) -> None:
    maps = feature_maps(network.bfloat16(), torch.ones(1, 3, 6, 6, dtype=torch.bfloat16), ["0"])
    assert maps["0"].dtype == torch.float32


def test_layers_without_maps_raise(network: nn.Sequential) -> None:
    images = torch.ones(1, 3, 6, 6)
    with pytest.raises(ValueError, match=r"layer '7' returns \(1, 2\), not maps \(N, K, P, Q\)"):
        feature_maps(network, images, ["0", "7"])
    with pytest.raises(ValueError, match="has no layer '8'"):
        feature_maps(network, images, ["8"])
    network.add_module("idle", nn.Sequential(nn.Conv2d(3, 1, 1)))
    network.idle.forward = lambda x: x
    with pytest.raises(ValueError, match=r"layer 'idle.0' returned no tensor in the forward pass of Sequential"):
        feature_maps(network, images, ["idle.0"])
    with pytest.raises(ValueError, match=r"Module cannot be called as model\(images\)"):
        feature_maps(nn.Module(), images, [])


def test_a_compiled_model_is_not_compiled_again(network: nn.Sequential, monkeypatch: pytest.MonkeyPatch) -> None:
    stances: list[str] = []

    class Stance:
        def __init__(self, name: str) -> None:
            stances.append(name)

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(torch.compiler, "set_stance", Stance)
    network.eval()
    feature_maps(network, torch.ones(1, 3, 6, 6), ["0"])
    assert not stances
    network[0]._compiled_call_impl = network[0]._call_impl
    feature_maps(network, torch.ones(1, 3, 6, 6), ["0"])
    assert stances == ["force_eager"]


def test_default_layers(network: nn.Sequential) -> None:
    assert default_layers(network) == ["0", "5"]
    assert default_layers(nn.Sequential(nn.Conv2d(3, 4, 3))) == ["0"]
    assert default_layers(nn.Sequential(*(nn.Conv2d(1, 1, 1) for _ in range(12)))) == ["0", "6"]
    with pytest.raises(ValueError, match="Linear has no convolution: name the layers"):
        default_layers(nn.Linear(2, 2))


def test_thin_out_keeps_both_ends_and_spreads_the_rest() -> None:
    assert thin_out([0, 1, 2], 3) == [0, 1, 2]
    assert thin_out([0, 1, 2, 3, 4], 3) == [0, 2, 4]
    assert thin_out([0, 1, 1.5, 2, 3], 4) == [0, 1, 3, 4]
    kept: list[int] = []
    for epoch in range(101):
        kept.append(epoch)
        kept = [kept[index] for index in thin_out(kept, 10)]
    assert len(kept) == 10
    assert (kept[0], kept[-1]) == (0, 100)
    assert max(b - a for a, b in itertools.pairwise(kept)) <= 20
