"""LightningModules whose arguments are plain values."""

from lightning_cifar.models.classifier import Classifier
from lightning_cifar.models.convnet import ConvNet
from lightning_cifar.models.dilated import DilatedNet
from lightning_cifar.models.hand_classifiers import LinearClassifier, TwoLayerNet
from lightning_cifar.models.lenet import LeNet
from lightning_cifar.models.mlp import MLP, MLPRegressor
from lightning_cifar.models.pretrained import (
    PretrainedAlexNet,
    PretrainedInception,
    PretrainedResNet,
    PretrainedSqueezeNet,
    PretrainedVGG,
)
from lightning_cifar.models.regressor import Regressor
from lightning_cifar.models.resnet import ResNetCIFAR
from lightning_cifar.models.side_by_side.module import SideBySide
from lightning_cifar.models.speed import SpeedNet
from lightning_cifar.models.trainable import Trainable

__all__ = [
    "MLP",
    "Classifier",
    "ConvNet",
    "DilatedNet",
    "LeNet",
    "LinearClassifier",
    "MLPRegressor",
    "PretrainedAlexNet",
    "PretrainedInception",
    "PretrainedResNet",
    "PretrainedSqueezeNet",
    "PretrainedVGG",
    "Regressor",
    "ResNetCIFAR",
    "SideBySide",
    "SpeedNet",
    "Trainable",
    "TwoLayerNet",
]
