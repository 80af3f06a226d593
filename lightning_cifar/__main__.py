"""``python -m lightning_cifar``."""

from lightning_cifar.runs.user_modules import forget_current_folder

forget_current_folder()  # first: the standard library would import modules from there

from lightning_cifar.cli import console  # noqa: E402

console()
