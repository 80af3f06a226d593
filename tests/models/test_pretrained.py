"""Pretrained networks: stages, frozen and trained parameters, comparison with torchvision."""

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torchvision
from shared import quiet_trainer
from torch import Tensor, nn

from lightning_cifar.callbacks import FeatureMaps
from lightning_cifar.checkpoints.trained import load_trained
from lightning_cifar.data import SyntheticDataModule
from lightning_cifar.models import (
    Classifier,
    PretrainedAlexNet,
    PretrainedInception,
    PretrainedResNet,
    PretrainedSqueezeNet,
    PretrainedVGG,
)
from lightning_cifar.models.pretrained_weights import _ARCHS, IMAGENET_MEAN, IMAGENET_STD
from lightning_cifar.models.transfer import STEPS, Transfer

KINDS: dict[str, type[Transfer]] = {
    "vgg": PretrainedVGG,
    "resnet": PretrainedResNet,
    "inception": PretrainedInception,
    "squeezenet": PretrainedSqueezeNet,
    "alexnet": PretrainedAlexNet,
}


def kind_of(arch: str) -> type[Any]:
    return next(kind for prefix, kind in KINDS.items() if arch.startswith(prefix))


def trainer(tmp_path: Path, **kwargs: Any) -> pl.Trainer:
    return quiet_trainer(**{"max_epochs": 1, "default_root_dir": tmp_path, "num_sanity_val_steps": 0, **kwargs})


def small_data(**kwargs: Any) -> SyntheticDataModule:
    defaults = {"num_train": 48, "num_val": 20, "num_test": 10, "batch_size": 16, "augment": [], "seed": 0}
    return SyntheticDataModule(**{**defaults, **kwargs})


def small_resnet(**kwargs: Any) -> PretrainedResNet:
    torch.manual_seed(0)
    return PretrainedResNet(**{"weights": None, "input_size": 32, "lr": 0.05, **kwargs})


@pytest.mark.parametrize("arch", _ARCHS)
def test_every_network_builds_and_each_layer_is_in_one_stage(arch: str) -> None:
    with torch.device("meta"):
        model = kind_of(arch)(arch=arch, weights=None, num_classes=7)
    stages = model._stages
    steps = [step for part in (*stages.body.values(), *stages.heads) for step in part if step not in STEPS]
    leaves = [
        leaf for step in steps for leaf in model.network.get_submodule(step).modules() if not list(leaf.children())
    ]
    wanted = [layer for layer in model.network.modules() if not list(layer.children())]
    assert len(leaves) == len(wanted)
    assert set(leaves) == set(wanted)
    for name in stages.last_layers:
        layer: Any = model.network.get_submodule(name)
        assert layer.weight.shape[0] == 7
    trained = {name for name, parameter in model.network.named_parameters() if parameter.requires_grad}
    assert trained == {f"{name}.{kind}" for name in stages.last_layers for kind in ("weight", "bias")}


@pytest.mark.parametrize(
    "arch", ["resnet18", pytest.param("vgg11_bn", marks=pytest.mark.slow), "alexnet", "squeezenet1_0", "inception_v3"]
)
def test_the_stages_in_order_are_torchvisions_forward_pass(arch: str) -> None:
    torch.manual_seed(0)
    model = kind_of(arch)(arch=arch, weights=None, num_classes=7)
    images = torch.randn(2, 3, model.input_size, model.input_size)
    network: Any = model.network.eval()
    with torch.no_grad():
        logits = model.eval()(images)
        network.transform_input = True  # of Inception: set where torchvision loads its weights
        expected = network(images)
    torch.testing.assert_close(logits / expected.std(), expected / expected.std(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("train", "loaded", "frozen"),
    [
        ("head", False, "stem, layer1, layer2, layer3, layer4"),
        (["layer3", "layer4"], False, "stem, layer1, layer2"),
        ("all", False, ""),
        ("head", True, ""),  # weights loaded afterwards, as from a checkpoint
    ],
)
def test_frozen_random_weights_warn(train: Any, loaded: bool, frozen: str, tmp_path: Path) -> None:
    model = small_resnet(train=train, cache="never")
    if loaded:
        model.load_state_dict(small_resnet().state_dict())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, fast_dev_run=True).fit(model, small_data())
    messages = [str(each.message) for each in caught if "random weights" in str(each.message)]
    assert messages == (
        []
        if not frozen
        else [
            f"PretrainedResNet: {frozen} are frozen with random weights (weights is None): pass "
            "--model.weights default, or --model.train all."
        ]
    )


