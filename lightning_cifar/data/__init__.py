"""DataModules: images in memory as uint8, batches gathered by index and augmented on the device."""

from lightning_cifar.data.cifar10 import CIFAR10DataModule
from lightning_cifar.data.folder import ImageFolderDataModule
from lightning_cifar.data.image_datamodule import ImageDataModule
from lightning_cifar.data.mnist import FashionMNISTDataModule, MNISTDataModule
from lightning_cifar.data.noisy_line import NoisyLineDataModule
from lightning_cifar.data.synthetic import SyntheticDataModule

__all__ = [
    "CIFAR10DataModule",
    "FashionMNISTDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "MNISTDataModule",
    "NoisyLineDataModule",
    "SyntheticDataModule",
]
