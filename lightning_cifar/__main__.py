"""``python -m lightning_cifar``."""

from lightning_cifar.cli import console

console()