@pytest.mark.parametrize("train", ["head", ["layer4"], "layer3", "all"])
def test_only_trained_stages_change(train: Any, tmp_path: Path) -> None:
    model = small_resnet(train=train, cache="never")
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    trainer(tmp_path).fit(model, small_data(augment=["flip"]))
    prefixes = {"head": ("fc",), "all": ("",)}.get(str(train), ("fc", *([train] if isinstance(train, str) else train)))
    for name, value in model.network.state_dict().items():
        moves = name.startswith(prefixes) and not name.endswith("num_batches_tracked")
        if moves:
            assert not torch.equal(value, before[name]), name
        elif not name.startswith(prefixes):
            assert torch.equal(value, before[name]), name  # including batch norm statistics


def test_train_keeps_frozen_layers_in_evaluation_mode() -> None:
    model = PretrainedAlexNet(weights=None, input_size=63)
    dropouts = [layer for layer in model.modules() if isinstance(layer, nn.Dropout)]
    for mode in (model.train(), model.eval().train(True)):
        assert mode.training
        assert not any(layer.training for layer in dropouts)
    assert model.network.get_submodule("classifier.6").training
    norms = [layer for layer in small_resnet(train=["layer4"]).train().modules() if isinstance(layer, nn.BatchNorm2d)]
    assert [norm.training for norm in norms] == [False] * 15 + [True] * 5
    assert all(layer.training for layer in small_resnet(train="all").train().modules())


