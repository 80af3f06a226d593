"""Hand-made layers as torch modules: gradcheck, comparison with torch's layers, and training."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from shared import quiet_trainer
from torch import Tensor, nn
from torch.autograd import gradcheck

from lightning_cifar.data import SyntheticDataModule
from lightning_cifar.ext.convolution import BACKENDS
from lightning_cifar.models import LeNet
from lightning_cifar.models.hand_classifiers import LinearClassifier, TwoLayerNet
from lightning_cifar.models.hand_made import (
    HandConv2d,
    HandLinear,
    HandPool2d,
    HandReLU,
    hand_l2_regularization,
    hand_softmax_loss,
)

IMAGES = torch.randn(2, 4, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("backend", sorted(BACKENDS))
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stride": 2, "padding": 1},
        {"groups": 2, "dilation": 2},
        {"padding": (2, 0), "stride": (1, 2), "bias": False},
    ],
)
def test_convolution_gradcheck(backend: Any, settings: Any) -> None:
    torch.manual_seed(0)
    layer = HandConv2d(4, 6, 2, backend=backend, **settings).double()
    images = IMAGES[:1, :, :4, :5] if backend == "loops" else IMAGES  # Python's loops are slow
    inputs = (images.clone().requires_grad_(), *layer.parameters())

    def f(x: Tensor, *parameters: Tensor) -> Any:
        names = [name for name, _ in layer.named_parameters()]
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), x)

    assert gradcheck(f, inputs)


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (HandLinear(5, 3).double(), torch.randn(4, 5, dtype=torch.float64)),
        (HandReLU(), IMAGES),
        (HandPool2d("max", 3, 2), IMAGES),
        (HandPool2d("average", 2), IMAGES),
        (lambda x: hand_softmax_loss(x, torch.tensor([0, 2, 1, 2])), torch.randn(4, 3, dtype=torch.float64)),
        (lambda w: hand_l2_regularization(w, 0.3), torch.randn(4, 3, dtype=torch.float64)),
    ],
)
def test_gradcheck(f: Callable[[Tensor], Tensor], x: Tensor) -> None:
    assert gradcheck(f, x.clone().requires_grad_())


def test_results_and_state_dict_equal_those_of_torch() -> None:
    torch.manual_seed(0)
    theirs = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 5))
    torch.manual_seed(0)
    ours = nn.Sequential(
        HandConv2d(3, 8, 3, padding=1), HandReLU(), HandPool2d("max", 2), nn.Flatten(), HandLinear(128, 5)
    )
    for (name, a), (_, b) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    for memory in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(4, 3, 8, 8).to(memory_format=memory)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        ours(a).square().sum().backward()
        theirs(b).square().sum().backward()
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-4)


def test_autocast_computes_in_float32() -> None:
    layer = HandConv2d(3, 4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(torch.randn(1, 3, 5, 5, dtype=torch.bfloat16))
    assert y.dtype == torch.float32
    y.sum().backward()
    assert layer.weight.grad is not None


def test_images_get_no_gradient() -> None:
    layer = HandConv2d(3, 4, 3)
    x = torch.randn(1, 3, 5, 5)
    layer(x).sum().backward()
    assert x.grad is None
    assert layer.weight.grad is not None


def fit(model: pl.LightningModule) -> dict[str, float]:
    pl.seed_everything(0, verbose=False)
    data = SyntheticDataModule(num_train=512, num_val=128, batch_size=64, augment=[], mean=[0] * 3, std=[1] * 3)
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(model, data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("kind", [LinearClassifier, TwoLayerNet])
def test_classifiers_train_like_torch(kind: Any) -> None:
    """Training with torch's layers, loss and penalty gives the same weights, up to rounding."""
    torch.manual_seed(0)
    ours = kind(lr=0.05, reg=1e-2, momentum=0.0)
    torch.manual_seed(0)
    theirs = kind(lr=0.05, reg=1e-2, momentum=0.0)
    for i, layer in enumerate(theirs.network):
        if isinstance(layer, HandLinear):
            own = nn.Linear(layer.in_features, layer.out_features)
            own.load_state_dict(layer.state_dict())
            theirs.network[i] = own
        elif isinstance(layer, HandReLU):
            theirs.network[i] = nn.ReLU()

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        penalty = sum(layer.weight.square().sum() for layer in theirs.network if isinstance(layer, nn.Linear))
        return nn.functional.cross_entropy(logits, labels) + 1e-2 / 2 * penalty

    theirs.loss = loss
    metrics, expected = fit(ours), fit(theirs)
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name], rtol=1e-3, atol=1e-5)
    assert metrics["val/loss"] == pytest.approx(expected["val/loss"], rel=1e-4)
    assert metrics["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-4)


@pytest.mark.parametrize(("activation", "pooling"), [("relu", "max"), ("tanh", "average")])
def test_lenet_with_hand_made_layers_trains_like_torch(activation: Any, pooling: Any) -> None:
    networks = []
    for layers in ("library", "hand_made"):
        torch.manual_seed(0)
        networks.append(LeNet(activation, pooling, layers=layers, lr=0.05))
    theirs, ours = networks
    assert any(isinstance(layer, HandConv2d) for layer in ours.network)
    metrics, expected = fit(ours), fit(theirs)
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name], rtol=1e-3, atol=1e-4)
    assert metrics["val/loss"] == pytest.approx(expected["val/loss"], rel=1e-4)


def test_number_of_parameters_and_initial_values() -> None:
    net = TwoLayerNet()
    assert sum(parameter.numel() for parameter in net.parameters()) == 3072 * 64 + 64 + 64 * 10 + 10
    assert sum(parameter.numel() for parameter in LinearClassifier().parameters()) == 30_730
    first = net.network[1]
    assert first.weight.std().item() == pytest.approx(1e-3, rel=0.02)
    assert not first.bias.any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: HandConv2d(3, 4, 3, padding="same"), r"padding \(=same"),
        (
            lambda: HandConv2d(3, 4, 3, padding=1, padding_mode="reflect"),
            "must be a number of pixels, filled with zeros",
        ),
        (lambda: HandConv2d(3, 4, 3, backend="cuda"), r"backend \(='cuda'\)"),
        (lambda: HandPool2d("min", 2), r"kind \(='min'\)"),
        (lambda: TwoLayerNet(hidden=0), r"hidden \(=0\)"),
        (lambda: TwoLayerNet(reg=-1.0), r"reg \(=-1.0\)"),
        (lambda: TwoLayerNet(weight_scale=0.0), r"weight_scale \(=0.0\)"),
        (lambda: LeNet(backend="cython"), "set layers=hand_made too"),
        (lambda: LinearClassifier(mixup=0.2), "needs hard labels"),
    ],
)
def test_invalid_arguments_raise(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
