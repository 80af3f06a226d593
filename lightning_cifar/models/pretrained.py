"""Networks of torchvision with published weights, for transfer learning."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lightning_cifar.models.pretrained_weights import IMAGENET_MEAN, IMAGENET_STD
from lightning_cifar.models.transfer import Stages, Transfer

VGGName = Literal["vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"]
AlexNetName = Literal["alexnet"]
ResNetName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
SqueezeNetName = Literal["squeezenet1_0", "squeezenet1_1"]
InceptionName = Literal["inception_v3"]


class PretrainedVGG(Transfer):
    """VGG (Simonyan & Zisserman, 1409.1556). Stages: block1 to block5, fc6, fc7; the head is ``classifier.6``.

    Args:
        arch: Name of the network; with ``_bn`` a batch norm follows each convolution.
        **transfer: See :class:`~lightning_cifar.models.transfer.Transfer`.

    Example:
        >>> import torch
        >>> from lightning_cifar import PretrainedVGG
        >>> with torch.device("meta"):  # without memory
        ...     model = PretrainedVGG("vgg11", weights=None, train=["fc7"])
        >>> sorted({name.rpartition(".")[0] for name, p in model.named_parameters() if p.requires_grad})
        ['network.classifier.3', 'network.classifier.6']
    """

    archs = get_args(VGGName)

    def __init__(self, arch: VGGName = "vgg16_bn", **transfer: Any) -> None:
        super().__init__(arch=arch, **transfer)

    def stages_of(self, network: nn.Module) -> Stages:
        body: dict[str, tuple[str, ...]] = {}
        number = 1
        for name, layer in network.get_submodule("features").named_children():
            stage = f"block{number}"
            body[stage] = (*body.get(stage, ()), f"features.{name}")
            number += isinstance(layer, nn.MaxPool2d)
        return _with_classifier(body)


class PretrainedAlexNet(Transfer):
    """AlexNet (Krizhevsky, 1404.5997). Stages: conv1 to conv5, fc6, fc7; the head is ``classifier.6``.

    Args:
        arch: Name of the network.
        **transfer: See :class:`~lightning_cifar.models.transfer.Transfer`.

    Example:
        >>> import torch
        >>> from lightning_cifar import PretrainedAlexNet
        >>> with torch.device("meta"):  # without memory
        ...     PretrainedAlexNet(weights=None, num_classes=7).network.classifier[6]
        Linear(in_features=4096, out_features=7, bias=True)
    """

    archs = get_args(AlexNetName)
    smallest_input = 63

    def __init__(self, arch: AlexNetName = "alexnet", **transfer: Any) -> None:
        super().__init__(arch=arch, **transfer)

    def stages_of(self, network: nn.Module) -> Stages:
        body: dict[str, tuple[str, ...]] = {}
        for name, layer in network.get_submodule("features").named_children():
            stage = f"conv{len(body) + isinstance(layer, nn.Conv2d)}"
            body[stage] = (*body.get(stage, ()), f"features.{name}")
        return _with_classifier(body)


class PretrainedResNet(Transfer):
    """ResNet (He et al., 1512.03385). Stages: stem, layer1 to layer4; the head is ``fc``.

    Args:
        arch: Name of the network, with the number of layers.
        **transfer: See :class:`~lightning_cifar.models.transfer.Transfer`.

    Example:
        >>> import torch
        >>> from lightning_cifar import PretrainedResNet
        >>> with torch.device("meta"):  # without memory
        ...     PretrainedResNet("resnet18", weights=None, num_classes=7).network.fc
        Linear(in_features=512, out_features=7, bias=True)
    """

    archs = get_args(ResNetName)

    def __init__(self, arch: ResNetName = "resnet18", **transfer: Any) -> None:
        super().__init__(arch=arch, **transfer)

    def stages_of(self, network: nn.Module) -> Stages:
        body: dict[str, tuple[str, ...]] = {"stem": ("conv1", "bn1", "relu", "maxpool")}
        body |= {f"layer{i}": (f"layer{i}",) for i in range(1, 4)}
        return Stages({**body, "layer4": ("layer4", "avgpool", "@flatten")}, heads=(("fc",),), last_layers=("fc",))


class PretrainedSqueezeNet(Transfer):
    """SqueezeNet (Iandola et al., 1602.07360). Stages: stem, fire2 to fire9; the head is ``classifier.1``.

    The last layer is a 1 x 1 convolution, followed by a ReLU and global average pooling.

    Args:
        arch: Name of the network; 1.1 needs less than half of the operations.
        **transfer: See :class:`~lightning_cifar.models.transfer.Transfer`.

    Example:
        >>> import torch
        >>> from lightning_cifar import PretrainedSqueezeNet
        >>> model = PretrainedSqueezeNet("squeezenet1_1", weights=None, num_classes=7, input_size=32)
        >>> model(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 7])
    """

    archs = get_args(SqueezeNetName)

    def __init__(self, arch: SqueezeNetName = "squeezenet1_0", **transfer: Any) -> None:
        super().__init__(arch=arch, **transfer)

    def stages_of(self, network: nn.Module) -> Stages:
        body: dict[str, tuple[str, ...]] = {}
        for name, layer in network.get_submodule("features").named_children():
            stage = f"fire{len(body) + 1}" if list(layer.children()) else list(body)[-1] if body else "stem"
            body[stage] = (*body.get(stage, ()), f"features.{name}")
        body[stage] += ("classifier.0",)  # dropout
        head = ("classifier.1", "classifier.2", "classifier.3", "@flatten")
        return Stages(body, heads=(head,), last_layers=("classifier.1",))


class PretrainedInception(Transfer):
    """Inception v3 (Szegedy et al., 1512.00567) with its auxiliary classifier, whose loss has weight 0.4 in training.

    Stages: stem, Mixed_5b to Mixed_6e, AuxLogits, Mixed_7a to Mixed_7c; the heads are ``fc`` and ``AuxLogits.fc``.

    Args:
        arch: Name of the network.
        **transfer: See :class:`~lightning_cifar.models.transfer.Transfer`.

    Example:
        >>> import torch
        >>> from lightning_cifar import PretrainedInception
        >>> with torch.device("meta"):  # without memory
        ...     PretrainedInception(weights=None, num_classes=7).network.fc
        Linear(in_features=2048, out_features=7, bias=True)
    """

    archs = get_args(InceptionName)
    usual_input = smallest_input = 299  # smaller images are too small for the auxiliary classifier
    aux_weight = 0.4

    def __init__(self, arch: InceptionName = "inception_v3", **transfer: Any) -> None:
        super().__init__(arch=arch, **transfer)

    def stages_of(self, network: nn.Module) -> Stages:
        names = [name for name, _ in network.named_children()]
        first, end = names.index("Mixed_5b"), names.index("avgpool")
        body = {"stem": tuple(names[:first])} | {name: (name,) for name in names[first:end]}
        body["AuxLogits"] = ("@pool_5", "AuxLogits.conv0", "AuxLogits.conv1", "@pool", "@flatten")
        body["Mixed_7c"] += ("avgpool", "dropout", "@flatten")
        heads = (("fc",), ("AuxLogits.fc",))
        return Stages(body, heads=heads, last_layers=("fc", "AuxLogits.fc"), side="AuxLogits")

    def normalise(self, images: Tensor) -> Tensor:
        """Convert images from ImageNet's mean and std to mean 0.5 and std 0.5, used in the training of the weights."""
        # Filled on the device: new_tensor would copy numbers from the CPU, for which a GPU waits in each step.
        mean, std = (torch.cat([images.new_full((1, 1, 1), v) for v in each]) for each in (IMAGENET_MEAN, IMAGENET_STD))
        return torch.addcmul((mean - 0.5) / 0.5, images, std / 0.5)


def _with_classifier(body: dict[str, tuple[str, ...]]) -> Stages:
    """Add the fully connected layers of VGG and AlexNet, which differ only in the places of the dropouts."""
    *_, last = body
    body[last] += ("avgpool", "@flatten")
    for i, stage in enumerate(("fc6", "fc7")):
        body[stage] = tuple(f"classifier.{3 * i + j}" for j in range(3))
    return Stages(body, heads=(("classifier.6",),), last_layers=("classifier.6",))