def test_frozen_stages_leave_no_graph() -> None:
    model = small_resnet(train=["layer4"])
    seen: dict[str, tuple[bool, bool]] = {}
    for name in ("layer3", "layer4"):
        model.network.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: seen.update({name: (torch.is_grad_enabled(), output.requires_grad)})
        )
    model.training_loss((torch.randn(2, 3, 32, 32), torch.tensor([0, 1])))
    assert seen == {"layer3": (False, False), "layer4": (True, True)}
    images = torch.randn(2, 3, 32, 32, requires_grad=True)  # a gradient by the pixels is available
    model(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_learning_rate_of_the_backbone(tmp_path: Path) -> None:
    model = small_resnet(train=["layer4"], lr=0.2, backbone_lr_ratio=0.1, decay_norm_and_bias=False, weight_decay=0.1)
    groups = model.make_optimizer().param_groups
    found = {id(each): (group["lr"], group["weight_decay"]) for group in groups for each in group["params"]}
    network: Any = model.network
    assert found[id(network.fc.weight)] == (0.2, 0.1)
    assert found[id(network.fc.bias)] == (0.2, 0.0)
    assert found[id(network.layer4[0].conv1.weight)] == (pytest.approx(0.02), 0.1)
    assert found[id(network.layer4[0].bn1.weight)] == (pytest.approx(0.02), 0.0)
    assert len(found) == sum(parameter.requires_grad for parameter in model.parameters())


def test_auxiliary_loss_of_inception_is_only_for_training() -> None:
    torch.manual_seed(0)
    model = PretrainedInception(weights=None, num_classes=3)
    nn.init.zeros_(model.network.get_submodule("fc").weight)  # so that the main loss is not much larger than the other
    calls: list[Tensor] = []
    model.network.get_submodule("AuxLogits.fc").register_forward_hook(lambda _, __, output: calls.append(output))
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([0, 2])
    loss, logits = model.train().training_loss((images, labels))
    assert len(calls) == 1
    expected = model.loss(logits, labels) + 0.4 * model.loss(calls[0], labels)
    assert torch.equal(loss, expected)
    assert loss > 1.01 * model.loss(logits, labels)
    with torch.no_grad():
        model.eval()(images)
    assert len(calls) == 1
    loss.backward()
    gradients = {name for name, parameter in model.network.named_parameters() if parameter.grad is not None}
    assert gradients == {"fc.weight", "fc.bias", "AuxLogits.fc.weight", "AuxLogits.fc.bias"}


def test_normalisation_of_inception() -> None:
    """Images with ImageNet's normalisation are converted to (x - 0.5) / 0.5."""
    pixels = torch.rand(2, 3, 5, 5)
    mean, std = torch.tensor([IMAGENET_MEAN, IMAGENET_STD])[:, :, None, None]
    with torch.device("meta"):
        model = PretrainedInception(weights=None)
    torch.testing.assert_close(model.normalise((pixels - mean) / std), (pixels - 0.5) / 0.5)


@pytest.mark.parametrize(
    "arch",
    [
        "squeezenet1_0",
        *(pytest.param(arch, marks=pytest.mark.slow) for arch in ("resnet18", "alexnet", "inception_v3", "vgg16_bn")),
    ],
)
def test_one_step_at_the_usual_size(arch: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = kind_of(arch)(arch=arch, weights=None, num_classes=10, lr=0.1)
    assert model.input_size == (299 if arch == "inception_v3" else 224)
    sizes: list[int] = []
    first = next(layer for layer in model.network.modules() if isinstance(layer, nn.Conv2d))
    first.register_forward_pre_hook(lambda _, given: sizes.append(given[0].shape[-1]))
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    data = small_data(num_train=2, num_val=2, batch_size=2, eval_batch_size=2)
    trainer(tmp_path, fast_dev_run=True).fit(model, data)
    assert set(sizes) == {model.input_size}
    moved = {
        name.rpartition(".")[0]
        for name, value in model.network.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert moved == set(model._stages.last_layers)


def test_images_of_any_size_and_grey_images() -> None:
    model = small_resnet(input_size=40).eval()
    with torch.no_grad():
        assert model(torch.randn(2, 3, 100, 60)).shape == (2, 10)
        grey = torch.randn(2, 1, 40, 40)
        assert torch.equal(model(grey), model(grey.expand(-1, 3, -1, -1)))


def test_a_checkpoint_does_not_need_the_initial_weights(tmp_path: Path) -> None:
    torch.manual_seed(3)
    source = tmp_path / "weights.pth"
    torch.save(torchvision.models.squeezenet1_1(num_classes=4).state_dict(), source)
    model = PretrainedSqueezeNet("squeezenet1_1", weights=str(source), input_size=32, train=["fire9"])
    run = trainer(tmp_path)
    run.fit(model, small_data(augment=["flip"]))
    run.save_checkpoint(tmp_path / "a.ckpt")
    source.unlink()
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert content["hyper_parameters"]["weights"] is None
    assert model.hparams["weights"] == str(source)
    images = torch.randn(3, 3, 32, 32)
    loaded = PretrainedSqueezeNet.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert {**loaded.hparams, "weights": None} == {**model.hparams, "weights": None}
    assert torch.equal(model.eval()(images), loaded.eval()(images))
    again = load_trained(tmp_path / "a.ckpt").model.cpu()  # as `explain` reads it
    assert torch.equal(model(images), again(images))


def test_callbacks_get_layer_outputs_while_features_are_cached(tmp_path: Path) -> None:
    layers = ["network.conv1", "network.layer2.0.conv1"]
    run = trainer(tmp_path, max_epochs=2, callbacks=[FeatureMaps(layers=layers, every_n_epochs=1)])
    run.fit(small_resnet(cache="memory"), small_data())
    assert list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: small_resnet(train=["layr4"]),
            r"unknown stage 'layr4'. Did you mean layer4\? Use all, or stages among stem, layer1",
        ),
        (lambda: small_resnet(train="hed"), r"Did you mean head\?"),
        (lambda: small_resnet(input_size=8), r"input_size \(=8\) must be at least 32 pixels for resnet18"),
        (lambda: PretrainedInception(weights=None, input_size=224), r"input_size \(=224\) must be at least 299"),
        (lambda: small_resnet(in_channels=4), r"in_channels \(=4\) must be 3, or 1"),
        (lambda: small_resnet(backbone_lr_ratio=0.0), r"backbone_lr_ratio \(=0.0\) must be above 0"),
        (lambda: small_resnet(cache="disk"), r"cache \(='disk'\) must be one of auto, memory, file, never"),
        (lambda: small_resnet(arch="vgg16"), r"arch \(=vgg16\) must be one of resnet18, resnet34"),
    ],
)
def test_invalid_settings_raise(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_another_normalisation_than_that_of_the_weights_warns(tmp_path: Path) -> None:
    model = small_resnet()
    model._wants_imagenet = True  # as with published weights
    assert isinstance(model, Classifier)
    run = trainer(tmp_path, fast_dev_run=True)
    with pytest.warns(UserWarning, match=r"published weights need images normalised by ImageNet's .* --data.mean"):
        run.fit(model, small_data())
    run.fit(model, small_data(mean=IMAGENET_MEAN, std=IMAGENET_STD))  # a warning would be an error
