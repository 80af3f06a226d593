"""Layers by name, and recording of their inputs and outputs."""

from typing import Any

import pytest
import torch
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from lightning_cifar.analysis.layers import (
    compile_networks,
    convolution_names,
    find_layer,
    is_compiled,
    list_layers,
    recorded,
)
from lightning_cifar.analysis.modes import undisturbed


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(4), nn.Dropout(0.5))


def test_find_layer() -> None:
    model = nn.Sequential()
    model.add_module("network", nn.Sequential())
    model.network.add_module("conv1", nn.Conv2d(1, 1, 1))  # type: ignore[union-attr]
    assert find_layer(model, "network.conv1") is model.network.conv1  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"no layer 'conv1': did you mean network\.conv1\?"):
        find_layer(model, "conv1")
    with pytest.raises(ValueError, match=r"no layer 'network\.conv2': did you mean network\.conv1"):
        find_layer(model, "network.conv2")
    with pytest.raises(ValueError, match="no layer ''"):
        find_layer(model, "")
    assert convolution_names(model) == ["network.conv1"]


def test_recorded_values_do_not_change_with_in_place_layers() -> None:
    model, images = network(), torch.randn(2, 3, 6, 6)
    with recorded(model, ["0", "1"], torch.clone) as values, torch.no_grad():
        model(images)
    expected = model[0](images)
    assert torch.equal(values["0"][0], images)
    torch.testing.assert_close(values["0"][1], expected)  # before the in-place ReLU
    torch.testing.assert_close(values["1"][0], expected)
    torch.testing.assert_close(values["1"][1], expected.relu())


def test_recorded_removes_its_hooks() -> None:
    model = network()
    with pytest.raises(RuntimeError, match="channels"), recorded(model, ["0", "2"], torch.clone):
        model(torch.zeros(1, 5, 6, 6))
    with pytest.raises(ValueError, match="no layer 'nowhere'"), recorded(model, ["0", "nowhere"], torch.clone):
        pass
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from imports of the compiler
def test_networks_are_compiled_in_place() -> None:
    model = nn.Module()
    model.network, model.loss, model.others = network().eval(), nn.CrossEntropyLoss(), nn.ModuleList([network().eval()])
    names, images = list(model.state_dict()), torch.ones(2, 3, 6, 6)
    with torch.no_grad():
        before = model.network(images)
        compile_networks(model, backend="eager")
        torch.testing.assert_close(model.network(images), before)
    assert list(model.state_dict()) == names
    assert not is_compiled(model.loss)
    assert is_compiled(model.others[0])
    assert model.others._compiled_call_impl is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from imports of the compiler
def test_a_compiled_network_is_recorded_too() -> None:
    model = network().eval()
    model.compile(backend="eager")
    with torch.no_grad():
        model(torch.ones(2, 3, 6, 6))
        with recorded(model, ["2"], torch.numel) as found:
            model(torch.ones(2, 3, 6, 6))
    assert found["2"] == (2 * 4 * 4 * 4,) * 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from imports of the compiler
def test_layers_are_listed_without_compilation() -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Any:
        graphs.append(graph)
        return graph.forward

    model, image = nn.Sequential(network()), torch.ones(1, 3, 6, 6)
    expected = list_layers(model, image)
    compile_networks(model, backend=backend)
    assert list_layers(model, image) == expected
    assert not graphs
    model(image)
    assert len(graphs) == 1


def test_undisturbed_restores_flags_buffers_and_random_state() -> None:
    model, images = network(), torch.randn(8, 3, 6, 6)
    model[3].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()

    def disturb() -> None:
        with undisturbed(model):
            model.train()
            model(images)
            assert not torch.equal(model[2].running_mean, state["2.running_mean"])
            raise KeyError

    with pytest.raises(KeyError):
        disturb()
    assert model[2].training
    assert not model[3].training
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_metrics_are_not_layers() -> None:
    model = nn.Module()
    model.network = network()
    model.val_conv1 = MulticlassAccuracy(10)
    model.metrics = MetricCollection({"conv1": MulticlassAccuracy(10)})
    for name in ("conv1", "val_conv1", "metrics", "metrics.conv1"):
        with pytest.raises(ValueError, match="no layer") as caught:
            find_layer(model, name)
        hint = str(caught.value).partition(": ")[2]
        assert "conv1" not in hint
        assert "metrics" not in hint
