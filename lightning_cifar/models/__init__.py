"""LightningModules with plain-value arguments."""

from lightning_cifar.models.classifier import Classifier
from lightning_cifar.models.dilated import DilatedNet
from lightning_cifar.models.lenet import LeNet
from lightning_cifar.models.resnet import ResNetCIFAR

__all__ = ["Classifier", "DilatedNet", "LeNet", "ResNetCIFAR"]
