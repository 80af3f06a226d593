"""``--compile true``: one graph without breaks for each size of a batch, and no compilation in later steps."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_cifar import models
from lightning_cifar.analysis.layers import compile_networks

MODELS: dict[str, Callable[..., Any]] = {
    "LeNet": models.LeNet,
    "DilatedNet": models.DilatedNet,
    "ResNetCIFAR": lambda **kwargs: models.ResNetCIFAR(depth=8, **kwargs),
    "SpeedNet": lambda **kwargs: models.SpeedNet(widths=(8, 8, 8), **kwargs),
    "MLP": lambda **kwargs: models.MLP(in_channels=3, image_size=32, dropout=0.2, **kwargs),
    "ConvNet": models.ConvNet,
}


@pytest.fixture
def graphs() -> Iterator[list[list[Any]]]:
    torch.compiler.reset()
    yield []
    torch.compiler.reset()


@pytest.mark.parametrize("name", MODELS)
def test_networks_are_one_graph_of_fixed_shapes(name: str, graphs: list[list[Any]]) -> None:
    """The last batch of an epoch is smaller. A graph of variable shapes is slower, also for the full batches."""

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        graphs.append(inputs)
        return graph.forward

    model = MODELS[name](lr=0.1)
    compile_networks(model, backend=backend, fullgraph=True)
    model._log_every_n_steps = 0
    model.on_train_epoch_start()
    for size in (4, 3, 4, 3):
        images = torch.rand(size, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        model.training_step((images, torch.zeros(size, dtype=torch.int64)), 0)["loss"].backward()
    assert len(graphs) == 2
    with torch.no_grad():
        model.eval()
        for _ in range(2):
            model.predict_step(images, 0)
    assert len(graphs) == 3
    assert all(isinstance(each, Tensor) for inputs in graphs for each in inputs), "a size is an input"
