"""``python -m lightning_cifar``."""

from lightning_cifar.runs.user_modules import forget_current_folder

forget_current_folder()  # first: even the standard library imports what it finds there

from lightning_cifar.cli import console  # noqa: E402

console()
